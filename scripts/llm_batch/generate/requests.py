"""The requests of a shard, held as keys and marks only: a million take some 200 MB."""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import orjson

from scripts.llm_batch.addresses import atomic_path
from scripts.llm_batch.errors import WorkflowError

KEY_START = len(b'{"key":"')
KEY_END = KEY_START + 32
LIMIT_START = KEY_END + len(b'","max_tokens":')


class Head(NamedTuple):
    """What tells one request or answer from another: 32 hexadecimal digits, and the limit."""

    key: bytes
    max_tokens: int


def read_head(line: bytes) -> Head:
    """Return key and limit of a line of a requests file or journal.

    Both files have them first; decoding whole lines of other shards' journals would be most of
    the work. Raises `ValueError` for anything else.
    """
    if line.startswith(b'{"key":"') and line[KEY_END:LIMIT_START] == b'","max_tokens":':
        return Head(line[KEY_START:KEY_END], int(line[LIMIT_START : line.index(b",", LIMIT_START)]))
    record = orjson.loads(line)
    if not isinstance(record, dict) or "key" not in record:
        raise ValueError("no key")
    return Head(str(record["key"]).encode(), int(record["max_tokens"]))


class Requests:
    """The requests of one shard by position in its file, from 0."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.max_tokens = array("i")
        self._positions: dict[bytes, int] = {}
        self._more: dict[bytes, list[int]] = {}
        for number, line in enumerate(read_lines(path), start=1):
            try:
                self._add(read_head(line))
            except (ValueError, TypeError) as error:
                raise WorkflowError(
                    f"{path}:{number}: not a request ({error}); delete the file and run again"
                ) from None

    def _add(self, head: Head) -> None:
        position = len(self.max_tokens)
        self.max_tokens.append(head.max_tokens)
        if head.key in self._positions:
            self._more.setdefault(head.key, []).append(position)
        else:
            self._positions[head.key] = position

    def __len__(self) -> int:
        return len(self.max_tokens)

    def positions(self, key: bytes) -> list[int]:
        """Return where `key` is asked, each time with another limit; usually one place."""
        first = self._positions.get(key)
        if first is None:
            return []
        return [first, *self._more.get(key, ())] if self._more else [first]

    def lines(self, wanted: Callable[[int], bool]) -> Iterator[tuple[int, bytes]]:
        """Yield (position, line) of the requests for which `wanted(position)` is true."""
        for position, line in enumerate(read_lines(self.path)):
            if wanted(position):
                yield position, line


def read_lines(path: Path) -> Iterator[bytes]:
    """Yield the lines of a requests file; a file that cannot be read is a `WorkflowError`."""
    try:
        with path.open("rb") as stream:
            yield from stream
    except OSError as error:
        raise WorkflowError(f"{path}: cannot be read: {error.strerror}") from error


class Part(NamedTuple):
    """A file of requests for a worker, and the position of each of its lines."""

    path: Path
    positions: array[int]


def write_parts(lines: Iterable[tuple[int, bytes]], folder: Path, apart: bool) -> list[Part]:
    """Write requests for a worker; with `apart` greedy ones to a file of their own, first."""
    names = ("open.greedy.jsonl", "open.jsonl") if apart else ("open.jsonl",)
    parts = [Part(folder / name, array("q")) for name in names]
    with ExitStack() as stack:
        streams = [stack.enter_context(_open_atomic(part.path)) for part in parts]
        for position, line in lines:
            number = 0 if apart and is_greedy(line) else -1
            streams[number].write(line)
            parts[number].positions.append(position)
    return [part for part in parts if part.positions]


@contextmanager
def _open_atomic(path: Path) -> Iterator[BinaryIO]:
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        yield stream


def is_greedy(line: bytes) -> bool:
    """Tell whether a request has no seed to be ignored."""
    return bool(decode(line)["sampling"].get("temperature", 1.0) == 0)


def decode(line: bytes) -> dict[str, Any]:
    """Return a request; the standard library takes what orjson refuses (lone surrogates)."""
    try:
        record: dict[str, Any] = orjson.loads(line)
    except orjson.JSONDecodeError:
        record = json.loads(line)
    return record
