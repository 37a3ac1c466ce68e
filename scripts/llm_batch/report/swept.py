"""Which numbers of the runs' settings vary, and which runs differ in one of them only.

Nothing here knows the config: a sweep and runs that were written one by one look the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scripts.llm_batch.addresses import canonical_json
from scripts.llm_batch.config.sampling import WITHOUT_EFFECT_IF_GREEDY
from scripts.llm_batch.report import numbers
from scripts.llm_batch.report.figures import OFF, ORDER
from scripts.llm_batch.report.records import Experiment, Run

NEUTRAL: Mapping[str, float] = {
    "top_p": 1.0,
    "top_k": math.inf,
    "min_p": 0.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "repetition_penalty": 1.0,
}
"""What a sampling parameter that is not set comes to: a top_k of all tokens has no end."""

NO_EFFECT_IF_GREEDY = (*WITHOUT_EFFECT_IF_GREEDY, "n")

Settings = dict[str, float | str]


@dataclass(frozen=True)
class Point:
    """A run at one value of the parameter."""

    value: float
    run: Run


@dataclass(frozen=True)
class Series:
    """Runs that differ in the parameter, and maybe in their seed, only; `fixed` is the rest."""

    fixed: Settings
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Sweep:
    """A parameter, its values in rising order, and the series of runs along it."""

    parameter: str
    values: tuple[float, ...]
    series: tuple[Series, ...]

    @property
    def varying(self) -> list[str]:
        """The other settings in which the series differ, the best known first."""
        names = dict.fromkeys(name for one in self.series for name in one.fixed)
        found = [n for n in names if len({one.fixed.get(n) for one in self.series}) > 1]
        return sorted(found, key=lambda name: (_place(name), found.index(name)))


def find_sweeps(experiment: Experiment) -> list[Sweep]:
    """Return the parameters along which at least two runs differ in nothing else, or only a seed.

    A greedy run lies at temperature 0 of every series, because nothing that cuts the distribution
    has an effect on it.
    """
    settings = _settings(experiment.runs)
    for one in settings:
        for name in {name for other in settings for name in other}:
            one.setdefault(name, NEUTRAL.get(name, numbers.UNKNOWN))
    found = [_sweep(name, experiment.runs, settings) for name in _numeric(settings)]
    return [sweep for sweep in found if sweep.series]


def _place(name: str) -> int:
    return ORDER.index(name) if name in ORDER else len(ORDER)


def _numeric(settings: Sequence[Settings]) -> list[str]:
    """Return the names whose values are numbers in every run, not all the same."""
    names = dict.fromkeys(name for one in settings for name in one)
    varying = [
        name
        for name in names
        if not any(isinstance(one[name], str) for one in settings)
        and len({one[name] for one in settings}) > 1
    ]
    return sorted(varying, key=lambda name: (_place(name), varying.index(name)))


def _sweep(parameter: str, runs: Sequence[Run], settings: Sequence[Settings]) -> Sweep:
    groups: dict[str, list[Point]] = {}
    fixed: dict[str, Settings] = {}
    greedy = []
    for run, one in zip(runs, settings, strict=True):
        rest = {name: value for name, value in one.items() if name != parameter}
        point = Point(float(one[parameter]), run)
        if one.get("temperature") == 0 and parameter in ("temperature", *NO_EFFECT_IF_GREEDY):
            greedy.append((rest, point))
            continue
        key = _key(rest)
        groups.setdefault(key, []).append(point)
        fixed[key] = rest
    if parameter == "temperature":
        for rest, point in greedy:
            for key, members in groups.items():
                if _key(rest, NO_EFFECT_IF_GREEDY) == _key(fixed[key], NO_EFFECT_IF_GREEDY):
                    members.append(point)
    series = [
        Series(fixed[key], tuple(sorted(members, key=lambda point: point.value)))
        for key, members in groups.items()
        if len({point.value for point in members}) > 1
    ]
    values = sorted({point.value for one in series for point in one.points})
    return Sweep(parameter, tuple(values), tuple(series))


def _key(settings: Settings, without: Iterable[str] = ()) -> str:
    return repr(sorted((k, v) for k, v in settings.items() if k not in without))


def _settings(runs: Sequence[Run]) -> list[Settings]:
    """Return the settings of each run, flat: numbers as numbers, all else as a text or a name."""
    found: list[Settings] = [
        {"adapter": canonical_json(run.identity.get("adapter"))} for run in runs
    ]
    engines, prompts = [], []
    for run, one in zip(runs, found, strict=True):
        args = run.engine.get("args") or {}
        _take_numbers(one, args)
        others = {name: value for name, value in args.items() if name not in one}
        engines.append(canonical_json({**run.engine, "args": others}))
        prompts.append(canonical_json(_take_shots(one, run.prompts)))
        _take_numbers(one, run.params)
        for name, value in run.params.items():
            one.setdefault(name, canonical_json(value))
        one["n"] = float(run.n)
    for kind, rests, names in (
        ("engine", engines, [run.engine_name for run in runs]),
        ("prompts", prompts, [run.parts[1] for run in runs]),
    ):
        for one, label in zip(found, _labels(rests, names), strict=True):
            one[kind] = label
    return found


def _take_numbers(found: Settings, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            found[name] = float(value)


def _take_shots(found: Settings, prompts: Mapping[str, Any]) -> dict[str, Any]:
    """Put the number of examples in a prompt into `found`; return the rest of the identity."""
    rest = dict(prompts)
    for key, number in (("few_shot", "count"), ("lm_eval", "num_fewshot")):
        inside = rest.get(key) or {}
        if isinstance(inside.get(number), int):
            found["few-shot examples"] = float(inside[number])
            rest[key] = {name: value for name, value in inside.items() if name != number}
    return rest


def _labels(rests: Sequence[str], names: Sequence[str | None]) -> list[str]:
    """Return a name for each different rest: that of the entry which a sweep was made of."""
    first: dict[str, str] = {}
    for number, (rest, name) in enumerate(zip(rests, names, strict=True)):
        first.setdefault(rest, name or f"number {number + 1}")
    numbered = {rest: f"{name} ({n})" for n, (rest, name) in enumerate(first.items(), start=1)}
    bases = {rest: name.partition("+")[0] for rest, name in first.items()}
    choices = (bases, first, numbered)
    names_of = next(one for one in choices if len(set(one.values())) == len(one))
    return [names_of[rest] for rest in rests]


def value_text(parameter: str, value: float | str) -> str:
    """Return a value of a parameter as a reader would write it: off where it does nothing."""
    if isinstance(value, str):
        return value
    if parameter in NEUTRAL and value == NEUTRAL[parameter]:
        return OFF
    return f"{value:g}"
