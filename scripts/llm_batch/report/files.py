"""Write the figures of a report as CSV and as a Markdown table."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts.llm_batch.addresses import canonical_json, write_text_atomic
from scripts.llm_batch.report import numbers
from scripts.llm_batch.report.comparisons import Comparison
from scripts.llm_batch.report.figures import Cell, Headline
from scripts.llm_batch.report.records import Experiment


def write_csv(path: Path, columns: Sequence[str], lines: Sequence[Mapping[str, Any]]) -> None:
    """Write `lines` in the order of `columns`; unknown values are empty, lists are JSON."""
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([[_csv_text(line.get(name)) for name in columns] for line in lines])
    write_text_atomic(path, stream.getvalue())


def _csv_text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else canonical_json(value)


def markdown(experiment: Experiment, table: Headline, comparison: Comparison) -> str:
    """Return the headline table and the verdicts of gates as Markdown, for a pull request."""
    head = [f"{c.label}, {c.unit}" if c.unit == "%" else c.label for c in table.columns]
    align = ["---" if c.kind == "text" else "--:" for c in table.columns]
    rows = [[_markdown_cell(cell) for cell in cells] for _, cells in table.rows]
    lines = ["| " + " | ".join(words) + " |" for words in (head, align, *rows)]
    shared = ", ".join(f"{label} {text}" for label, text in table.shared)
    level = f"{experiment.runs[0].level:.0%}" if experiment.runs else ""
    notes = [
        *([f"All runs: {shared}."] if shared else []),
        *([f"[low, high]: {level} intervals over rows."] if experiment.metrics else []),
        *(["**Dummy engine: answers are not from a model.**"] if _any_dummy(experiment) else []),
        f"Report {experiment.address}; reproduce with `{experiment.command}`.",
    ]
    gates = [
        f"- {'passed' if gate['passed'] else '**failed**'}: {_plain(gate['message'])}"
        for gate in comparison.gates
    ]
    title = f"### {_plain(experiment.title)}"
    return "\n".join([title, "", *lines, "", *([*gates, ""] if gates else []), *notes]) + "\n"


def _any_dummy(experiment: Experiment) -> bool:
    return any(run.is_dummy for run in experiment.runs)


def _markdown_cell(cell: Cell) -> str:
    text = cell.text.replace(numbers.NARROW_SPACE, " ")
    if cell.note.startswith("@"):
        text += f" {cell.note}"
    if cell.low:
        text += f" [{cell.low}, {cell.high}]"
    return _plain(text)


def _plain(text: str) -> str:
    """Return text that Markdown shows as it is and that stays in its table cell."""
    for mark in "\\`*_[]<>|":
        if mark not in "[]_":
            text = text.replace(mark, f"\\{mark}")
    return " ".join(text.split())
