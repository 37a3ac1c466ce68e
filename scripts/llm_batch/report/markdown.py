"""report.md: what a reviewer of a pull request asks, in the Markdown that GitHub shows."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from scripts.llm_batch.report import numbers
from scripts.llm_batch.report.comparisons import Comparison, p_text
from scripts.llm_batch.report.completions import Failure
from scripts.llm_batch.report.engines import Batch
from scripts.llm_batch.report.figures import Cell, Headline
from scripts.llm_batch.report.records import Experiment, Run
from scripts.llm_batch.report.resources import Resources
from scripts.llm_batch.report.unscored import failed_scores

MOST_COMPARISONS = 40
MOST_IN_SIGHT = 10
"""Longer tables are folded."""

MACHINE = ("device", "vLLM", "torch", "CUDA", "Python", "attention backend", "dtype", "host")
"""What of an engine's facts stands here; all of them are on the page."""


def markdown(
    experiment: Experiment,
    table: Headline,
    comparison: Comparison,
    failures: Sequence[Failure],
    batches: Sequence[Batch],
    resources: Sequence[Resources],
) -> str:
    """Return the report of an experiment as Markdown."""
    parts = [
        f"### {_plain(experiment.title)}",
        *_dummy(experiment),
        *_headline(experiment, table),
        *_gates(comparison),
        *_comparisons(comparison),
        *_failures(experiment, failures),
        *_determinism(experiment),
        *_engines(batches, resources),
        *_reproduce(experiment),
    ]
    return "\n\n".join(parts).replace(numbers.NARROW_SPACE, " ") + "\n"


def _dummy(experiment: Experiment) -> Iterator[str]:
    if any(run.is_dummy for run in experiment.runs):
        yield "> [!WARNING]\n> **Dummy engine: answers are not from a model.**"


def _headline(experiment: Experiment, table: Headline) -> Iterator[str]:
    head = [f"{c.label}, {c.unit}" if c.unit == "%" else c.label for c in table.columns]
    align = ["---" if c.kind == "text" else "--:" for c in table.columns]
    yield _table(head, align, [[_cell(cell) for cell in cells] for _, cells in table.rows])
    shared = ", ".join(f"{label} {text}" for label, text in table.shared)
    notes = [_plain(f"All runs: {shared}.")] if shared else []
    if experiment.metrics:
        notes.append(f"[low, high]: {experiment.runs[0].level:.0%} intervals over rows.")
    if notes:
        yield " ".join(notes)
    yield from (f"⚠️ {_plain(line)}" for line in failed_scores(experiment))


def _gates(comparison: Comparison) -> Iterator[str]:
    if comparison.gates:
        passed = sum(bool(gate["passed"]) for gate in comparison.gates)
        lines = [
            f"- {'✅ passed' if gate['passed'] else '❌ **failed**'}: {_plain(gate['message'])}"
            for gate in comparison.gates
        ]
        yield f"#### Gates: {passed} of {len(comparison.gates)} passed"
        yield "\n".join(lines)


def _comparisons(comparison: Comparison) -> Iterator[str]:
    found = comparison.document["comparisons"]
    if not found:
        return
    significant = sum(bool(one["significant"]) for one in found)
    correction = comparison.document["correction"]
    how = "not corrected" if correction == "none" else f"corrected ({correction.title()})"
    yield (
        f"#### Comparisons: {numbers.count(significant)} of {numbers.count(len(found))} "
        f"{numbers.plural(len(found), 'difference')} significant"
    )
    shown = sorted(found, key=lambda one: float(one["p"]))[:MOST_COMPARISONS]
    many = len(comparison.metrics) > 1
    head = [
        "A",
        "B",
        *(["metric"] if many else []),
        "B − A",
        "interval",
        f"p, {how}",
        "significant",
    ]
    align = ["---", "---", *(["---"] if many else []), "--:", "--:", "--:", "---"]
    rows = [
        [
            _plain(comparison.label(one["a"])),
            _plain(comparison.label(one["b"])),
            *([_plain(one["metric"])] if many else []),
            *_difference(one),
            p_text(one).replace("<", "&lt;"),
            "**yes**" if one["significant"] else "no",
        ]
        for one in shown
    ]
    more = len(found) - len(shown)
    rest = (
        f"\n\nAnd {numbers.count(more)} with a larger p: `tables/comparisons.csv`." if more else ""
    )
    text = _table(head, align, rows) + rest
    yield text if len(rows) <= MOST_IN_SIGHT else _folded(f"{len(shown)} comparisons", text)


def _difference(one: Mapping[str, Any]) -> tuple[str, str]:
    """Return a difference and its interval: of accuracies in percentage points, as told (pp)."""
    share = one["statistic"] == "accuracy"
    write = numbers.points if share else "{:+.4f}".format
    unit = " pp" if share else ""
    if one["low"] is None:
        return write(one["difference"]) + unit, numbers.UNKNOWN
    return write(one["difference"]) + unit, f"[{write(one['low'])}, {write(one['high'])}]{unit}"


def _failures(experiment: Experiment, failures: Sequence[Failure]) -> Iterator[str]:
    totals = [run.completions for run in experiment.runs]
    count = sum(number for failure in failures for number in failure.counts.values())
    of = numbers.UNKNOWN if None in totals else numbers.count(sum(n or 0 for n in totals))
    yield "#### Failures"
    kinds = ", ".join(
        f"{numbers.count(sum(one.counts.values()))} × `{one.type}`" for one in failures
    )
    above = [run for run in experiment.runs if run.too_many_errors]
    text = f"{numbers.count(count)} of {of} completions are errors" + (
        f": {kinds}." if kinds else "."
    )
    if above:
        names = ", ".join(_plain(run.label) for run in above)
        text += f" **Above max_error_rate:** {names}."
    yield text


def _determinism(experiment: Experiment) -> Iterator[str]:
    runs = [run for run in experiment.runs if not run.is_dummy]
    reused, requested = experiment.reused, experiment.requested
    yield "#### Reuse and determinism"
    if reused is not None and requested is not None:
        of = f"{numbers.count(reused)} of {numbers.count(requested)}"
        yield f"{of} answers came from results already there."
    if not runs:
        return
    modes = ", ".join(dict.fromkeys(str(run.engine.get("determinism", "fast")) for run in runs))
    measured = [_match(run, run.replication) for run in runs if run.replication]
    found = "; ".join(measured) or "not measured (`--config replicate=200` does)"
    yield f"Declared: {modes}. Identical when asked again: {found}."


def _match(run: Run, second: Mapping[str, Any]) -> str:
    share = numbers.percent(second["share"])
    interval = f"[{numbers.percent(second['low'])}, {numbers.percent(second['high'])}]"
    return f"{_plain(run.label)} {share} % {interval} of {numbers.count(second['compared'])}"


def _engines(batches: Sequence[Batch], resources: Sequence[Resources]) -> Iterator[str]:
    yield "#### Engines"
    rows = []
    for batch, one in zip(batches, resources, strict=True):
        facts = dict(batch.facts)
        out = next((value for value, what, _ in batch.headline if what == "tokens/s out"), "")
        hours = one.usage.allocated_s / 3600 if one.usage and one.usage.allocated_s else None
        energy = one.usage.energy_j / 1000 if one.usage and one.usage.energy_j else None
        figures = [str(len(batch.starts)), out]
        figures += [numbers.significant(hours), numbers.significant(energy)]
        told = [facts.get(name, numbers.UNKNOWN) for name in MACHINE]
        rows.append([_plain(text) for text in (batch.engine, *told, *figures)])
    head = ["engine", *MACHINE, "starts", "tokens/s out", "GPU-hours", "energy, kJ"]
    kept = [
        column
        for column in range(len(head))
        if any(row[column] not in ("", numbers.UNKNOWN) for row in rows)
    ]
    cut = [[row[column] for column in kept] for row in rows]
    yield _table([head[column] for column in kept], ["---"] * len(kept), cut)


def _reproduce(experiment: Experiment) -> Iterator[str]:
    yield "#### Reproduce"
    yield f"```bash\n{experiment.command}\n```"
    words = f"Report `{experiment.address}`; `config.yaml` beside it is the config as it was read."
    yield words if experiment.config else f"Report `{experiment.address}`."


def _table(head: Sequence[str], align: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(words) + " |" for words in (head, align, *rows))


def _folded(title: str, text: str) -> str:
    # Markdown inside is read as such only between blank lines.
    return f"<details><summary>{title}</summary>\n\n{text}\n\n</details>"


def _cell(cell: Cell) -> str:
    text = cell.text
    if cell.note.startswith("@"):
        text += f" {cell.note}"
    if cell.low:
        text += f" [{cell.low}, {cell.high}]"
    return _plain(text) + (" ⚠️" if cell.warn else "")


def _plain(text: str) -> str:
    """Return text that Markdown shows as it is and that stays in its table cell."""
    escaped = re.sub(r"([\\`*<>|])", r"\\\1", text)
    return " ".join(escaped.split())
