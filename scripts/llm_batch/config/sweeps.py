"""Sweeps: an entry of `runs` with a grid becomes one plain entry for each of its points.

Expansion happens on the plain config, before any record is built, so everything behind it sees a
config that could have been written by hand: a sweep of one point and the run that says the same
have one address. Each point gets entries of its own in `engines`, `prompts` and `samplings`, named
`<entry>+<key>_<value>…`; a name depends on the point only, not on its neighbours.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from scripts.llm_batch.addresses import canonical_json
from scripts.llm_batch.config.build import adapted_name, names_of
from scripts.llm_batch.config.errors import ConfigPath, Problem
from scripts.llm_batch.config.sampling import WITHOUT_EFFECT_IF_GREEDY
from scripts.llm_batch.config.sweep_axes import (
    NAMED,
    axes,
    exclude_problems,
    grid_problems,
    include_problems,
    same,
)
from scripts.llm_batch.models.adapters import NO_ADAPTER

SWEEP_KEYS = ("sweep", "include", "exclude")

MAX_POINTS = 10_000
MAX_ENTRY_NAME = 100
MAX_RUN_NAME = 200
_LABEL = 24


class Point(NamedTuple):
    """One point of a sweep: what it names, its value on each axis, and where each is written."""

    named: Mapping[str, str]
    values: Mapping[str, Any]
    places: Mapping[str, ConfigPath]
    place: ConfigPath

    @property
    def label(self) -> str:
        """The point in words."""
        return ", ".join(f"{key} {_text(value)}" for key, value in self.values.items())


@dataclass
class Expanded:
    """A config without sweeps, what was wrong with them, and where each of its parts came from.

    `positions` holds the position in the written `runs` of each entry of the expanded ones;
    `made` the base entry and the point behind each (section, name) that a sweep made.
    """

    config: dict[str, Any]
    problems: list[Problem] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    made: dict[ConfigPath, tuple[str, Point]] = field(default_factory=dict)

    def located(self, problems: Iterable[Problem]) -> Iterator[Problem]:
        """Yield problems of the expanded config as problems of what was written."""
        found = list(problems)
        known = {(problem.path, problem.text) for problem in found}
        for problem in found:
            path = problem.path
            if path[:2] in self.made:
                base, point = self.made[path[:2]]
                # Told once where the entry that was swept has the same problem.
                if ((path[0], base, *path[2:]), problem.text) not in known:
                    yield _at_point(problem, point)
            elif len(path) > 1 and path[0] == "runs" and isinstance(path[1], int):
                yield replace(problem, path=("runs", self.positions[path[1]], *path[2:]))
            else:
                yield problem


def _at_point(problem: Problem, point: Point) -> Problem:
    below = problem.path[2:]
    written = [key for key in point.places if below[: len(axes()[key].path)] == axes()[key].path]
    path = point.places[written[0]] if written else point.place
    several = (
        point.place[-1] == "sweep"
        and problem.path[0] == "samplings"
        and len(written) < len(point.values)
    )
    cure = ", or leave the point out with exclude" if several else ""
    return replace(problem, path=path, text=f"with {point.label}: {problem.text}{cure}")


def expand_sweeps(config: Mapping[str, Any]) -> Expanded:
    """Return `config`, valid against the schema, with an entry of `runs` for each point."""
    expanded = Expanded({**config, **{s: dict(config[s]) for s in NAMED.values()}, "runs": []})
    for position, entry in enumerate(config["runs"]):
        runs = [entry]
        if any(key in entry for key in SWEEP_KEYS):
            problems = list(_sweep_problems(("runs", position), entry))
            expanded.problems.extend(problems)
            runs = [] if problems else _runs(expanded, config, position)
        expanded.config["runs"].extend(runs)
        expanded.positions.extend([position] * len(runs))
    return expanded


def _sweep_problems(path: ConfigPath, entry: Mapping[str, Any]) -> Iterator[Problem]:
    lists = [*(names_of(entry[key]) for key in NAMED), *entry.get("sweep", {}).values()]
    count = math.prod(map(len, lists))
    if count > MAX_POINTS:
        text = f"{count} points are more than {MAX_POINTS}; shorten its lists, or cut it in two"
        yield Problem((*path, "sweep"), text)
        return
    yield from grid_problems((*path, "sweep"), entry.get("sweep", {}))
    yield from include_problems((*path, "include"), entry)
    yield from exclude_problems((*path, "exclude"), entry)


def _runs(expanded: Expanded, config: Mapping[str, Any], position: int) -> list[dict[str, Any]]:
    """Return the entries of `runs` that one sweep stands for; each name once."""
    entry = config["runs"][position]
    rest = {key: value for key, value in entry.items() if key not in (*SWEEP_KEYS, "name")}
    runs: dict[str, dict[str, Any]] = {}
    adapters = names_of(entry.get("adapter", NO_ADAPTER))
    for point, adapter in itertools.product(_points(entry, position), adapters):
        point = _with_effect(point, config)
        names = {key: _entry(expanded, config, key, point) for key in NAMED}
        name = _run_name(entry, point, names, adapter)
        runs.setdefault(name, {**rest, **names, "adapter": adapter, "name": name})
    if not runs:
        text = "leaves no point of the sweep; remove some of it"
        expanded.problems.append(Problem(("runs", position, "exclude"), text))
    return list(runs.values())


def _points(entry: Mapping[str, Any], position: int) -> Iterator[Point]:
    """Yield the points of the grid without the excluded ones, in order, then the included ones."""
    grid: Mapping[str, list[Any]] = entry.get("sweep", {})
    named = [dict(zip(NAMED, combination, strict=True)) for combination in _named(entry)]
    place: ConfigPath = ("runs", position, "sweep")
    if grid:
        for names, chosen in itertools.product(named, _chosen(grid)):
            values = {key: value for key, (_, value) in chosen.items()}
            places = {key: (*place, key, index) for key, (index, _) in chosen.items()}
            point = Point(names, values, places, place)
            if not any(_matches(point, one) for one in entry.get("exclude", [])):
                yield point
    for index, one in enumerate(entry.get("include", [])):
        values = {key: value for key, value in one.items() if key not in NAMED}
        place = ("runs", position, "include", index)
        for names in named:
            if all(names[key] == one.get(key, names[key]) for key in NAMED):
                yield Point(names, values, {key: (*place, key) for key in values}, place)


def _named(entry: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    return itertools.product(*(names_of(entry[key]) for key in NAMED))


def _chosen(grid: Mapping[str, list[Any]]) -> Iterator[dict[str, tuple[int, Any]]]:
    """Yield every combination of a grid: on each axis the index of a value, and the value."""
    for combination in itertools.product(*(list(enumerate(values)) for values in grid.values())):
        yield dict(zip(grid, combination, strict=True))


def _matches(point: Point, excluded: Mapping[str, Any]) -> bool:
    values = {**point.named, **point.values}
    return all(
        same(values[key], wanted)
        or (isinstance(wanted, list) and any(same(values[key], one) for one in wanted))
        for key, wanted in excluded.items()
    )


def _with_effect(point: Point, config: Mapping[str, Any]) -> Point:
    """Leave out what has no effect at temperature 0: these points ask one and the same question."""
    base = config["samplings"].get(point.named["sampling"], {})
    if {**base, **point.values}.get("temperature", 1.0) != 0:
        return point
    ignored = (*WITHOUT_EFFECT_IF_GREEDY, "seed")
    return point._replace(values={k: v for k, v in point.values.items() if k not in ignored})


def _entry(expanded: Expanded, config: Mapping[str, Any], key: str, point: Point) -> str:
    """Make the engine, prompts or sampling of a point, and return its name."""
    section, base = NAMED[key], point.named[key]
    own = {name: value for name, value in point.values.items() if axes()[name].named == key}
    if not own or base not in config[section]:
        return base
    entry = dict(config[section][base])
    for name, value in own.items():
        *above, last = axes()[name].path
        for part in above:
            entry[part] = {**entry.get(part, {}), last: value}
        if not above:
            entry[last] = value
    name = _short("+".join([base, *_labels(own)]), MAX_ENTRY_NAME)
    if name in config[section] and not same(config[section][name], entry):
        text = f"a sweep gives this name to an entry that it makes of '{base}'; choose another"
        expanded.problems.append(Problem((section, name), text))
    expanded.config[section][name] = entry
    expanded.made.setdefault((section, name), (base, point))
    return name


def _run_name(
    entry: Mapping[str, Any], point: Point, names: Mapping[str, str], adapter: str
) -> str:
    if "name" not in entry:
        words = {**names, "engine": adapted_name(names["engine"], adapter)}
        return _short(".".join(words[key] for key in NAMED), MAX_RUN_NAME)
    several = [point.named[key] for key in NAMED if len(names_of(entry[key])) > 1]
    if len(names_of(entry.get("adapter", NO_ADAPTER))) > 1:
        several.append(adapter)
    parts = [entry["name"], *several, *_labels(point.values)]
    return _short("+".join(parts), MAX_RUN_NAME)


def _labels(values: Mapping[str, Any]) -> list[str]:
    return [f"{key}_{_word(value)}" for key, value in values.items()]


def _word(value: Any) -> str:
    """Return a value as a part of a name; what is too long or not plain gets a digest."""
    text = _text(value)
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-.")
    if (plain == text and len(text) <= _LABEL) or isinstance(value, (int, float)):
        return text
    return "-".join(filter(None, [plain[:_LABEL].strip("-."), _digest(text)]))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else canonical_json(value)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:6]


def _short(name: str, longest: int) -> str:
    """Return a name that a file system takes; what is cut off is told apart by a digest."""
    return name if len(name) <= longest else f"{name[: longest - 7]}-{_digest(name)}"
