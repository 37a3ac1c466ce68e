"""Python code that a model brings along (`auto_map`), and code of other repositories that it names.

transformers finds code as `module.Class` beside the model, or as `owner/name--module.Class` in
another repository, there at whatever its main branch is. Such code is fetched at a commit, put
beside the model and named so: nothing is looked up when an engine starts.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from scripts.llm_batch.addresses import write_json_atomic
from scripts.llm_batch.errors import WorkflowError

CONFIGS = ("config.json", "tokenizer_config.json", "processor_config.json")
"""Files with an `auto_map`."""

MARK = "--"


def foreign_code(folder: Path) -> list[str]:
    """Return the other repositories whose code the configs in `folder` name, sorted."""
    return sorted({repo for name in CONFIGS for repo in _repositories(_auto_map(folder / name))})


def localise(folder: Path, code: Mapping[str, str], fetch: Callable[[str, str], Path]) -> list[str]:
    """Put code of other repositories into `folder` and name it there; return what was written.

    `folder` holds links, which are replaced where a config changes. `code` has the commit of each
    repository; `fetch` returns a folder with the files of a repository at a commit. Raises
    `WorkflowError` for a repository that no config names and for modules of the same name.
    """
    named = foreign_code(folder)
    for repo in code:
        if repo not in named:
            known = ", ".join(named) or "none"
            raise WorkflowError(f"code: {repo} is not named by the model's configs ({known})")
    written = []
    for repo, revision in sorted(code.items()):
        for module in sorted(fetch(repo, revision).glob("*.py")):
            target = folder / module.name
            if target.exists() and target.read_bytes() != module.read_bytes():
                raise WorkflowError(f"code: {module.name} of {repo} is another file in the model")
            target.unlink(missing_ok=True)
            target.write_bytes(module.read_bytes())
            written.append(module.name)
    for name in CONFIGS:
        config = _read(folder / name)
        changed = _without_repositories(config.get("auto_map"), code)
        if config.get("auto_map") != changed:
            (folder / name).unlink()
            write_json_atomic(folder / name, {**config, "auto_map": changed})
            written.append(name)
    return sorted(set(written))


def _read(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}


def _auto_map(path: Path) -> Any:
    return _read(path).get("auto_map")


def _repositories(value: Any) -> Iterator[str]:
    if isinstance(value, str) and MARK in value:
        yield value.partition(MARK)[0]
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _repositories(item)
    elif isinstance(value, list):
        for item in value:
            yield from _repositories(item)


def _without_repositories(value: Any, code: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        repo, _, name = value.partition(MARK)
        return name if name and repo in code else value
    if isinstance(value, Mapping):
        return {key: _without_repositories(item, code) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_repositories(item, code) for item in value]
    return value
