"""What a sweep can vary, and what is wrong with one as it is written."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from scripts.llm_batch.addresses import canonical_json
from scripts.llm_batch.config.errors import ConfigPath, Problem, nearest
from scripts.llm_batch.config.schema import load_schema, value_problems
from scripts.llm_batch.config.words import show

NAMED: Mapping[str, str] = {"engine": "engines", "prompts": "prompts", "sampling": "samplings"}
"""Keys of a run that name entries, and the sections of these."""

ENGINE_KEYS = ("model", "environment")
"""Keys of an engine beside its args: tuning answers nothing differently, so it is no axis."""


class Axis(NamedTuple):
    """A key that a sweep can vary: the run's key that it varies, and its path in that entry."""

    named: str
    path: tuple[str, ...]
    schema: Mapping[str, Any]


@functools.cache
def axes() -> Mapping[str, Axis]:
    """Return everything that a sweep can vary, by its key; no two sections share one."""
    top = load_schema()["properties"]
    entry = {key: top[section]["additionalProperties"] for key, section in NAMED.items()}
    engine = entry["engine"]["properties"]
    found = [
        *(Axis("sampling", (key,), one) for key, one in entry["sampling"]["properties"].items()),
        *(Axis("engine", ("args", key), one) for key, one in engine["args"]["properties"].items()),
        *(Axis("engine", (key,), engine[key]) for key in ENGINE_KEYS),
        *(Axis("prompts", (key,), one) for key, one in entry["prompts"]["properties"].items()),
    ]
    return {axis.path[-1]: axis for axis in reversed(found)}


def same(one: Any, other: Any) -> bool:
    """Tell whether two plain values are the same: 1 is 1.0, but not true."""
    return canonical_json(one) == canonical_json(other)


def grid_problems(path: ConfigPath, grid: Mapping[str, Sequence[Any]]) -> Iterator[Problem]:
    """Yield what is wrong with `sweep`: unknown keys, values of the wrong kind, doubles."""
    for key, values in grid.items():
        yield from _key_problems((*path, key), key)
        seen: set[str] = set()
        for position, value in enumerate(values):
            yield from _value_problems((*path, key, position), key, value)
            if canonical_json(value) in seen:
                yield Problem((*path, key, position), f"{show(value)} is there twice; remove one")
            seen.add(canonical_json(value))


def include_problems(path: ConfigPath, entry: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield what is wrong with `include`: its points may also choose among the run's names."""
    for position, point in enumerate(entry.get("include", [])):
        for key, value in point.items():
            at = (*path, position, key)
            if key in NAMED:
                yield from _choice_problems(at, value, _listed(entry[key]))
            else:
                yield from _key_problems(at, key)
                yield from _value_problems(at, key, value)


def exclude_problems(path: ConfigPath, entry: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield what is wrong with `exclude`: only what the sweep has can be left out."""
    grid = entry.get("sweep", {})
    known = {**grid, **{key: _listed(entry[key]) for key in NAMED}}
    if entry.get("exclude") and not grid:
        yield Problem(path, "there is no sweep to leave points out of; add one, or remove it")
        return
    for position, point in enumerate(entry.get("exclude", [])):
        for key, value in point.items():
            at = (*path, position, key)
            if key not in known:
                close = nearest(key, known)
                mean = f"did you mean '{close}'? " if close else ""
                text = f"not swept here; {mean}the sweep has {', '.join(known)}"
                yield Problem(at, text)
                continue
            whole = any(same(value, one) for one in known[key])
            for one in [value] if whole or not isinstance(value, list) else value:
                yield from _choice_problems(at, one, known[key])


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def _key_problems(at: ConfigPath, key: str) -> Iterator[Problem]:
    if key in axes():
        return
    close = nearest(key, axes())
    mean = f"did you mean '{close}'? " if close else ""
    text = (
        f"not something to sweep; {mean}take a key of samplings, of an engine's args, or of "
        f"prompts, or {' or '.join(ENGINE_KEYS)}; engines, prompts and samplings by name are "
        "listed in the run itself"
    )
    yield Problem(at, text)


def _value_problems(at: ConfigPath, key: str, value: Any) -> Iterator[Problem]:
    if key in axes():
        yield from value_problems(axes()[key].schema, value, at)


def _choice_problems(at: ConfigPath, value: Any, choices: Sequence[Any]) -> Iterator[Problem]:
    if not any(same(value, choice) for choice in choices):
        shown = ", ".join(show(choice) for choice in choices)
        yield Problem(at, f"{show(value)} is none of the values here ({shown})")
