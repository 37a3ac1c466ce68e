"""What a metric could not score: it is in no figure, so the report says it beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from scripts.llm_batch.report import numbers
from scripts.llm_batch.report.records import Experiment, Run

MOST_NAMED = 5
"""Runs that are named one by one; of more only their number is told."""


def failed_scores(experiment: Experiment) -> list[str]:
    """Return a line for each metric that raised, died or took too long on some completions."""
    records = [(run, run.metrics.get("metrics", {})) for run in experiment.runs]
    names = dict.fromkeys(name for _, metrics in records for name in metrics)
    lines = []
    for name in names:
        used = [(run, metrics[name]) for run, metrics in records if name in metrics]
        failed = [(run, record) for run, record in used if _failed(record)]
        if failed:
            count = numbers.count(sum(_failed(record) for _, record in failed))
            of = numbers.count(sum(run.completions or 0 for run, _ in used))
            where = "" if len(used) == 1 else f" ({', '.join(_places(failed))})"
            lines.append(
                f"{name}: {count} of {of} completions{where} could not be scored; they are in no "
                f"figure. First: {failed[0][1]['first_failure']}"
            )
    return lines


def _failed(record: Mapping[str, Any]) -> int:
    return int(record.get("errors", {}).get("failed", 0))


def _places(failed: list[tuple[Run, Mapping[str, Any]]]) -> Iterator[str]:
    if len(failed) > MOST_NAMED:
        yield f"in {numbers.count(len(failed))} runs"
        return
    for run, record in failed:
        yield f"{run.label} {numbers.count(_failed(record))}"
