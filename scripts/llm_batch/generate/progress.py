"""How far a shard is: plain lines for the log, a file for `scripts.watch`, the watch over hangs."""

from __future__ import annotations

import json
import os
import platform
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripts.llm_batch.generate.diagnosis import last_lines, read_tail
from scripts.llm_batch.generate.settings import Tuning

LINE_INTERVAL_S = 10.0
FILE_INTERVAL_S = 1.0
RATE_WINDOW_S = 60.0
SAID_LENGTH = 150

SHARD_FILE = "shard.json"


def read_status(path: Path) -> dict[str, Any]:
    """Return the JSON object that another process keeps in `path`, empty before the first."""
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
    """The progress of a shard over all its engine starts.

    `before` answers, `errors` of them errors, were there before the current engine started.
    `folder` gets the file that `scripts.watch` reads.
    """

    name: str
    total: int
    before: int
    folder: Path
    errors: int = 0
    starts: int = 0
    deaths: int = 0
    _points: deque[tuple[float, int, int]] = field(default_factory=deque)
    _printed: float = float("-inf")
    _written: float = float("-inf")
    _starting_since: float | None = None

    def engine_started(self, answered: int, errors: int, deaths: int) -> None:
        """Count from `answered` and `errors` on: a new worker counts from 0."""
        self.before, self.errors, self.deaths = answered, errors, deaths
        self.starts += 1
        self._starting_since = None
        self._points.clear()

    def waiting(self, reason: str) -> None:
        """Write that the shard waits for GPUs, and why."""
        facts = {"answered": self.before, "errors": self.errors, "rate": None, "token_rate": None}
        self._write("waiting", {**facts, "left_s": None, "reason": reason})

    def update(self, status: dict[str, Any], now: float, log: Path | None = None) -> str | None:
        """Take note of a worker's status; return a line if it is time for one.

        While the engine starts, that is the last line of its `log`, so that a long start (kernels
        that are compiled, weights on a slow disk) is told from one that hangs.
        """
        phase = status.get("phase", "start")
        if self._starting_since is None:
            self._starting_since = now
        facts = self._facts(status, now)
        if now - self._written >= FILE_INTERVAL_S:
            self._written = now
            self._write("starting" if phase == "start" else "answering", facts)
        if now - self._printed < LINE_INTERVAL_S:
            return None
        self._printed = now
        if phase != "start":
            return self._line(facts)
        return f"{self.name}: engine starting{_started_so_far(now - self._starting_since, log)}"

    def end(self, state: str, answered: int, errors: int) -> None:
        """Write the last state: finished, failed or stopped."""
        facts = {"answered": answered, "errors": errors, "rate": None, "token_rate": None}
        self._write(state, {**facts, "left_s": None})

    def _facts(self, status: dict[str, Any], now: float) -> dict[str, Any]:
        answered = self.before + int(status.get("done") or 0)
        tokens = int(status.get("generated_tokens") or status.get("completion_tokens") or 0)
        points = self._points
        points.append((now, answered, tokens))
        while now - points[0][0] > RATE_WINDOW_S:
            points.popleft()
        then, answered_then, tokens_then = points[0]
        seconds = now - then
        rate = (answered - answered_then) / seconds if seconds > 0 else None
        return {
            "answered": answered,
            "errors": self.errors + int(status.get("errors") or 0),
            "rate": rate,
            "token_rate": (tokens - tokens_then) / seconds if seconds > 0 else None,
            "left_s": (self.total - answered) / rate if rate else None,
        }

    def _line(self, facts: dict[str, Any]) -> str:
        parts = [f"{self.name}: {facts['answered']}/{self.total} answered"]
        if facts["errors"]:
            parts.append(f"{facts['errors']} errors")
        if facts["rate"] is not None:
            parts += [f"{facts['rate']:.3g}/s", f"{facts['token_rate']:.0f} tokens/s"]
        if facts["left_s"] is not None:
            parts.append(f"{duration(facts['left_s'])} left")
        return ", ".join(parts)

    def _write(self, state: str, facts: dict[str, Any]) -> None:
        record = {
            "name": self.name,
            "state": state,
            "total": self.total,
            **facts,
            "engine_starts": self.starts,
            "deaths": self.deaths,
            "host": platform.node(),
            "pid": os.getpid(),
            "updated": time.time(),
        }
        path = self.folder / SHARD_FILE
        temporary = self.folder / f".{SHARD_FILE}.tmp"
        try:
            # Not synced: it is written every second, and only ever informs.
            temporary.write_text(json.dumps(record), encoding="utf-8")
            temporary.replace(path)
        except OSError:
            return


def _started_so_far(seconds: float, log: Path | None) -> str:
    said = last_lines(read_tail(log))[-1:] if log is not None else ()
    if seconds < LINE_INTERVAL_S or not said:
        return ""
    return f" for {duration(seconds)}, its log ends with: {said[0][:SAID_LENGTH]}"


def duration(seconds: float) -> str:
    """Return `1:05`, `2:03:04`."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
