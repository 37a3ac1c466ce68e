"""How far a worker is: plain lines for the log, and the watch over engines that hang."""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripts.llm_batch.supervisor_settings import Tuning

LINE_INTERVAL_S = 10.0
RATE_WINDOW_S = 60.0


def read_status(path: Path) -> dict[str, Any]:
    """Return the worker's last status, empty before the first."""
    try:
        status = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return status if isinstance(status, dict) else {}


@dataclass
class Watchdog:
    """Tells a hung engine from a slow one. Times are monotonic seconds."""

    tuning: Tuning
    started: float
    _moved: float = 0.0
    _last: tuple[Any, ...] = ()

    def hung(self, status: dict[str, Any], now: float) -> str | None:
        """Return what the engine failed to do in time, None while all is well."""
        phase = status.get("phase", "start")
        if phase == "start":
            if now - self.started > self.tuning.start_timeout_s:
                return f"did not start within {self.tuning.start_timeout_s:g} s"
            return None
        # Steps are the only sign of life in versions that do not count tokens as they come.
        tokens = status.get("generated_tokens")
        sign = status.get("steps") if tokens is None else tokens
        moved = (phase, status.get("done"), sign)
        if moved != self._last:
            self._last, self._moved = moved, now
        elif now - self._moved > self.tuning.stall_timeout_s:
            return f"made no token and no answer for {self.tuning.stall_timeout_s:g} s"
        return None


@dataclass
class Progress:
    """Lines such as `shard 0: 1200/5000 answered, 2 errors, 350/s, 4100 tokens/s, 0:11 left`."""

    name: str
    total: int
    before: int
    _points: deque[tuple[float, int, int]] = field(default_factory=deque)
    _printed: float = float("-inf")

    def line(self, status: dict[str, Any], now: float) -> str | None:
        """Return a line if it is time for one. `now` is in seconds, of any clock that goes on."""
        if now - self._printed < LINE_INTERVAL_S:
            return None
        self._printed = now
        if status.get("phase", "start") == "start":
            return f"{self.name}: engine starting"
        return self.describe(status, now)

    def describe(self, status: dict[str, Any], now: float) -> str:
        """Return the line for a status."""
        done = self.before + int(status.get("done") or 0)
        tokens = int(status.get("generated_tokens") or status.get("completion_tokens") or 0)
        rate, token_rate = self._rates(now, done, tokens)
        parts = [f"{self.name}: {done}/{self.total} answered"]
        if status.get("errors"):
            parts.append(f"{status['errors']} errors")
        if rate is not None:
            parts += [f"{rate:.3g}/s", f"{token_rate:.3g} tokens/s"]
            if rate > 0:
                parts.append(f"{duration((self.total - done) / rate)} left")
        return ", ".join(parts)

    def _rates(self, now: float, done: int, tokens: int) -> tuple[float | None, float]:
        points = self._points
        points.append((now, done, tokens))
        while now - points[0][0] > RATE_WINDOW_S:
            points.popleft()
        then, done_then, tokens_then = points[0]
        if now <= then:
            return None, 0.0
        return (done - done_then) / (now - then), (tokens - tokens_then) / (now - then)

    def restart(self, answered: int) -> None:
        """Count from `answered` on: a new worker counts from 0."""
        self.before = answered
        self._points.clear()


def duration(seconds: float) -> str:
    """Return `1:05`, `2:03:04`."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
