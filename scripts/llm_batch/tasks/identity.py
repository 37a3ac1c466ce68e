"""What decides the requests of a task: the harness, the task, the files that it reads.

Imported while the Snakefile is parsed: the harness need not be there yet, so a task's YAML is read
here, without running any of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from scripts.llm_batch.errors import ConfigError

YAML_SUFFIXES = (".yaml", ".yml")

OPTIONS = (
    *("num_fewshot", "fewshot_seed", "apply_chat_template", "fewshot_as_multiturn"),
    *("system_instruction", "gen_kwargs", "dataset_revisions"),
)
"""Keys of a prompts section that only a task has; the first six are the harness's own names."""


class _Function(str):
    """A function that a YAML names: `module.function`, a file beside it."""


class _Loader(yaml.SafeLoader):
    """Reads a task's YAML without importing the functions that it names."""


_Loader.add_constructor(
    "!function",
    lambda loader, node: _Function(loader.construct_scalar(node)),  # type: ignore[arg-type]
)


def is_file(task: str) -> bool:
    """Tell whether `task` is a YAML file of one's own, and not a name that the harness knows."""
    return task.endswith(YAML_SUFFIXES)


def task_files(path: Path) -> dict[str, Path]:
    """Return the files that decide the task in the YAML at `path`, by the names they have in it.

    These are the YAML, what it includes, its data files and, where it names functions, the Python
    files beside it. Raises `ConfigError` for one that is missing or cannot be read.
    """
    files: dict[str, Path] = {}
    for name, file in _files(path, path.parent, set()):
        if not file.is_file():
            raise ConfigError(
                f"{path}: it names '{name}', and there is no such file; mend the path"
            )
        files[name] = file
    return files


def _files(path: Path, folder: Path, seen: set[Path]) -> Iterator[tuple[str, Path]]:
    if path.resolve() in seen:
        return
    seen.add(path.resolve())
    document = _read(path)
    if "group" in document or isinstance(document.get("task"), list):
        raise ConfigError(
            f"{path}: a group; of files of one's own only single tasks can be asked: give each an "
            "entry of prompts"
        )
    yield _name(path, folder), path
    included = document.get("include") or []
    for name in [included] if isinstance(included, str) else included:
        yield from _files(path.parent / name, folder, seen)
    if any(isinstance(value, _Function) for value in _values(document)):
        for module in sorted(path.parent.glob("*.py")):
            yield _name(module, folder), module
    arguments = document.get("dataset_kwargs") or {}
    for data in _values(arguments.get("data_files")):
        if isinstance(data, str) and "://" not in data:
            yield data, Path(data)


def _read(path: Path) -> Mapping[str, Any]:
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        detail = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise ConfigError(f"{path}: not the YAML of a task: {detail}") from None
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: not the YAML of a task: expected a mapping")
    return document


def _values(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        for item in value.values():
            yield from _values(item)
    elif isinstance(value, list):
        for item in value:
            yield from _values(item)
    elif value is not None:
        yield value


def _name(path: Path, folder: Path) -> str:
    """Return a name that does not change when the folder of the task is moved."""
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.name
