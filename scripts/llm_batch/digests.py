"""sha256 of files, computed once and remembered by size, modification time and inode."""

from __future__ import annotations

import json
import logging
import os
import time
from pathlib import Path
from typing import TypedDict

from scripts.llm_batch.addresses import file_sha256, write_json_atomic
from scripts.llm_batch.errors import WorkflowError

log = logging.getLogger(__name__)

RACY_SECONDS = 2.0
"""A file changed this recently could change again within its clock's resolution: not remembered."""

LARGE_BYTES = 1 << 30
"""Files from this size on are announced, because hashing them takes seconds."""


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

    def __init__(self, path: Path) -> None:
        self._path = path
        self._entries: dict[str, Entry] = _load(path)
        self._changed = False

    def sha256(self, path: Path) -> str:
        """Return the sha256 of `path`; raise `WorkflowError` if it cannot be read."""
        try:
            real = path.resolve(strict=True)
            before = real.stat()
            known = self._entries.get(str(real))
            if known is not None and _same(known, before):
                return known["sha256"]
            if before.st_size >= LARGE_BYTES:
                log.info("hashing %s (%.1f GB), once", path, before.st_size / 1e9)
            digest = file_sha256(real)
            after = real.stat()
        except OSError as error:
            raise WorkflowError(f"{path}: cannot be read: {error.strerror}") from error
        if _stamp(before) != _stamp(after):
            raise WorkflowError(f"{path}: changed while it was read; run again when it is complete")
        self._remember(real, after, digest)
        return digest

    def learn(self, path: Path, sha256: str) -> None:
        """Remember a digest that was just computed of the same bytes under another name."""
        real = path.resolve()
        self._remember(real, real.stat(), sha256)

    def _remember(self, real: Path, stat: os.stat_result, sha256: str) -> None:
        if time.time() - stat.st_mtime > RACY_SECONDS:
            self._entries[str(real)] = {
                "size": stat.st_size,
                "mtime_ns": stat.st_mtime_ns,
                "inode": stat.st_ino,
                "sha256": sha256,
            }
            self._changed = True

    def save(self) -> None:
        """Write the memo if anything was added; a read-only folder is not an error."""
        if not self._changed:
            return
        try:
            write_json_atomic(self._path, self._entries)
        except (OSError, WorkflowError) as error:
            log.debug("digests are not remembered: %s", error)
        self._changed = False


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
