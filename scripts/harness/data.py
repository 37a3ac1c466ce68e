"""The one door through which a task gets data: files that were hashed, repositories at a commit.

The harness loads everything with `datasets.load_dataset`, which reads whatever a branch points to.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES as FORMATS

from scripts.harness.requests import HarnessError

_HUB = "hf://datasets/"
_ON_THE_HUB = re.compile(rf"{_HUB}([^/@]+/[^/@]+)(?:@([^/]+))?/(.+)")


def close_door(revisions: Mapping[str, str], files: Sequence[str]) -> list[dict[str, Any]]:
    """Let `datasets` load hashed `files` and repositories in `revisions` only.

    Returns a list that fills with what is loaded.
    """
    allowed = {Path(file).resolve() for file in files}
    loaded: list[dict[str, Any]] = []
    load: Callable[..., Any] = datasets.load_dataset

    def load_dataset(path: str, name: str | None = None, *args: Any, **kwargs: Any) -> Any:
        if path in FORMATS:
            files = _pinned(kwargs.get("data_files"), revisions)
            kwargs["data_files"] = files
            record: dict[str, Any] = {"format": path, "files": list(_checked(files, allowed))}
        else:
            kwargs["revision"] = _revision(path, kwargs.get("revision"), revisions)
            record = {"repo": path, "name": name, "revision": kwargs["revision"]}
        if record not in loaded:
            loaded.append(record)
        return load(path, name, *args, **kwargs)

    datasets.load_dataset = load_dataset
    return loaded


def _pinned(value: Any, revisions: Mapping[str, str]) -> Any:
    """Return `data_files` in which each address of a data set on the hub has its commit."""
    if isinstance(value, Mapping):
        return {key: _pinned(item, revisions) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_pinned(item, revisions) for item in value]
    found = _ON_THE_HUB.fullmatch(str(value))
    if found is None:
        return value
    repo, own, file = found.groups()
    return f"{_HUB}{repo}@{_revision(repo, own, revisions)}/{file}"


def _checked(data_files: Any, allowed: set[Path]) -> Iterator[str]:
    for file in _flat(data_files):
        if _ON_THE_HUB.fullmatch(file):
            yield file
            continue
        if "://" in file or Path(file).resolve() not in allowed:
            raise HarnessError(
                f"the task reads '{file}', which is no part of its address: name it, file by file, "
                "under dataset_kwargs.data_files of the task's YAML"
            )
        yield file


def _flat(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _flat(item)
    elif value is not None:
        yield str(value)


def _revision(repo: str, own: str | None, revisions: Mapping[str, str]) -> str:
    if Path(repo).exists():
        raise HarnessError(
            f"the task reads the folder '{repo}', which is no part of its address: write "
            "dataset_path: json (or parquet, csv) and name its files in dataset_kwargs.data_files"
        )
    revision = revisions.get(repo, own)
    if revision is None or len(revision) != 40:
        raise HarnessError(
            f"the task reads {repo} from the hub, which can change; pin it in prompts: "
            f"dataset_revisions: {{{repo}: {_newest(repo)}}}"
        )
    return revision


def _newest(repo: str) -> str:
    """Return the newest commit of a data set, or what to write where the hub cannot be reached."""
    from huggingface_hub import HfApi

    try:
        return str(HfApi().dataset_info(repo).sha)
    except Exception:
        return "COMMIT"
