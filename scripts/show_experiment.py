"""Say where an experiment's report is and show its headline table, as `make quickstart` does."""

from __future__ import annotations

import argparse
import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from scripts.llm_batch.errors import WorkflowError, run_cli

COUNTS = ("completions", "errors")
NEXT = """\
Next: your own model and prompts, a JSON object with "prompt" on each line:
  . .venv/bin/activate
  snakemake --cores all --config model=PATH prompts=FILE.jsonl"""


def build_parser() -> argparse.ArgumentParser:
    """Return the command line of this program."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="results/experiments/<experiment>")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Print path, table and what to do next; 0 on success."""
    folder: Path = build_parser().parse_args(argv).folder
    lines = read_headline(folder / "tables" / "headline.csv")
    print(f"\n{aligned(table(lines))}\n")
    print(f"Report: {(folder / 'report.html').absolute()}\n\n{NEXT}")
    return 0


def read_headline(path: Path) -> list[dict[str, str]]:
    """Return one mapping a run from the headline table; raise `WorkflowError` if there is none."""
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            return list(csv.DictReader(stream))
    except OSError as error:
        raise WorkflowError(
            f"{path}: cannot be read ({error.strerror}); run `snakemake --cores all` first"
        ) from None


def table(lines: Sequence[Mapping[str, str]]) -> list[list[str]]:
    """Return header and rows: the run, its counts, and every estimate with its interval."""
    columns = list(lines[0]) if lines else []
    estimates = [name for name in columns if f"{name}.low" in columns]
    counts = [name for name in COUNTS if name in columns]
    head = ["run", *counts, *(estimate_label(name) for name in estimates)]
    rows = [
        [line["run"], *(line[c] for c in counts), *(estimate_text(line, e) for e in estimates)]
        for line in lines
    ]
    return [head, *rows]


def estimate_label(name: str) -> str:
    """Return `number.accuracy` as `number accuracy, %`; scores that are no share get no %."""
    return name.replace(".", " ") + (", %" if is_share(name) else "")


def is_share(name: str) -> bool:
    """Whether an estimate lies between 0 and 1 and reads better in percent."""
    return name.endswith("accuracy")


def estimate_text(line: Mapping[str, str], name: str) -> str:
    """Return value and interval, e.g. `97.1 [95.8, 98.0]`; a dash where there is none."""
    values = [line.get(key) or "" for key in (name, f"{name}.low", f"{name}.high")]
    if not values[0]:
        return "–"
    factor = 100 if is_share(name) else 1
    value, *bounds = [f"{float(text) * factor:.1f}" for text in values if text]
    return f"{value} [{', '.join(bounds)}]" if bounds else value


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as text: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


if __name__ == "__main__":
    run_cli(main)
