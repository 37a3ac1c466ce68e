"""Journals line by line: what supervisors and others read of them without a table."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import orjson

log = logging.getLogger(__name__)

NumberedLine = tuple[int, bytes]


def read_journal(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the answers of one journal as they were written; see `decoded`."""
    return decoded(path, whole_lines(path))


def whole_lines(path: Path) -> Iterator[NumberedLine]:
    """Yield the lines of a journal from 1; a torn last one, left by a killed worker, is dropped."""
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            if line.endswith(b"\n"):
                yield number, line


def decoded(path: Path, lines: Iterable[NumberedLine]) -> Iterator[dict[str, Any]]:
    """Yield the answers in lines of the journal at `path`, without its header.

    A broken line is reported and dropped: its request is open again, so nothing wrong comes of it.
    """
    for number, line in lines:
        try:
            record = orjson.loads(line)
        except orjson.JSONDecodeError:
            log.warning("%s:%d: broken line; its request counts as open", path, number)
            continue
        if "key" in record:
            yield record
