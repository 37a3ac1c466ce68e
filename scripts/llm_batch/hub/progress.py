"""How far a download is: plain lines for a log, fed by the hub's client as its progress bars."""

from __future__ import annotations

import logging
import threading
import time
from types import TracebackType
from typing import Any

log = logging.getLogger(__name__)

LINE_INTERVAL_S = 10.0


class Progress:
    """Counts bytes from several threads and says every ten seconds how far they are."""

    def __init__(self, total: int, there: int = 0) -> None:
        self.total = total
        self.received = 0
        self._there = there
        self._lock = threading.Lock()
        self._started = self._said = time.monotonic()

    def add(self, count: int) -> None:
        """Count bytes that were received."""
        with self._lock:
            self.received += count
            now = time.monotonic()
            if now - self._said >= LINE_INTERVAL_S:
                self._said = now
                log.info("%s", self.line(now - self._started))

    def resume(self, count: int) -> None:
        """Count bytes that an earlier process received."""
        with self._lock:
            self._there += count

    def line(self, seconds: float) -> str:
        """Return how far it is after so many seconds."""
        done = self._there + self.received
        rate = self.received / max(seconds, 1e-3)
        share = 100 * done / self.total if self.total else 100.0
        left = (self.total - done) / rate if rate else 0.0
        counted = f"{done / 1e9:.2f} of {self.total / 1e9:.2f} GB ({share:.0f} %)"
        return f"{counted}, {rate / 1e6:.1f} MB/s, {left / 60:.0f} min left"

    def bar(self) -> type[Any]:
        """Return a class that the client takes for a progress bar."""
        progress = self

        class Bar:
            """Only what the client calls."""

            def __init__(self, *_: Any, **__: Any) -> None:
                pass

            def update(self, count: float | None = 1) -> None:
                progress.add(int(count or 0))

            def close(self) -> None:
                pass

            def __enter__(self) -> Any:
                return self

            def __exit__(
                self,
                kind: type[BaseException] | None,
                error: BaseException | None,
                trace: TracebackType | None,
            ) -> None:
                pass

        return Bar
