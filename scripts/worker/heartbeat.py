"""Once a second: tell how far the worker is, and have the journal written to the disk."""

from __future__ import annotations

import json
import os
import threading
import time
from typing import Any, Callable

from scripts.worker.journal import JournalError

INTERVAL_S = 1.0


class Heartbeat(threading.Thread):
    """Writes the status file and syncs the journal, beside the loop.

    `report` returns what the status file holds, `sync` syncs the journal. `failure` is the error
    of a sync that failed; the loop looks at it.
    """

    def __init__(
        self, path: str, report: Callable[[], dict[str, Any]], sync: Callable[[], None]
    ) -> None:
        super().__init__(name="heartbeat", daemon=True)
        self._path = path
        self._report = report
        self._sync = sync
        self._ended = threading.Event()
        self.failure: JournalError | None = None

    def run(self) -> None:
        """Beat until `end`."""
        while not self._ended.wait(INTERVAL_S):
            self.beat()

    def beat(self) -> None:
        """Sync, then write the status file."""
        try:
            self._sync()
        except JournalError as error:
            self.failure = error
        write_atomic(self._path, {**self._report(), "time": time.time()})

    def end(self) -> None:
        """Stop beating, with a last beat."""
        self._ended.set()
        if self.is_alive():
            self.join(timeout=INTERVAL_S)
        self.beat()


def write_atomic(path: str, value: dict[str, Any]) -> None:
    """Write JSON so that a reader sees the old file or the new one; a full disk is not an error.

    What is written here informs; what must not be lost goes to the journal.
    """
    temporary = f"{path}.tmp"
    try:
        with open(temporary, "w", encoding="utf-8") as stream:
            json.dump(value, stream)
        os.replace(temporary, path)
    except OSError:
        return
