"""Checks of metrics: what a schema cannot say of their settings, and which runs can have which."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema

from scripts.llm_batch.config.build import local_path, names_of, reference_of
from scripts.llm_batch.config.errors import ConfigPath, Problem
from scripts.llm_batch.evaluation.metric_files import OWN, file_problem
from scripts.llm_batch.evaluation.metric_types import RESERVED_NAMES, needs_reference


def metric_problems(path: ConfigPath, entry: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield what is wrong with one entry of metrics that is valid against the schema."""
    if path[1] in RESERVED_NAMES:
        text = f"'{path[1]}' is a column of every table of scores; choose another name"
        yield Problem(path, text)
    yield from _pattern((*path, "extract"), entry.get("extract"))
    if entry["type"] == "code" and not entry.get("allow_code"):
        text = (
            "a metric of type code runs code that a model wrote on this machine; read "
            "'Code of a model' in config/README.md, then set allow_code: true"
        )
        yield Problem((*path, "type"), text)
    if entry["type"] == "json_schema" and entry.get("schema") is not None:
        yield from _schema((*path, "schema"), entry["schema"])
    if entry["type"] == OWN:
        file = Path(local_path(entry["path"]))
        problem = file_problem(file, entry.get("function", "score"))
        if problem:
            yield Problem((*path, "path"), problem)


def _pattern(path: ConfigPath, pattern: str | None) -> Iterator[Problem]:
    try:
        re.compile(pattern or "")
    except (re.error, RecursionError, OverflowError) as error:
        text = f"not a regular expression: {error}; mend it (in YAML, single quotes keep \\)"
        yield Problem(path, text)


def _schema(path: ConfigPath, schema: Mapping[str, Any]) -> Iterator[Problem]:
    try:
        jsonschema.Draft202012Validator.check_schema(schema)
    except jsonschema.SchemaError as error:
        message = " ".join(error.message.split())[:200]
        yield Problem((*path, *error.absolute_path), f"not a JSON Schema: {message}; mend it")


def run_metric_problems(config: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield a problem for each run that names a metric whose reference its prompts do not have."""
    for position, entry in enumerate(config["runs"]):
        names = [
            name
            for name in names_of(entry.get("metrics", []))
            if needs_reference(config["metrics"][name]["type"], config["metrics"][name])
        ]
        for prompts in names_of(entry["prompts"]):
            if names and not reference_of(config["prompts"][prompts]):
                text = (
                    f"'{names[0]}' needs a reference and prompts '{prompts}' has none; set "
                    f"prompts.{prompts}.reference to the field with the right answer"
                )
                yield Problem(("runs", position, "metrics"), text)
