"""What is asked of the hub: a repository at a commit, and the files that the commit holds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, NamedTuple

Kind = Literal["model", "dataset"]

COMMIT = re.compile(r"[0-9a-f]{40}")


class Source(NamedTuple):
    """A repository at a revision; what is fetched is always at a commit."""

    repo: str
    revision: str
    kind: Kind = "model"

    def __str__(self) -> str:
        short = self.revision[:12] if COMMIT.fullmatch(self.revision) else self.revision
        return f"{self.repo}@{short}"

    @property
    def page(self) -> str:
        """The path of its page on the hub."""
        return f"datasets/{self.repo}" if self.kind == "dataset" else self.repo


class HubFile(NamedTuple):
    """A file of a commit; `sha256` is what LFS keeps it by, None for a file in git itself.

    `blob_id` is git's id of the file; for one in LFS it is that of the pointer, which is not there.
    """

    path: str
    size: int
    sha256: str | None
    blob_id: str | None

    @property
    def etag(self) -> str:
        """The name of the file's bytes in the hub cache."""
        return self.sha256 or self.blob_id or ""


def cache_folder() -> Path:
    """Return the folder of the user's hub cache (HF_HUB_CACHE, HF_HOME)."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE).expanduser()


def repository_folder(source: Source) -> Path:
    """Return where the hub cache keeps the files of a repository."""
    return cache_folder() / f"{source.kind}s--{source.repo.replace('/', '--')}"


def snapshot_folder(source: Source) -> Path:
    """Return where the hub cache shows the files of a commit by their names."""
    return repository_folder(source) / "snapshots" / source.revision


def endpoint() -> str:
    """Return the address of the hub (HF_ENDPOINT)."""
    from huggingface_hub import constants

    return str(constants.ENDPOINT)
