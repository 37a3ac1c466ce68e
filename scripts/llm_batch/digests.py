"""sha256 of files, computed once and remembered by size, modification time and inode."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypedDict

from scripts.llm_batch.addresses import file_sha256, write_json_atomic
from scripts.llm_batch.errors import WorkflowError

log = logging.getLogger(__name__)

RACY_SECONDS = 2.0
"""A file changed this recently could change again within its clock's resolution: not remembered."""

LARGE_BYTES = 1 << 30
"""Files from this size on are announced, because hashing them takes seconds."""

LINE_INTERVAL_S = 10.0
BLOCK_BYTES = 4 << 20
THREADS = 4
"""Hashing leaves Python's lock; more files at a time would only make a disk seek."""


class Entry(TypedDict):
    """What is remembered of one file."""

    size: int
    mtime_ns: int
    inode: int
    sha256: str


class DigestMemo:
    """Digests of files, kept in one JSON file between calls.

    Losing the file, or an entry to another process that saves at the same moment, costs time only.
    """

    def __init__(self, path: Path, tell: Callable[[str], None] = log.info) -> None:
        """Load the memo at `path`; `tell` gets the lines that say how far hashing is."""
        self._path = path
        self._tell = tell
        self._entries: dict[str, Entry] = _load(path)
        self._new: dict[str, Entry] = {}

    def sha256_all(self, paths: Sequence[Path]) -> list[str]:
        """Return the sha256 of each path, several files hashed at a time; see `sha256`."""
        with ThreadPoolExecutor(THREADS) as pool:
            return list(pool.map(self.sha256, paths))

    def sha256(self, path: Path) -> str:
        """Return the sha256 of `path`; raise `WorkflowError` if it cannot be read."""
        try:
            real = path.resolve(strict=True)
            before = real.stat()
            known = self._entries.get(str(real))
            if known is not None and _same(known, before):
                return known["sha256"]
            digest = self._hash(path, real, before.st_size)
            after = real.stat()
        except OSError as error:
            raise WorkflowError(f"{path}: cannot be read: {error.strerror}") from error
        if _stamp(before) != _stamp(after):
            raise WorkflowError(f"{path}: changed while it was read; run again when it is complete")
        self._remember(real, after, digest)
        return digest

    def _hash(self, path: Path, real: Path, size: int) -> str:
        if size < LARGE_BYTES:
            return file_sha256(real)
        self._tell(f"hashing {path} ({size / 1e9:.1f} GB), once")
        digest, done, told = hashlib.sha256(), 0, time.monotonic()
        with real.open("rb") as stream:
            while block := stream.read(BLOCK_BYTES):
                digest.update(block)
                done += len(block)
                if time.monotonic() - told >= LINE_INTERVAL_S:
                    told = time.monotonic()
                    self._tell(f"hashing {path}: {done / 1e9:.1f} of {size / 1e9:.1f} GB")
        return digest.hexdigest()

    def learn(self, path: Path, sha256: str) -> None:
        """Remember a digest that was just computed of the same bytes under another name."""
        real = path.resolve()
        self._remember(real, real.stat(), sha256)

    def _remember(self, real: Path, stat: os.stat_result, sha256: str) -> None:
        if time.time() - stat.st_mtime > RACY_SECONDS:
            entry: Entry = {
                "size": stat.st_size,
                "mtime_ns": stat.st_mtime_ns,
                "inode": stat.st_ino,
                "sha256": sha256,
            }
            self._entries[str(real)] = self._new[str(real)] = entry

    def save(self) -> None:
        """Write the memo if anything was added; a read-only folder is not an error."""
        if not self._new:
            return
        try:
            # Others may have saved since this was loaded: a model of hours is not hashed again.
            write_json_atomic(self._path, {**_load(self._path), **self._new})
        except (OSError, WorkflowError) as error:
            log.debug("digests are not remembered: %s", error)
        self._new = {}


def _load(path: Path) -> dict[str, Entry]:
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return entries if isinstance(entries, dict) else {}


def _stamp(stat: os.stat_result) -> tuple[int, int, int]:
    return stat.st_size, stat.st_mtime_ns, stat.st_ino


def _same(entry: Entry, stat: os.stat_result) -> bool:
    return (entry["size"], entry["mtime_ns"], entry["inode"]) == _stamp(stat)
