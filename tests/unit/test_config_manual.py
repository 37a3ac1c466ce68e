"""The manual, the schema and the code say the same."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from scripts import config_manual
from scripts.config_manual import MANUAL_PATH, updated_manual, updated_schema
from scripts.llm_batch.config.schema import SCHEMA_PATH, load_schema, to_plain, validate
from scripts.llm_batch.errors import WorkflowError
from scripts.llm_batch.evaluation.metric_types import METRIC_TYPES
from scripts.llm_batch.prompts import ROLES

MANUAL = MANUAL_PATH.read_text(encoding="utf-8")
PARTS = {"run", "evaluation", "report", "placement", "name"}


def _keys(
    schema: dict[str, Any], path: str, part: str
) -> Iterator[tuple[str, dict[str, Any], str]]:
    part = schema.get("x-part-of", part)
    for key, inner in schema.get("properties", {}).items():
        yield f"{path}.{key}", inner, inner.get("x-part-of", part)
        yield from _keys(inner, f"{path}.{key}", part)
    for key in ("additionalProperties", "items"):
        if isinstance(schema.get(key), dict):
            yield from _keys(schema[key], f"{path}.{key}", part)
    for branch in schema.get("oneOf", []):
        yield from _keys(branch, path, part)


KEYS = list(_keys(load_schema(), "", ""))


def test_the_manual_has_the_keys_of_the_schema() -> None:
    assert updated_manual(MANUAL) == MANUAL, "run python -m scripts.config_manual --write"


def test_the_schema_has_the_metric_types_of_the_code() -> None:
    text = SCHEMA_PATH.read_text(encoding="utf-8")
    assert updated_schema(text) == text, "run python -m scripts.config_manual --write"
    branches = load_schema()["properties"]["metrics"]["additionalProperties"]["oneOf"]
    assert [branch["properties"]["type"]["const"] for branch in branches] == list(METRIC_TYPES)


def test_a_manual_out_of_date_is_reported_and_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manual = tmp_path / "README.md"
    manual.write_text(MANUAL.replace("`temperature`", "`temprature`"))
    schema = tmp_path / "config.schema.yaml"
    shutil.copy(SCHEMA_PATH, schema)
    monkeypatch.setattr(config_manual, "MANUAL_PATH", manual)
    monkeypatch.setattr(config_manual, "SCHEMA_PATH", schema)
    with pytest.raises(WorkflowError, match=r"out of date; run `python -m scripts\.config_manual"):
        config_manual.main([])
    assert config_manual.main(["--write"]) == 0
    # The prose is left as it is; only what lies between the markers is made.
    assert "| `temperature` | a number from 0 to 2 |" in manual.read_text()
    assert config_manual.main([]) == 0


def test_a_manual_without_markers_is_refused() -> None:
    with pytest.raises(WorkflowError, match="the markers"):
        updated_manual("# The config\n")


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(load_schema())


@pytest.mark.parametrize(("path", "schema", "part"), KEYS, ids=[key[0] for key in KEYS])
def test_every_key_is_typed_described_and_bounded(
    path: str, schema: dict[str, Any], part: str
) -> None:
    assert schema.get("description"), path
    assert "type" in schema or "const" in schema
    assert part in PARTS
    types = schema.get("type", [])
    listed = [types] if isinstance(types, str) else types
    if {"integer", "number"} & set(listed):
        assert {"minimum", "exclusiveMinimum"} & set(schema)
        # Tolerances of metrics have no largest value.
        assert "maximum" in schema or path.endswith("tolerance")
    if "default" in schema:
        jsonschema.Draft202012Validator(schema).validate(schema["default"])


def test_every_mapping_of_the_schema_is_closed() -> None:
    free = {
        "gen_kwargs",
        "hf_overrides",
        "compilation_config",
        "chat_template_kwargs",
        "json",
        "schema",
    }
    for path, schema, _ in KEYS:
        types = schema.get("type", [])
        if "object" in ([types] if isinstance(types, str) else types):
            assert "additionalProperties" in schema or path.rpartition(".")[2] in free, path


def test_every_key_of_an_engine_is_in_args_or_in_tuning_but_not_in_both() -> None:
    engine = load_schema()["properties"]["engines"]["additionalProperties"]["properties"]
    assert not set(engine["args"]["properties"]) & set(engine["tuning"]["properties"])


def test_roles_are_the_same_in_configs_and_in_rows() -> None:
    messages = load_schema()["properties"]["prompts"]["additionalProperties"]["properties"]
    role = messages["messages"]["items"]["properties"]["role"]
    assert tuple(role["enum"]) == ROLES


def test_the_examples_of_the_manual_are_valid() -> None:
    config: dict[str, Any] = {}
    blocks = re.findall(r"```yaml\n(.*?)```", MANUAL, re.DOTALL)
    assert len(blocks) >= 4
    for block in blocks:
        config.update(yaml.safe_load(block))
    plain, problems = to_plain(config)
    assert problems == []
    assert validate(plain) == []


def test_the_quickstart_is_valid() -> None:
    config = yaml.safe_load((SCHEMA_PATH.parents[1] / "config.yaml").read_text(encoding="utf-8"))
    assert validate(to_plain(config)[0]) == []
