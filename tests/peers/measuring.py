"""Running a program and measuring it: wall time, and peak memory of all its processes."""

from __future__ import annotations

import contextlib
import resource
import statistics
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]

SAMPLE_S = 0.5
"""Looking through the process table takes some milliseconds of a core."""

TAIL_LINES = 12


@dataclass(frozen=True)
class Measured:
    """What one program took. Memory: resident bytes of the program and its children, summed.

    CPU seconds are those of all its processes; on a busy machine they vary less than wall time.
    """

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    code: int
    log: Path

    def tail(self) -> str:
        """Return the last lines that the program wrote."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-TAIL_LINES:])


def run_measured(
    command: Sequence[str | Path], log: Path, environment: Mapping[str, str]
) -> Measured:
    """Run `command` in the repository to its end; nothing of it is left if this is interrupted."""
    peak = 0
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as stream:
        began, used = time.monotonic(), children_seconds()
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
        )
        try:
            while True:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(SAMPLE_S)
                    break
                peak = max(peak, tree_bytes(process.pid))
        finally:
            kill_tree(process)
        seconds, used = time.monotonic() - began, children_seconds() - used
    return Measured(seconds, used, peak, process.returncode, log)


def children_seconds() -> float:
    """Return the CPU seconds of all processes that came from this one and have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def tree_bytes(pid: int) -> int:
    """Return the resident bytes of a process and of all that came from it."""
    total = 0
    with contextlib.suppress(psutil.Error):
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                total += process.memory_info().rss
    return total


def kill_tree(process: subprocess.Popen[bytes]) -> None:
    """Kill a process that still runs, and its children."""
    if process.poll() is not None:
        return
    with contextlib.suppress(psutil.Error):
        for child in psutil.Process(process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                child.kill()
    process.kill()
    process.wait()


def rotated(names: Sequence[str], number: int) -> list[str]:
    """Return `names` starting with another one each round: the first of a round is disfavoured."""
    start = number % len(names)
    return [*names[start:], *names[:start]]


def ratio(values: Sequence[float], to: Sequence[float]) -> float | None:
    """Return the ratio of the medians, None if one side was not measured."""
    if not values or not to:
        return None
    return statistics.median(values) / statistics.median(to)


def number(value: float | None, digits: int = 2) -> str:
    """Return a number for a table; a dash if there is none."""
    return "–" if value is None else f"{value:,.{digits}f}"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table, the first column left and the others right aligned."""
    cells = [list(columns), *(list(row) for row in rows)]
    widths = [max(len(row[place]) for row in cells) for place in range(len(columns))]
    rule = [":" + "-" * (widths[0] - 1), *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = []
    for row in (cells[0], rule, *cells[1:]):
        padded = [row[0].ljust(widths[0])]
        padded += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("| " + " | ".join(padded) + " |")
    return "\n".join(lines)
