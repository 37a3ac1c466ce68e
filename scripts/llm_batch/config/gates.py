"""Checks of comparisons and gates: that their runs and metrics are there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from scripts.llm_batch.config.build import expand_runs
from scripts.llm_batch.config.errors import ConfigPath, Problem
from scripts.llm_batch.config.records import Run
from scripts.llm_batch.config.schema import known_reference

LIMITS = ("baseline", "at_least", "at_most")


def gate_problems(config: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield what is wrong with `comparisons` and `gates` of a config whose runs are right."""
    runs = {run.name: run for _, run in expand_runs(config)}
    baseline = config.get("comparisons", {}).get("baseline")
    if baseline is not None:
        yield from _run(("comparisons", "baseline"), baseline, runs)
    for position, gate in enumerate(config.get("gates", [])):
        yield from _gate(("gates", position), gate, runs)


def _run(path: ConfigPath, name: str, runs: Mapping[str, Run]) -> Iterator[Problem]:
    problem = known_reference(path, name, "runs", runs)
    if problem:
        yield problem


def _gate(path: ConfigPath, gate: Mapping[str, Any], runs: Mapping[str, Run]) -> Iterator[Problem]:
    given = [key for key in LIMITS if key in gate]
    if len(given) != 1:
        found = " and ".join(given) or "none"
        yield Problem(path, f"expected one of {', '.join(LIMITS)}, found {found}; keep one")
    for key in ("margin", "lower_is_better"):
        if key in gate and "baseline" not in gate:
            yield Problem((*path, key), "without effect without 'baseline'; add it, or remove this")
    for key in ("run", "baseline"):
        if key not in gate:
            continue
        problems = list(_run((*path, key), gate[key], runs))
        yield from problems
        if not problems and gate["metric"] not in runs[gate[key]].metrics:
            known = ", ".join(runs[gate[key]].metrics) or "none"
            text = f"run '{gate[key]}' has no metric '{gate['metric']}' (it has {known})"
            yield Problem((*path, "metric"), f"{text}; name one, or add it to the run's metrics")
    if gate["run"] == gate.get("baseline"):
        yield Problem((*path, "baseline"), "is the run itself; name another")
