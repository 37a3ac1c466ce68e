"""The journal of one engine start, and the counters that survive its death."""

from __future__ import annotations

import os
from typing import Any

from scripts.worker.answers import encode

JOURNAL_VERSION = 1

PROGRESS_BYTES = 64


class JournalError(Exception):
    """The journal cannot be written: disk full, quota, file size limit."""


class Journal:
    """An append-only file of answers with one writer.

    `flush` hands lines to the operating system, where they outlive this process; `sync` has them
    written to the disk, where they outlive the machine.
    """

    def __init__(self, path: str, header: dict[str, Any]) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        self._file = os.open(path, flags, 0o666)
        self._size = 0
        self._synced = 0
        self._lines: list[bytes] = []
        self.append({"journal": {"version": JOURNAL_VERSION, **header}})
        self.flush()

    def append(self, record: dict[str, Any]) -> None:
        """Add a line to what the next `flush` writes."""
        self._lines.append(encode(record))

    def flush(self) -> None:
        """Write the lines appended since the last flush; raises `JournalError`."""
        if not self._lines:
            return
        data = b"".join(self._lines)
        self._lines.clear()
        written = 0
        try:
            while written < len(data):
                written += os.write(self._file, data[written:])
        except OSError as error:
            self._cut_back()
            raise JournalError(os.strerror(error.errno or 0)) from error
        self._size += len(data)

    def _cut_back(self) -> None:
        """Remove a line that was written in part; readers would drop it anyway."""
        try:
            os.ftruncate(self._file, self._size)
        except OSError:
            return

    def sync(self) -> None:
        """Have the lines flushed so far written to the disk; safe from another thread."""
        size = self._size
        if size == self._synced:
            return
        try:
            os.fsync(self._file)
        except OSError as error:
            raise JournalError(os.strerror(error.errno or 0)) from error
        self._synced = size


class Counters:
    """How far a worker came; the part that a crash must not take with it lies in a small file.

    That file tells which requests the engine held: of file number `part` of the requests the
    first `admitted` lines, less those that are answered. It is rewritten in place: that takes no
    disk space, so it works on a full disk, and the kernel keeps it when the process is killed.
    """

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        self.part = 0
        self.admitted = 0
        self.answered = 0
        self.errors = 0
        self.steps = 0
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self.cached_prompt_tokens: int | None = None
        self.write()

    def write(self) -> None:
        """Store what is to survive."""
        os.pwrite(self._file, f"{self.part} {self.admitted}".ljust(PROGRESS_BYTES).encode(), 0)
