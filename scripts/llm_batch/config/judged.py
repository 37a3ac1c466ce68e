"""Checks of prompts that are made from the completions of other runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from scripts.llm_batch.config.build import expand_runs, judged_names
from scripts.llm_batch.config.errors import ConfigPath, Problem
from scripts.llm_batch.config.records import Run
from scripts.llm_batch.config.schema import known_reference


def judged_problems(config: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield what is wrong with the runs that prompts are made from: their names, and circles."""
    runs = {run.name: run for _, run in expand_runs(config)}
    used = dict.fromkeys(run.prompts for run in runs.values())
    unknown = False
    for name in used:
        for problem in _names(name, config["prompts"][name], runs, config):
            unknown = True
            yield problem
    if not unknown:
        yield from _circles(runs, config)


def _names(
    name: str, entry: Mapping[str, Any], runs: Mapping[str, Run], config: Mapping[str, Any]
) -> Iterator[Problem]:
    path: ConfigPath = ("prompts", name, "from_run" if "from_run" in entry else "from_runs")
    judged = judged_names(entry)
    for position, run in enumerate(judged):
        place = path if "from_run" in entry else (*path, position)
        problem = known_reference(place, run, "runs", runs)
        if problem:
            yield problem
    if len(judged) != 2 or any(run not in runs for run in judged):
        return
    if judged[0] == judged[1]:
        yield Problem(path, f"'{judged[0]}' is there twice; name two runs")
        return
    rows = [_rows(config["prompts"][runs[run].prompts]) for run in judged]
    if rows[0] != rows[1]:
        text = "these runs answered other rows; name two runs whose prompts have the same rows"
        yield Problem(path, text)


def _rows(entry: Mapping[str, Any]) -> Any:
    """Return what tells the rows of prompts apart, as the config writes it."""
    places = ("path", "dataset", "revision", "config", "split", "files", "from_run", "from_runs")
    return {key: entry[key] for key in places if key in entry}


def _circles(runs: Mapping[str, Run], config: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield a problem for the first circle of runs that judge each other."""
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> list[str] | None:
        if name in above:
            return [*above[above.index(name) :], name]
        if name in done:
            return None
        for judged in judged_names(config["prompts"][runs[name].prompts]):
            found = visit(judged, (*above, name))
            if found:
                return found
        done.add(name)
        return None

    for name in runs:
        circle = visit(name, ())
        if circle:
            prompts = runs[circle[0]].prompts
            key = "from_run" if "from_run" in config["prompts"][prompts] else "from_runs"
            text = f"runs would wait for each other: {' → '.join(circle)}; judge another run"
            yield Problem(("prompts", prompts, key), text)
            return
