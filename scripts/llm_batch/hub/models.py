"""Models on the hub: which of their files are fetched, and what is told before."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from scripts.llm_batch.errors import WorkflowError
from scripts.llm_batch.hub.listing import ask_files, cached_files
from scripts.llm_batch.hub.problems import explained, short
from scripts.llm_batch.hub.selection import INDEX, needed_files
from scripts.llm_batch.hub.source import HubFile, Source

log = logging.getLogger(__name__)


class Wanted(NamedTuple):
    """What is wanted of a repository: its model, by patterns or by our choice, or its code."""

    patterns: Sequence[str] | None = None
    pickled: bool = False
    code_only: bool = False


def choose_files(source: Source, wanted: Wanted) -> list[HubFile]:
    """Return the files of a model or adapter that an engine needs, or only its Python code.

    The hub is not asked if the cache has all of them. Raises `WorkflowError` if the hub does not
    answer, or the repository holds no model.
    """
    with explained(source):
        cached = cached_files(source)
        if cached.names is not None:
            names = _choose(source, cached.names, wanted)
            if set(names) <= set(cached.files):
                return [cached.files[name] for name in names]
        files = known_files(source)
        return [files[name] for name in _choose(source, files, wanted)]


def known_files(source: Source) -> dict[str, HubFile]:
    """Return all files of a commit, or, if the hub does not answer, those that the cache has.

    Raises what the hub's client raises if neither is there.
    """
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    cached = cached_files(source)
    if cached.names is not None and set(cached.names) <= set(cached.files):
        return cached.files
    try:
        files = ask_files(source)
        tell_renamed(source)
    except (httpx2.TransportError, HfHubHTTPError, OfflineModeIsEnabled) as error:
        if not cached.files:
            raise
        log.info("%s: %s; taking what the cache has", source, short(error))
        return cached.files
    return files


def _choose(source: Source, paths: Collection[str], wanted: Wanted) -> list[str]:
    if wanted.code_only:
        return sorted(path for path in paths if path.endswith(".py"))
    index = read_index(source) if wanted.patterns is None and INDEX in paths else None
    try:
        names = needed_files(paths, index, wanted.patterns, wanted.pickled)
    except WorkflowError as error:
        raise WorkflowError(f"{source}: {error}") from None
    missing = [name for name in names if name not in paths]
    if missing:
        raise WorkflowError(f"{source}: {INDEX} names {missing[0]}, which is not there")
    return names


def read_index(source: Source) -> Mapping[str, str]:
    """Return the weight map of a sharded model; raise `WorkflowError` if it is no such file."""
    from huggingface_hub import hf_hub_download

    path = Path(hf_hub_download(source.repo, INDEX, revision=source.revision))
    try:
        weight_map = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        return {str(key): str(value) for key, value in weight_map.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise WorkflowError(f"{source}: {INDEX} has no weight_map") from None


def commit_of(source: Source) -> str:
    """Return the commit that a branch or tag means; raise `WorkflowError` without an answer."""
    from huggingface_hub import HfApi

    with explained(source):
        info = HfApi().repo_info(source.repo, repo_type=source.kind, revision=source.revision)
    return str(info.sha)


def tell_renamed(source: Source) -> None:
    """Log a line if the hub has the repository under another name now; silent offline."""
    import httpx2
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    try:
        info = HfApi().repo_info(source.repo, repo_type=source.kind, revision=source.revision)
    except (httpx2.TransportError, HfHubHTTPError, OfflineModeIsEnabled):
        return
    if info.id != source.repo:
        log.warning(
            "%s is called %s on the hub now; the commit is the same: write `repo: %s` when you "
            "next change the config (it gets another address)",
            source.repo,
            info.id,
            info.id,
        )
