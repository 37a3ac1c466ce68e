"""The headline table of an experiment: one row a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from scripts.llm_batch.report import numbers
from scripts.llm_batch.report.records import Experiment, Run, Value

NO_BREAK_HYPHEN = "\u2011"
OFF = "off"
OFF_BY_DEFAULT = frozenset(
    {"top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty", "repetition_penalty"}
)
"""Sampling parameters that do nothing where they are not set."""

NAMES = ("engine", "prompts", "sampling")
"""The parts of a run's name; where they differ they stand in the label of the run."""

ORDER = ("temperature", "top_p", "top_k", "min_p", "n", "seed", "max_tokens")
"""Sampling settings that every reader looks for, in the order they are shown."""


@dataclass(frozen=True)
class Column:
    """A column of the headline table; `kind` is text, setting, number or estimate."""

    key: str
    label: str
    kind: str
    meaning: str = ""
    unit: str = ""
    metric: str = ""


@dataclass(frozen=True)
class Cell:
    """What a cell shows, what it sorts by, and for an estimate its interval."""

    text: str
    sort: float | str | None
    value: Value | None = None
    low: str = ""
    high: str = ""
    note: str = ""
    warn: bool = False


@dataclass(frozen=True)
class Headline:
    """The headline table: settings that all runs share stand above it, not in it."""

    shared: tuple[tuple[str, str], ...]
    columns: tuple[Column, ...]
    rows: tuple[tuple[Run, tuple[Cell, ...]], ...]


@dataclass(frozen=True)
class _Setting:
    key: str
    label: str
    read: Callable[[Run], Any]


def sampling_settings(runs: Sequence[Run]) -> list[str]:
    """Return the names of all sampling settings of `runs`, the best known first."""
    named = {name for run in runs for name in run.params}
    return [name for name in ORDER if name in named | {"n", "seed"}] + sorted(named - set(ORDER))


def sampling_setting(run: Run, name: str) -> Any:
    """Return a sampling setting of a run; None where it is not set."""
    if name == "n":
        return run.n
    return run.seed if name == "seed" else run.params.get(name)


def headline(experiment: Experiment) -> Headline:
    """Return the headline table of an experiment, one row a run."""
    runs = experiment.runs
    shared, varying = [], []
    for one in _settings(runs):
        texts = list(dict.fromkeys(_setting_text(one, run) for run in runs))
        if len(texts) == 1:
            if texts[0] not in (OFF, "default", numbers.UNKNOWN):
                shared.append((one.label, texts[0]))
        elif one.key not in NAMES:
            varying.append(one)
    measured = measured_columns(experiment)
    rows_of_runs = {run.facts.get("rows") for run in runs}
    if len(rows_of_runs) == 1:
        shared.append(("rows", numbers.count(rows_of_runs.pop())))
        measured = [pair for pair in measured if pair[0].key != "rows"]
    columns = [Column("run", "run", "text")]
    columns += [Column(one.key, one.label, "setting") for one in varying]
    rows = []
    for run in runs:
        cells = [Cell(run.label, run.name)]
        cells += [_setting_cell(one, run) for one in varying]
        rows.append((run, tuple(cells + [read(run) for _, read in measured])))
    return Headline(
        shared=tuple(shared),
        columns=tuple(columns + [column for column, _ in measured]),
        rows=tuple(rows),
    )


def _settings(runs: Sequence[Run]) -> list[_Setting]:
    def part(index: int) -> Callable[[Run], Any]:
        return lambda run: run.parts[index]

    def parameter(name: str) -> Callable[[Run], Any]:
        return lambda run: sampling_setting(run, name)

    names = [_Setting(key, key, part(index)) for index, key in enumerate(NAMES)]
    return names + [_Setting(name, name, parameter(name)) for name in sampling_settings(runs)]


def _setting_text(one: _Setting, run: Run) -> str:
    value = one.read(run)
    if value is not None:
        return numbers.setting(value)
    if one.key in OFF_BY_DEFAULT:
        return OFF
    return numbers.UNKNOWN if one.key in (*NAMES, "seed") else "default"


def _setting_cell(one: _Setting, run: Run) -> Cell:
    value = one.read(run)
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    text = _setting_text(one, run)
    return Cell(text, float(value) if number else (None if value is None else text))


Reader = Callable[[Run], Cell]


def measured_columns(experiment: Experiment) -> list[tuple[Column, Reader]]:
    """Return the columns that follow the settings, each with what reads its cell from a run."""
    runs = experiment.runs
    columns: list[tuple[Column, Reader]] = [
        (
            Column("rows", "rows", "number", "rows of the prompts"),
            _fact(lambda run: run.facts.get("rows")),
        ),
        (
            Column("completions", "completions", "number", "rows × samples, errors among them"),
            _fact(lambda run: run.completions),
        ),
    ]
    for metric in experiment.metrics:
        columns += _metric_columns(metric, runs, many=len(experiment.metrics) > 1)
    for statistic in ("unique_answers", "distinct-1", "distinct-2"):
        if any(run.find(None, statistic) for run in runs):
            label = statistic.replace("_", " ").replace("-", NO_BREAK_HYPHEN)
            column = Column(statistic, label, "number", unit="share")
            columns.append((column, _decimal(None, statistic, 3)))
    columns += [
        (
            Column("mean_completion_tokens", "tokens", "number", "mean length of a completion"),
            _decimal(None, "mean_completion_tokens", 1),
        ),
        (Column("errors", "errors", "number", "completions that are typed errors"), _errors),
        (
            Column("truncated", "truncated", "number", "completions that ended at max_tokens"),
            _fact(lambda run: run.truncated),
        ),
    ]
    return columns


def _metric_columns(metric: str, runs: Sequence[Run], many: bool) -> list[tuple[Column, Reader]]:
    columns: list[tuple[Column, Reader]] = []
    prefix = f"{metric} " if many else ""
    for statistic, kind in (
        ("accuracy", "estimate"),
        ("mean_score", "estimate"),
        ("pass@k", "number"),
        ("majority@n", "number"),
    ):
        if any(run.find(metric, statistic) for run in runs):
            share = statistic != "mean_score"
            label, same_k = _with_k(statistic, [run.find(metric, statistic) for run in runs])
            unit = "%" if share else ""
            name = f"{metric}.{statistic}"
            column = Column(name, f"{prefix}{label}", kind, unit=unit, metric=metric)
            columns.append((column, _estimate(metric, statistic, share, note_k=not same_k)))
    return columns


def _with_k(statistic: str, found: Sequence[Value | None]) -> tuple[str, bool]:
    """Return the label of a statistic, with k in it where all runs have the same k."""
    label = statistic.replace("_", " ")
    ks = {value.k for value in found if value}
    if len(ks) != 1:
        return label, False
    k = ks.pop()
    return (label if k is None else f"{label.rpartition('@')[0]}@{k}"), True


def _fact(read: Callable[[Run], Any]) -> Reader:
    def cell(run: Run) -> Cell:
        value = read(run)
        return Cell(numbers.count(value), value)

    return cell


def _decimal(metric: str | None, statistic: str, digits: int) -> Reader:
    def cell(run: Run) -> Cell:
        found = run.find(metric, statistic)
        value = found.value if found else None
        return Cell(numbers.decimal(value, digits), value, found)

    return cell


def _estimate(metric: str, statistic: str, share: bool, note_k: bool) -> Reader:
    write = numbers.percent if share else numbers.decimal

    def cell(run: Run) -> Cell:
        found = run.find(metric, statistic)
        if found is None:
            return Cell(numbers.UNKNOWN, None)
        note = f"@{found.k}" if note_k and found.k is not None else ""
        known = found.low is not None and found.high is not None
        low, high = (write(found.low), write(found.high)) if known else ("", "")
        return Cell(write(found.value), found.value, found, low, high, note)

    return cell


def _errors(run: Run) -> Cell:
    limit, above = run.max_error_rate or 0.0, run.too_many_errors
    note = f"above max_error_rate {limit:.2%}" if above else ""
    return Cell(numbers.count(run.errors), run.errors, note=note, warn=above)
