"""Settings of the command line (`--config model=… prompts=…`), put in place of config sections."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from scripts.llm_batch.config.errors import COMMAND_LINE, Problem
from scripts.llm_batch.config.schema import known_reference
from scripts.llm_batch.errors import WorkflowError
from scripts.llm_batch.hub.source import COMMIT
from scripts.llm_batch.rows import read_rows
from scripts.llm_batch.templates import field_names

ONE_OFF_KEYS = ("model", "sampling", "environment", "backend", "shards", "replicate")
OWN_SAMPLINGS: Mapping[str, Any] = {"greedy": {"temperature": 0}}
"""With max_tokens by default: limits of the config's samplings belong to the config's prompts."""

OWN_METRICS: Mapping[str, Any] = {
    "exact": {"type": "exact_match"},
    "contains": {"type": "contains"},
    "number": {"type": "numeric_match"},
}
"""For references of any kind; what a metric cannot use it counts as such."""

ON_HUB = re.compile(r"(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)@(?P<revision>[^@]+)")
"""A model on the hub: owner/name@commit. Without @ it is a folder."""

DATA_FILE = r"\.(jsonl|json|parquet|csv|tsv|txt)(\.gz|\.zst)?$"

EXPERIMENT = "one-off"
REHEARSAL = "-rehearsal"

Section = dict[str, Any]


def is_one_off(config: Mapping[str, Any]) -> bool:
    """Tell whether a model folder or a prompts file was given in place of a section."""
    return "model" in config or isinstance(config.get("prompts"), str)


def apply_one_off(config: Section, experiment_given: bool) -> tuple[Section, list[Problem]]:
    """Return `config` (valid against the schema) with the command line's settings in place.

    Anything but `experiment` that a setting replaces is ignored. `experiment_given`: the command
    line names the experiment. Whoever names it, a rehearsal adds `REHEARSAL` to it.
    """
    problems: list[Problem] = []
    result = {key: value for key, value in config.items() if key not in ONE_OFF_KEYS}
    if is_one_off(config):
        if not experiment_given:
            result["experiment"] = EXPERIMENT
        for section in ("comparisons", "gates"):
            result.pop(section, None)
        problems.extend(_replace_model(config, result))
        problems.extend(_replace_prompts(config, result))
        problems.extend(_replace_runs(config, result))
    elif "sampling" in config:
        text = "only with model= or prompts=; add one of them, or name samplings in runs"
        problems.append(Problem(("sampling",), text))
    if config.get("backend") == "dummy":
        if "experiment" in result and not result["experiment"].endswith(REHEARSAL):
            # The names that a paper reads must not come to mean a rehearsal.
            result["experiment"] += REHEARSAL
        # What no model answered can neither pass nor fail.
        result.pop("gates", None)
    _override_engines(config, result)
    if "replicate" in config:
        result["runs"] = [
            {**run, "replicate": config["replicate"]} for run in result.get("runs", [])
        ]
    return result, problems


def blame(config: Section, problem: Problem) -> Problem:
    """Return a problem of a replaced section as one of the setting that replaced it."""
    section = problem.path[0] if problem.path else None
    if "model" in config and section == "engines" and "environment" not in config:
        return replace(problem, path=("model",), text=f"{problem.text}, as environment=NAME")
    if section == "engines" and problem.path[-1] == "environment" and "environment" in config:
        return replace(problem, path=("environment",))
    if "model" in config and section in ("models", "engines"):
        return replace(problem, path=("model",))
    if isinstance(config.get("prompts"), str) and section == "prompts":
        return replace(problem, path=("prompts",))
    return problem


def _replace_model(config: Section, result: Section) -> Iterator[Problem]:
    if "model" not in config:
        return
    path: str = config["model"]
    on_hub = ON_HUB.fullmatch(path)
    if on_hub and not Path(path).expanduser().exists():
        name = plain_name(on_hub["repo"].partition("/")[2], "model")
        model: Section = {"repo": on_hub["repo"], "revision": on_hub["revision"]}
        if not COMMIT.fullmatch(on_hub["revision"]):
            text = (
                f"'{on_hub['revision']}' can come to mean other files, a commit (40 hexadecimal "
                f"digits) cannot; `python -m scripts.pin {path}` prints it"
            )
            yield Problem(("model",), text)
    else:
        name = plain_name(Path(path).expanduser().resolve().name, "model")
        model = {"path": path}
    engine: Section = {"model": name}
    first: Section = next(iter(config.get("engines", {}).values()), {})
    if "environment" in first:
        engine["environment"] = first["environment"]
    result["models"] = {name: model}
    result["engines"] = {name: engine}


def _replace_prompts(config: Section, result: Section) -> Iterator[Problem]:
    path = config.get("prompts")
    if not isinstance(path, str):
        return
    if not re.search(DATA_FILE, path):
        text = (
            f"expected a .jsonl, .json, .parquet, .csv, .tsv or .txt file (also .gz, .zst), found "
            f"'{path}'; .jsonl has one JSON object a line"
        )
        yield Problem(("prompts",), text)
        return
    entry: Section = {"path": path}
    fields = _first_fields(Path(path).expanduser())
    if fields is not None and "custom_id" in fields and isinstance(fields.get("body"), dict):
        # A line of OpenAI's batch format.
        entry["id"] = "custom_id"
    elif fields is not None and not {"prompt", "messages"} & set(fields):
        text = (
            f"the first row has neither 'prompt' (text) nor 'messages' (chat) but "
            f"{field_names(fields)}; rename a field, or write a template "
            "in a config file"
        )
        yield Problem(("prompts",), text)
    entry.update({key: key for key in ("reference", "id") if key in (fields or ())})
    stem = re.sub(DATA_FILE, "", Path(path).name)
    result["prompts"] = {plain_name(stem, "prompts"): entry}
    result["metrics"] = dict(OWN_METRICS)


def _first_fields(path: Path) -> Mapping[str, Any] | None:
    """Return the fields of the first row, None if there is none that can be read."""
    try:
        row = next(iter(read_rows(path)), None)
    except WorkflowError:
        return None
    return None if row is None else row.fields


def _replace_runs(config: Section, result: Section) -> Iterator[Problem]:
    if "sampling" not in config or "samplings" not in result:
        result["samplings"] = dict(OWN_SAMPLINGS)
    samplings = result["samplings"]
    named = config.get("sampling", next(iter(samplings)))
    names = named if isinstance(named, list) else [part.strip() for part in named.split(",")]
    for name in names:
        problem = known_reference(("sampling",), name, "samplings", samplings)
        if problem:
            yield Problem(problem.path, problem.text, source=COMMAND_LINE)
    run: Section = {
        "engine": list(result.get("engines", {})),
        "prompts": list(result["prompts"]) if isinstance(result.get("prompts"), dict) else [],
        "sampling": [name for name in names if name in samplings],
    }
    result["runs"] = [run]


def _override_engines(config: Section, result: Section) -> None:
    engines = result.get("engines", {})
    for name, engine in engines.items():
        changed: Section = {key: config[key] for key in ("environment", "backend") if key in config}
        if "shards" in config:
            changed["tuning"] = {**engine.get("tuning", {}), "shards": config["shards"]}
        engines[name] = {**engine, **changed}


def plain_name(text: str, otherwise: str) -> str:
    """Return `text` as a name: letters, digits, '_', '+' and '-', not more than 100."""
    name = re.sub(r"[^A-Za-z0-9_+-]+", "-", text).strip("-_+")[:100]
    return name or otherwise
