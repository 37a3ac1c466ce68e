"""The other nodes of a dummy engine: they meet the first one as vLLM's do, and are then idle."""

from __future__ import annotations

import contextlib
import socket
import time
from typing import Any

MEET_S = 300.0
RETRY_S = 0.2


def gather(args: dict[str, Any]) -> list[socket.socket]:
    """Wait at the first node until all others are there; return the connections to them."""
    others = int(args.get("nnodes") or 1) - 1
    if not others:
        return []
    place = (args["master_addr"], int(args["master_port"]))
    with socket.create_server(place) as server:
        server.settimeout(MEET_S)
        return [server.accept()[0] for _ in range(others)]


def follow_dummy(args: dict[str, Any]) -> None:
    """Meet the first node, and return when it has ended."""
    place = (args["master_addr"], int(args["master_port"]))
    deadline = time.monotonic() + MEET_S
    while True:
        try:
            connection = socket.create_connection(place)
            break
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(RETRY_S)
    with connection, contextlib.suppress(ConnectionError):
        connection.recv(1)
