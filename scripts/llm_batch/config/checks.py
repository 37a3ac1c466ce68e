"""Checks between the sections of a config: names, files, templates, rules of vLLM."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from scripts.llm_batch.config.build import TASK_SAMPLING, expand_runs, local_path
from scripts.llm_batch.config.data import data_problems, pin_problems
from scripts.llm_batch.config.engines import (
    engine_problems,
    environment_files,
    environment_problems,
    node_problems,
    strict_problems,
)
from scripts.llm_batch.config.errors import (
    ConfigPath,
    Problem,
    nearest,
    path_text,
)
from scripts.llm_batch.config.gates import gate_problems
from scripts.llm_batch.config.judged import judged_problems
from scripts.llm_batch.config.metrics import metric_problems, run_metric_problems
from scripts.llm_batch.config.sampling import sampling_problems
from scripts.llm_batch.config.schema import known_reference
from scripts.llm_batch.config.tasks import (
    is_task,
    judged_task_problems,
    task_file_problems,
    task_problems,
    task_run_problems,
)
from scripts.llm_batch.errors import WorkflowError
from scripts.llm_batch.hub.selection import refuse_pickled
from scripts.llm_batch.models.adapters import NO_ADAPTER, SETTINGS
from scripts.llm_batch.models.local import model_files
from scripts.llm_batch.templates import template_problem

REQUIRED = ("experiment", "models", "engines", "prompts", "samplings", "runs")

_SECTIONS = {"engine": "engines", "prompts": "prompts", "sampling": "samplings"}


def missing_sections(config: Mapping[str, Any]) -> list[Problem]:
    """Return a problem for each section that every config has.

    Runs that ask tasks only need no samplings.
    """
    found = {"samplings"} if _only_tasks(config) else set()
    return [
        Problem((), f"the key '{key}' is missing; add it (see config/README.md)")
        for key in REQUIRED
        if key not in config and key not in found
    ]


def _only_tasks(config: Mapping[str, Any]) -> bool:
    runs = config.get("runs", [])
    return bool(runs) and all(run["sampling"] in (TASK_SAMPLING, [TASK_SAMPLING]) for run in runs)


def cross_problems(config: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield what is wrong between entries that are each valid against the schema."""
    for name, entry in config["models"].items():
        yield from _model_problems(("models", name), entry)
    for name, entry in config.get("adapters", {}).items():
        yield from _adapter_problems(("adapters", name), entry)
    environments = config.get("environments", {})
    for name, entry in environments.items():
        yield from environment_problems(("environments", name), entry)
    for name, entry in config["engines"].items():
        yield from _reference(("engines", name, "model"), entry["model"], "models", config)
        if entry.get("backend", "vllm") != "dummy":
            yield from engine_problems(("engines", name), entry, environments)
        yield from node_problems(("engines", name), entry, environments)
    for name, entry in config["prompts"].items():
        yield from _prompts_problems(("prompts", name), entry)
    for name, entry in config["samplings"].items():
        if name == TASK_SAMPLING:
            text = f"'{TASK_SAMPLING}' in a run means what its task asks for; choose another name"
            yield Problem(("samplings", name), text)
        yield from sampling_problems(("samplings", name), entry)
    for name, entry in config.get("metrics", {}).items():
        yield from metric_problems(("metrics", name), entry)
    references = list(_run_references(config))
    yield from references
    if not references:
        yield from _run_names(config)
        yield from run_metric_problems(config)
        yield from judged_problems(config)
        yield from gate_problems(config)
        yield from _tasks(config)
        yield from strict_problems(config)
        yield from _files(config)


def _reference(
    path: ConfigPath, name: str, section: str, config: Mapping[str, Any]
) -> Iterator[Problem]:
    problem = known_reference(path, name, section, config.get(section, {}))
    if problem:
        yield problem


def _model_problems(path: ConfigPath, entry: Mapping[str, Any]) -> Iterator[Problem]:
    yield from _place_problems(path, entry, "model")
    for repo, revision in entry.get("code", {}).items():
        yield from pin_problems((*path, "code", repo), revision)


def _place_problems(path: ConfigPath, entry: Mapping[str, Any], what: str) -> Iterator[Problem]:
    """Yield what is wrong with where a model or an adapter comes from."""
    if "path" in entry and "repo" in entry:
        yield Problem(path, "has both 'path' and 'repo'; keep the one that is meant")
    elif "path" not in entry and "repo" not in entry:
        text = f"the key 'path' is missing; add it: the folder of the {what}; or 'repo', on the hub"
        yield Problem(path, text)
    for key in ("revision", "files"):
        if "path" in entry and "repo" not in entry and key in entry:
            yield Problem((*path, key), "without effect beside 'path'; remove it")
    if "repo" in entry:
        yield from pin_problems((*path, "revision"), entry.get("revision"))


def _adapter_problems(path: ConfigPath, entry: Mapping[str, Any]) -> Iterator[Problem]:
    if path[1] == NO_ADAPTER:
        text = f"'{NO_ADAPTER}' in a run means no adapter; choose another name"
        yield Problem(path, text)
    yield from _place_problems(path, entry, "adapter")


def _prompts_problems(path: ConfigPath, entry: Mapping[str, Any]) -> Iterator[Problem]:
    yield from task_problems(path, entry)
    if is_task(entry):
        return
    template, messages = entry.get("template"), entry.get("messages")
    if template is not None and messages is not None:
        yield Problem(path, "has both 'template' and 'messages'; keep the one that is meant")
    if template is not None and entry.get("chat_template_kwargs"):
        text = "without effect beside 'template'; use messages, or remove it"
        yield Problem((*path, "chat_template_kwargs"), text)
    if template is not None:
        yield from _template((*path, "template"), template)
    for position, message in enumerate(messages or ()):
        yield from _template((*path, "messages", position, "content"), message["content"])
    yield from data_problems(path, entry)


def _template(path: ConfigPath, text: str) -> Iterator[Problem]:
    problem = template_problem(text)
    if problem is not None:
        yield Problem(path, problem.message, line_offset=problem.line)


def _run_references(config: Mapping[str, Any]) -> Iterator[Problem]:
    for position, entry in enumerate(config["runs"]):
        for key, section in _SECTIONS.items():
            for path, name in _named(("runs", position, key), entry[key]):
                if (key, name) != ("sampling", TASK_SAMPLING):
                    yield from _reference(path, name, section, config)
        for path, name in _named(("runs", position, "adapter"), entry.get("adapter", [])):
            if name != NO_ADAPTER:
                yield from _reference(path, name, "adapters", config)
        for path, name in _named(("runs", position, "metrics"), entry.get("metrics", [])):
            yield from _reference(path, name, "metrics", config)


def _named(path: ConfigPath, value: str | list[str]) -> Iterator[tuple[ConfigPath, str]]:
    if isinstance(value, str):
        yield path, value
    else:
        for position, name in enumerate(value):
            yield (*path, position), name


def _run_names(config: Mapping[str, Any]) -> Iterator[Problem]:
    seen: dict[str, ConfigPath] = {}
    for path, run in expand_runs(config):
        first = seen.setdefault(run.name, path)
        if first is path:
            continue
        entry = config["runs"][path[1]]
        if "name" in entry and first == path:
            text = f"'{run.name}' would name several runs; remove the name, or the lists"
            yield Problem((*path, "name"), text)
        elif first == path:
            yield Problem(path, f"'{run.name}' is listed twice; remove one")
        else:
            text = f"'{run.name}' is the name of {path_text(first)} too; remove one or rename it"
            yield Problem((*path, "name") if "name" in entry else path, text)


def _tasks(config: Mapping[str, Any]) -> Iterator[Problem]:
    found = (
        problem
        for path, run in expand_runs(config)
        for problem in task_run_problems(path, run, config["runs"][path[1]], config)
    )
    yield from dict.fromkeys(found)
    yield from judged_task_problems(config, [run for _, run in expand_runs(config)])


def _files(config: Mapping[str, Any]) -> Iterator[Problem]:
    """Check what the runs use: other entries may describe another machine's files."""
    if "wheelhouse" in config and not Path(local_path(config["wheelhouse"])).is_dir():
        text = (
            f"no such folder: '{config['wheelhouse']}'; fill one where there is a network: "
            "python -m scripts.lock_environment NAME --download DIR"
        )
        yield Problem(("wheelhouse",), text)
    runs = [run for _, run in expand_runs(config)]
    engines = [config["engines"][name] for name in dict.fromkeys(run.engine for run in runs)]
    real = [engine for engine in engines if engine.get("backend", "vllm") != "dummy"]
    for name in dict.fromkeys(engine["model"] for engine in real):
        entry = config["models"].get(name, {})
        if "path" in entry:
            yield from _model_folder(("models", name, "path"), entry)
    for name in dict.fromkeys(engine.get("environment", "") for engine in real):
        entry = config.get("environments", {}).get(name, {})
        yield from environment_files(("environments", name), entry)
    adapted = [run for run in runs if config["engines"][run.engine] in real]
    for adapter in dict.fromkeys(run.adapter for run in adapted if run.adapter):
        entry = config["adapters"][adapter]
        if "path" in entry:
            yield from _adapter_folder(
                ("adapters", adapter, "path"), Path(local_path(entry["path"]))
            )
    for name in dict.fromkeys(run.prompts for run in runs):
        entry = config["prompts"][name]
        if is_task(entry):
            yield from task_file_problems(("prompts", name), entry)
        if "path" in entry:
            yield from _prompts_file(("prompts", name, "path"), Path(local_path(entry["path"])))
        few_shot = entry.get("few_shot") or {}
        if "path" in few_shot:
            at = ("prompts", name, "few_shot", "path")
            yield from _prompts_file(at, Path(local_path(few_shot["path"])))


def _model_folder(at: ConfigPath, entry: Mapping[str, Any]) -> Iterator[Problem]:
    path = Path(local_path(entry["path"]))
    if not _exists(path):
        yield Problem(at, f"no such folder: '{path}'; {_nearest_path(path)}")
    elif not path.is_dir():
        yield Problem(at, f"'{path}' is a file; give the folder that holds config.json")
    elif not (path / "config.json").is_file():
        text = f"the folder '{path}' has no config.json; give a model folder in Hugging Face format"
        yield Problem(at, text)
    else:
        try:
            refuse_pickled((str(file) for file in model_files(path)), entry.get("pickled", False))
        except WorkflowError as error:
            yield Problem(at, str(error))


def _adapter_folder(at: ConfigPath, path: Path) -> Iterator[Problem]:
    if not _exists(path):
        yield Problem(at, f"no such folder: '{path}'; {_nearest_path(path)}")
    elif not path.is_dir():
        yield Problem(at, f"'{path}' is a file; give the folder that holds {SETTINGS}")
    elif not (path / SETTINGS).is_file():
        text = f"the folder '{path}' has no {SETTINGS}; give a LoRA adapter in PEFT format"
        yield Problem(at, text)


def _prompts_file(at: ConfigPath, path: Path) -> Iterator[Problem]:
    if not _exists(path):
        yield Problem(at, f"no such file: '{path}'; {_nearest_path(path)}")
    elif not path.is_file():
        yield Problem(at, f"'{path}' is a folder; give a data file in it")


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _nearest_path(path: Path) -> str:
    """Say what there is at the first missing part of `path`."""
    known = path
    while not _exists(known) and known != known.parent:
        missing, known = known.name, known.parent
    try:
        names = sorted(entry.name for entry in known.iterdir())
    except OSError:
        names = []
    close = nearest(missing, names)
    if close:
        return f"did you mean '{known / close}'?"
    return f"there is no '{missing}' in '{known.resolve()}'"
