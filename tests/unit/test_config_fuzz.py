"""Whatever a config holds, it is read or refused in plain lines: never a trace."""

from __future__ import annotations

import copy
import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scripts.llm_batch.addresses import canonical_json
from scripts.llm_batch.config.load import load_config
from scripts.llm_batch.config.records import Config
from scripts.llm_batch.config.schema import load_schema
from scripts.llm_batch.errors import ConfigError
from tests.unit.config_cases import BASE, make_project

FUZZ = settings(
    max_examples=300,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def _keys(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        properties = schema.get("properties")
        yield from properties if isinstance(properties, dict) else ()
        for value in schema.values():
            yield from _keys(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _keys(value)


def _hashable(value: Any) -> bool:
    return isinstance(value, (str, int, bool, float, type(None)))


KEYS = sorted(set(_keys(load_schema())))
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([0, 1, 2, 2**63, -(2**63), 2**64]),
    st.builds(lambda: 10**5000),
    st.floats(),
    st.text(max_size=8),
    st.text(st.characters(exclude_categories=()), max_size=3),
    st.sampled_from(
        ["", "cpu", "tiny", "chat", "greedy", "{{ x", "{% for %}", "1e-3", "\ud800", "(", "a\0b"]
    ),
    st.sampled_from([datetime.date(2026, 1, 1), b"x", frozenset({"a"}), object()]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(KEYS) | SCALARS.filter(_hashable), inner, max_size=3)
    ),
    max_leaves=8,
)


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(value, (dict, list)):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _paths(item, (*path, key))


BASE_CONFIG = yaml.safe_load(BASE)
PATHS = [path for path in _paths(BASE_CONFIG) if path]


def _read(raw: Any) -> Config | None:
    """Load a config; a refusal has at most eleven lines, each with a place and a text."""
    try:
        config = load_config(raw, [Path("config.yaml")])
    except ConfigError as error:
        lines = str(error).split("\n")
        assert len(lines) <= 11
        assert all(": " in line or line.startswith("… and ") for line in lines)
        return None
    return config


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    make_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@FUZZ
@given(raw=st.dictionaries(st.sampled_from(KEYS) | SCALARS.filter(_hashable), VALUES, max_size=4))
def test_any_mapping_is_read_or_refused_in_lines(project: Path, raw: Any) -> None:
    assert _read(raw) is None


@FUZZ
@given(path=st.sampled_from(PATHS), value=VALUES)
def test_any_value_in_a_good_config_is_read_or_refused_in_lines(
    project: Path, path: tuple[Any, ...], value: Any
) -> None:
    raw = copy.deepcopy(BASE_CONFIG)
    place = raw
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = value
    _identities_have_a_canonical_form(_read(raw))


@FUZZ
@given(
    section=st.sampled_from(["args", "tuning", "dummy", "samplings", "prompts", "metrics", "runs"]),
    key=st.sampled_from(KEYS),
    value=VALUES,
)
def test_any_extra_key_is_read_or_refused_in_lines(
    project: Path, section: str, key: str, value: Any
) -> None:
    raw = copy.deepcopy(BASE_CONFIG)
    engine = raw["engines"]["cpu"]
    entry = {
        "samplings": raw["samplings"]["warm"],
        "prompts": raw["prompts"]["chat"],
        "metrics": raw["metrics"]["number"],
        "runs": raw["runs"][0],
    }.get(section) or engine.setdefault(section, {})
    entry[key] = value
    _identities_have_a_canonical_form(_read(raw))


@FUZZ
@given(
    values=st.dictionaries(
        st.sampled_from(["model", "prompts", "sampling", "environment", "backend", "shards"]),
        VALUES | st.sampled_from(["models/tiny", "data/rows.jsonl", "greedy,warm", "dummy", 3]),
    )
)
def test_any_command_line_is_read_or_refused_in_lines(
    project: Path, values: dict[str, Any]
) -> None:
    _identities_have_a_canonical_form(_read({**copy.deepcopy(BASE_CONFIG), **values}))


def _identities_have_a_canonical_form(config: Config | None) -> None:
    """What is read can be hashed: no value is left that JSON does not have."""
    if config is None:
        return
    for engine in config.engines.values():
        canonical_json([engine.args, engine.tuning, engine.dummy])
    for sampling in config.samplings.values():
        canonical_json([sampling.params, sampling.n, sampling.seed]).encode()
    for prompts in config.prompts.values():
        canonical_json([prompts.template, prompts.messages, prompts.chat_template_kwargs]).encode()
    for metric in config.metrics.values():
        canonical_json(metric.settings).encode()
