"""Which files a commit holds: asked of the hub, or of the cache where the hub cannot be reached."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from scripts.llm_batch.hub.source import HubFile, Source, repository_folder, snapshot_folder

_SHA256 = re.compile(r"[0-9a-f]{64}")
_SHA1 = re.compile(r"[0-9a-f]{40}")


def ask_files(source: Source) -> dict[str, HubFile]:
    """Return the files of a commit by path, as the hub lists them; its client raises."""
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    entries = HfApi().list_repo_tree(
        source.repo, recursive=True, revision=source.revision, repo_type=source.kind
    )
    return {
        entry.path: HubFile(
            entry.path, entry.size, entry.lfs.sha256 if entry.lfs else None, entry.blob_id
        )
        for entry in entries
        if isinstance(entry, RepoFile)
    }


class Cached(NamedTuple):
    """What the cache has of a commit: files by path, and the names of all, None if not known."""

    files: dict[str, HubFile]
    names: list[str] | None


def cached_files(source: Source) -> Cached:
    """Return the files of a commit that the cache has; a commit's listing never changes.

    The cache names a file's bytes by what the hub calls them, so that they can be checked.
    """
    sizes = _listed_sizes(source)
    folder = snapshot_folder(source)
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            name = path.relative_to(folder).as_posix()
            blob = blob_of(path).name
            sha256 = blob if _SHA256.fullmatch(blob) else None
            blob_id = blob if _SHA1.fullmatch(blob) else None
            size = sizes.get(name, path.stat().st_size)
            found[name] = HubFile(name, size, sha256, blob_id)
    return Cached(found, list(sizes) or None)


def _listed_sizes(source: Source) -> dict[str, int]:
    """Return the sizes of all files in the listing that the client keeps, empty without one."""
    from huggingface_hub import get_cached_repo_tree
    from huggingface_hub.errors import CachedRepoTreeNotFoundError

    try:
        tree = get_cached_repo_tree(source.repo, revision=source.revision, repo_type=source.kind)
    except CachedRepoTreeNotFoundError:
        return {}
    return {entry.path: entry.size for entry in tree}


def blob_of(path: Path) -> Path:
    """Return the file in `blobs/` that a name in a snapshot stands for."""
    for _ in range(8):
        if not path.is_symlink() or path.parent.name == "blobs":
            return path
        path = Path(path.parent, path.readlink())
    return path


def blob_path(source: Source, file: HubFile) -> Path:
    """Return where the cache keeps the bytes of a file."""
    return repository_folder(source) / "blobs" / file.etag
