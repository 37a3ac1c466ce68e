"""All figures of an experiment as lines of a table: tidy, and one line a run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from scripts.llm_batch.report.figures import (
    measured_columns,
    sampling_setting,
    sampling_settings,
)
from scripts.llm_batch.report.records import Experiment, Run, Value


def summary(experiment: Experiment) -> tuple[list[str], list[dict[str, Any]]]:
    """Return all figures, one line a run and statistic: the columns, and the lines."""
    settings = sampling_settings(experiment.runs)
    names = ["run", "run_address", "engine", "backend", "prompts", "sampling"]
    figures = ["metric", "statistic", "k", "value", "low", "high", "interval", "rows", "samples"]
    lines = []
    for run in experiment.runs:
        head = _names(run) | {name: sampling_setting(run, name) for name in settings}
        lines += [
            head | {name: getattr(value, name) for name in figures}
            for value in (*run.values, *_counts(run))
        ]
    return names + settings + figures, lines


def _names(run: Run) -> dict[str, Any]:
    engine, prompts, sampling = run.parts
    return {
        "run": run.name,
        "run_address": run.address,
        "engine": engine,
        "backend": run.engine.get("backend"),
        "prompts": prompts,
        "sampling": sampling,
    }


def _counts(run: Run) -> Iterable[Value]:
    """Yield the counts of the headline table as figures without an interval."""
    tokens = run.facts.get("tokens") or {}
    counted = {
        "rows": run.facts.get("rows"),
        "completions": run.completions,
        "errors": run.errors,
        "truncated_completions": run.truncated,
        "reused_completions": run.facts.get("reused"),
        "prompt_tokens": tokens.get("prompt"),
        "completion_tokens": tokens.get("completion"),
    }
    for name, value in counted.items():
        if value is not None:
            yield Value(None, name, None, value, None, None, None, run.facts.get("rows"), run.n)


def headline_lines(experiment: Experiment) -> tuple[list[str], list[dict[str, Any]]]:
    """Return one line a run with the columns of the headline table, unrounded."""
    settings = sampling_settings(experiment.runs)
    columns = ["run", "engine", "prompts", "sampling", *settings]
    measured = [column for column, _ in measured_columns(experiment)]
    for column in measured:
        columns.append(column.key)
        if column.kind == "estimate":
            columns += [f"{column.key}.low", f"{column.key}.high"]
        elif column.key.endswith(("pass@k", "majority@n")):
            columns.append(f"{column.key}.k")
    columns += ["backend", "run_address"]
    lines = [_headline_line(experiment, run, settings) for run in experiment.runs]
    return columns, lines


def _headline_line(experiment: Experiment, run: Run, settings: Sequence[str]) -> dict[str, Any]:
    line = _names(run) | {name: sampling_setting(run, name) for name in settings}
    for column, read in measured_columns(experiment):
        cell = read(run)
        line[column.key] = cell.sort
        if cell.value is not None:
            line[f"{column.key}.low"] = cell.value.low
            line[f"{column.key}.high"] = cell.value.high
            line[f"{column.key}.k"] = cell.value.k
    return line
