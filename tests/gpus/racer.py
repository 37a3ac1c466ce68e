"""A job in the race for simulated GPUs: leases some, again and again, and notes each lease.

    python -m tests.gpus.racer FOLDER CARDS COUNT ROUNDS LOG

Writes a line to LOG when it got cards and one when it gives them back; each is one `write` to a
file opened for appending, so the lines of all racers lie there in the order of events.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from pathlib import Path

from scripts.llm_batch.gpus.leases import Leases
from scripts.llm_batch.gpus.locks import LockFolder
from tests.gpus.simulated import simulated_inventory

LONGEST_S = 0.004


def main() -> int:
    """Race; 0 when all rounds are done."""
    folder, cards, count, rounds, log = sys.argv[1:]
    inventory = simulated_inventory(int(cards))
    stream = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)

    def note(event: str, uuids: list[str]) -> None:
        line = {"event": event, "pid": os.getpid(), "cards": uuids, "at": time.monotonic()}
        os.write(stream, json.dumps(line).encode() + b"\n")

    job = f"racer-{os.getpid()}"
    leases = Leases(LockFolder(Path(folder)), lambda: inventory, {}, job, poll_s=0.002)
    for _ in range(int(rounds)):
        note("waits", [])
        with leases.lease(int(count)) as devices:
            uuids = [device.uuid for device in devices]
            note("got", uuids)
            time.sleep(random.random() * LONGEST_S)
            note("gives", uuids)
    return 0


if __name__ == "__main__":
    sys.exit(main())
