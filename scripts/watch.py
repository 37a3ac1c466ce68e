"""Show how far all shards are, from any terminal that sees the results folder.

Reads what the supervisors write every second (results/engines/*/shards/*/shard.json), so it works
on a cluster's shared disk while the shards are answered on other machines. On a terminal the table
is redrawn until Ctrl-C; elsewhere, or with --once, it is printed once.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from scripts.llm_batch.errors import run_cli
from scripts.llm_batch.generate.progress import SHARD_FILE, duration, read_status

SILENT_S = 30.0
"""A supervisor that has not written for so long is marked: it is dead, or its disk is slow."""

RUNNING = ("waiting", "starting", "answering")

HEADINGS = (
    "shard", "state", "answered", "of", "", "rate/s", "tokens/s", "left", "errors", "engines",
    "deaths", "host",
)  # fmt: skip

LEFT_ALIGNED = frozenset({"shard", "state", "host"})

CLEAR = "\x1b[H\x1b[2J"


def build_parser() -> argparse.ArgumentParser:
    """Return the command line of this program."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("results"), help="the results folder")
    parser.add_argument("--once", action="store_true", help="print the table once")
    parser.add_argument(
        "--all", action="store_true", help="also shards that were finished before today"
    )
    parser.add_argument("--interval", type=float, default=2.0, help="seconds between two tables")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table, again and again on a terminal; 0."""
    arguments = build_parser().parse_args(argv)
    live = sys.stdout.isatty() and not arguments.once
    try:
        while True:
            now = time.time()
            shards = recent(read_shards(arguments.results), now, arguments.all)
            text = table(shards, now) if shards else f"no shards in {arguments.results} yet"
            print(f"{CLEAR}{text}" if live else text, flush=True)
            if not live:
                return 0
            time.sleep(arguments.interval)
    except KeyboardInterrupt:
        return 0


def read_shards(results: Path) -> list[dict[str, Any]]:
    """Return what the supervisors of all shards last wrote, sorted by name."""
    found = [read_status(path) for path in results.glob(f"engines/*/shards/*/{SHARD_FILE}")]
    return sorted((shard for shard in found if shard), key=lambda shard: str(shard["name"]))


def recent(shards: Iterable[dict[str, Any]], now: float, everything: bool) -> list[dict[str, Any]]:
    """Return the shards that run or were touched within a day, or all."""
    day = 24 * 3600.0
    return [shard for shard in shards if everything or now - shard["updated"] < day]


def table(shards: Sequence[dict[str, Any]], now: float) -> str:
    """Return a table with a line for each shard and one for all."""
    rows = [row(shard, now) for shard in shards]
    if len(rows) > 1:
        rows.append(total_row(shards, now))
    widths = [
        max(len(heading), *(len(line[place]) for line in rows))
        for place, heading in enumerate(HEADINGS)
    ]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if heading in LEFT_ALIGNED else cell.rjust(width)
            for cell, width, heading in zip(line, widths, HEADINGS, strict=True)
        ).rstrip()
        for line in [HEADINGS, *rows]
    )


def row(shard: dict[str, Any], now: float) -> tuple[str, ...]:
    """Return the cells of one shard."""
    running = is_running(shard, now)
    return (
        str(shard["name"]),
        state(shard, now),
        str(shard["answered"]),
        str(shard["total"]),
        share(shard["answered"], shard["total"]),
        number(shard["rate"]) if running else "",
        number(shard["token_rate"]) if running else "",
        duration(shard["left_s"]) if running and shard["left_s"] is not None else "",
        str(shard["errors"]),
        str(shard["engine_starts"]),
        str(shard["deaths"]),
        str(shard["host"]),
    )


def total_row(shards: Sequence[dict[str, Any]], now: float) -> tuple[str, ...]:
    """Return the cells of the sum of all shards; the time left is that of the slowest."""
    running = [shard for shard in shards if is_running(shard, now)]
    left = [shard["left_s"] for shard in running if shard["left_s"] is not None]
    answered = sum(shard["answered"] for shard in shards)
    total = sum(shard["total"] for shard in shards)
    return (
        "all",
        f"{len(running)} running",
        str(answered),
        str(total),
        share(answered, total),
        number(sum(shard["rate"] or 0.0 for shard in running)) if running else "",
        number(sum(shard["token_rate"] or 0.0 for shard in running)) if running else "",
        duration(max(left)) if left else "",
        str(sum(shard["errors"] for shard in shards)),
        str(sum(shard["engine_starts"] for shard in shards)),
        str(sum(shard["deaths"] for shard in shards)),
        "",
    )


def is_running(shard: dict[str, Any], now: float) -> bool:
    """Tell whether a supervisor is at work on a shard."""
    return shard["state"] in RUNNING and now - shard["updated"] < SILENT_S


def state(shard: dict[str, Any], now: float) -> str:
    """Return the state of a shard in words."""
    silent = now - shard["updated"]
    if shard["state"] in RUNNING and silent >= SILENT_S:
        return f"silent for {duration(silent)}"
    return str(shard["state"])


def share(part: int, whole: int) -> str:
    """Return a share as whole percent, never 100 % before the end."""
    return "100%" if part >= whole else f"{math.floor(100 * part / whole)}%"


def number(value: float | None) -> str:
    """Return a rate with about three digits."""
    if value is None:
        return ""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    run_cli(main)
