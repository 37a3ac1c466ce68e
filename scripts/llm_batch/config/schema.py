"""A config against its closed schema: every deviation is one `Problem` with its cure."""

from __future__ import annotations

import datetime
import functools
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from scripts.llm_batch.config.errors import MAX_SHOWN, ConfigPath, Problem, nearest, show_key
from scripts.llm_batch.config.words import expected, foreign_key, show, type_cure

SCHEMA_PATH = Path(__file__).parents[3] / "config" / "schemas" / "config.schema.yaml"

MAX_DEPTH = 32
MAX_VALUES = 1_000_000
MAX_BITS = 64

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@functools.cache
def load_schema() -> dict[str, Any]:
    """Return the schema of config.yaml; treat it as read-only."""
    schema: dict[str, Any] = yaml.load(SCHEMA_PATH.read_text(encoding="utf-8"), Loader=_Loader)
    return schema


def engine_schema(group: str) -> Mapping[str, Any]:
    """Return the schema of an engine's `args`, `tuning` or `dummy`."""
    engine = load_schema()["properties"]["engines"]["additionalProperties"]["properties"]
    schema: Mapping[str, Any] = engine[group]
    return schema


def defaults(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the defaults of a mapping's keys, of those that have one."""
    return {
        key: value["default"] for key, value in schema["properties"].items() if "default" in value
    }


def to_plain(raw: Any) -> tuple[Any, list[Problem]]:
    """Return `raw` as dicts, lists and JSON values, and what could not be turned into them."""
    converter = _Converter()
    return converter.convert(raw, ()), converter.problems


class _Converter:
    """Copies a config; YAML may hold loops, dates, sets, and keys that are not text."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.values = 0

    def convert(self, value: Any, path: ConfigPath) -> Any:
        self.values += 1
        if len(path) > MAX_DEPTH or self.values > MAX_VALUES:
            if len(self.problems) < MAX_DEPTH:
                text = f"more than {MAX_DEPTH} levels or {MAX_VALUES} values; is an alias a loop?"
                self.problems.append(Problem(path[:4], text))
            return None
        if isinstance(value, Mapping):
            return self._mapping(value, path)
        if isinstance(value, (list, tuple)):
            return [self.convert(item, (*path, i)) for i, item in enumerate(value)]
        return self._scalar(value, path)

    def _mapping(self, value: Mapping[Any, Any], path: ConfigPath) -> dict[str, Any]:
        token_ids = path[:1] == ("samplings",) and path[-1:] == ("logit_bias",)
        plain: dict[str, Any] = {}
        for key, item in value.items():
            if isinstance(key, str):
                name = key
            elif token_ids and isinstance(key, int) and not isinstance(key, bool):
                name = show(key)
            else:
                hint = " (YAML reads yes, no, on and off so)" if isinstance(key, bool) else ""
                text = f"the key {show(key)} is not text{hint}; put it in quotes"
                self.problems.append(Problem(path, text))
                continue
            if not _is_utf8(name):
                self.problems.append(Problem(path, f"the key {name!r} is not valid Unicode text"))
                continue
            plain[name] = self.convert(item, (*path, name))
        return plain

    def _scalar(self, value: Any, path: ConfigPath) -> Any:
        if isinstance(value, str):
            if not _is_utf8(value):
                text = "holds half of a surrogate pair, which is not text; write the character"
                self.problems.append(Problem(path, text))
            return value
        if isinstance(value, int) and value.bit_length() > MAX_BITS:
            text = f"a whole number of {value.bit_length()} bits is too large; write a smaller one"
            self.problems.append(Problem(path, text))
            return None
        if isinstance(value, float) and not math.isfinite(value):
            self.problems.append(Problem(path, f"{value} is not a number that can be used"))
            return value
        if value is None or isinstance(value, (bool, int, float)):
            return value
        if isinstance(value, datetime.date):
            text = f"YAML reads this as a date ({value.isoformat()}); put it in quotes"
        else:
            kind = type(value).__name__
            text = f"YAML reads this as {kind}, which no key takes; write text, a number or a list"
        self.problems.append(Problem(path, text))
        return None


def _is_utf8(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= char <= "\udfff" for char in text)


@functools.cache
def _validator() -> Any:
    return jsonschema.Draft202012Validator(load_schema())


def validate(config: Any) -> list[Problem]:
    """Return every deviation of a plain config from the schema, in the order of the config."""
    errors = _validator().iter_errors(config)
    problems = [problem for error in errors for problem in _problems(error, ())]
    # jsonschema walks some keys in the order of a set, which differs from run to run.
    return sorted(dict.fromkeys(problems), key=lambda problem: _order(config, problem.path))


def value_problems(schema: Mapping[str, Any], value: Any, path: ConfigPath) -> list[Problem]:
    """Return every deviation of one value, written at `path`, from a part of the schema."""
    errors = _validator().evolve(schema=schema).iter_errors(value)
    return list(dict.fromkeys(problem for error in errors for problem in _problems(error, path)))


def _order(config: Any, path: ConfigPath) -> list[int]:
    """Return the position of each part of `path` within its mapping or list."""
    positions: list[int] = []
    value = config
    for part in path:
        if isinstance(value, dict) and part in value:
            positions.append(list(value).index(part))
            value = value[part]
        elif isinstance(value, list) and isinstance(part, int):
            positions.append(part)
            value = value[part]
    return positions


def _problems(error: Any, prefix: ConfigPath) -> Iterator[Problem]:
    path = (*prefix, *error.absolute_path)
    if error.validator == "additionalProperties":
        yield from _unknown_keys(error, path)
    elif error.validator == "required":
        yield from _missing_keys(error, path)
    elif error.validator == "oneOf":
        yield from _chosen_branch(error, path)
    elif list(error.schema_path)[-2:-1] == ["propertyNames"]:
        yield Problem((*path, error.instance), _bad_name(error.instance, error.schema))
    else:
        yield Problem(path, _wrong_value(error, path))


def _unknown_keys(error: Any, path: ConfigPath) -> Iterator[Problem]:
    allowed = list(error.schema.get("properties", {}))
    for key in error.instance:
        if key in allowed:
            continue
        close = nearest(key, allowed)
        mean = f"did you mean '{close}'?" if close else None
        elsewhere = foreign_key(load_schema(), path, key)
        # On top only names of sections are expected; below, a key of another section was meant.
        cure = (mean or elsewhere) if path == () else (elsewhere or mean)
        cure = cure or "remove it;"
        yield Problem((*path, key), f"unknown key; {cure} allowed: {', '.join(allowed)}")


def _missing_keys(error: Any, path: ConfigPath) -> Iterator[Problem]:
    for key in error.validator_value:
        if key not in error.instance:
            about = error.schema.get("properties", {}).get(key, {}).get("description", "")
            if "oneOf" in error.schema:
                about = expected({"enum": list(_branches(error.schema["oneOf"]))})
            yield Problem(path, f"the key '{key}' is missing; add it: {about}")


def _chosen_branch(error: Any, path: ConfigPath) -> Iterator[Problem]:
    """Report against the branch that the entry's `type` names."""
    branches = _branches(error.validator_value)
    kind = error.instance.get("type") if isinstance(error.instance, dict) else None
    if not isinstance(kind, str) or kind not in branches:
        if isinstance(error.instance, dict) and "type" in error.instance:
            close = nearest(str(kind), branches)
            mean = f"did you mean '{close}'? " if close else ""
            text = f"{show(kind)} is no metric type; {mean}take one of {', '.join(branches)}"
            yield Problem((*path, "type"), text)
        return
    for inner in _validator().evolve(schema=branches[kind]).iter_errors(error.instance):
        yield from _problems(inner, path)


def _branches(one_of: Iterable[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    return {branch["properties"]["type"]["const"]: branch for branch in one_of}


def _bad_name(name: str, schema: Mapping[str, Any]) -> str:
    if "maxLength" not in schema:
        return f"expected a token id, found {show(name)}; write the number of the token"
    kept = re.sub(r"[^A-Za-z0-9_+-]+", "-", name).strip("-_+")[:100]
    cure = f"write '{kept}'" if kept else "choose another"
    return f"a name has letters, digits, '_', '+' and '-', at most 100; {cure}"


def _wrong_value(error: Any, path: ConfigPath) -> str:
    found = error.instance
    text = f"expected {expected(error.schema)}, found {show(found)}"
    cure = type_cure(error.schema, found, path)
    return f"{text}; {cure}" if cure else text


def known_reference(
    path: ConfigPath, name: str, section: str, known: Iterable[str]
) -> Problem | None:
    """Return a problem if `name` is not an entry of `section`; of many, it lists the nearest."""
    names = list(known)
    if name in names:
        return None
    close = nearest(name, names)
    mean = f"; did you mean '{close}'?" if close else ";"
    shown = names
    if len(names) > MAX_SHOWN:
        shown = get_close_matches(name, names, n=MAX_SHOWN, cutoff=0)
    listed = ", ".join(show_key(entry) for entry in shown) or f"{section} is empty"
    if len(names) > len(shown):
        listed += f" and {len(names) - len(shown)} more"
    return Problem(path, f"'{name}' is not in {section}{mean} ({listed})")
