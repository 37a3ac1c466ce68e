"""Repositories of the stand-in hub: commits, branches, tags, LFS files and who may read them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

LFS_BYTES = 10_000
"""Files from this size on are kept in LFS here; the real hub keeps binary and large files so."""


def git_blob_id(data: bytes) -> str:
    """Return the id that git gives to a file of these bytes."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def lfs_pointer(data: bytes) -> bytes:
    """Return what git itself keeps of a file in LFS."""
    digest = hashlib.sha256(data).hexdigest()
    return (
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize {len(data)}\n"
    ).encode()


@dataclass
class StandInFile:
    """One file of a commit."""

    data: bytes

    @property
    def lfs(self) -> bool:
        """Whether the file is kept in LFS."""
        return len(self.data) >= LFS_BYTES

    @property
    def sha256(self) -> str:
        """The digest under which LFS keeps the file."""
        return hashlib.sha256(self.data).hexdigest()

    @property
    def blob_id(self) -> str:
        """Git's id of the file, or of the pointer in its place."""
        return git_blob_id(lfs_pointer(self.data) if self.lfs else self.data)

    @property
    def etag(self) -> str:
        """What the hub calls this version of the file."""
        return self.sha256 if self.lfs else self.blob_id

    @property
    def xet_hash(self) -> str:
        """What Xet would call the file; made up, as nothing here speaks Xet."""
        return hashlib.sha256(b"xet" + self.data).hexdigest()

    def listing(self, path: str, xet: bool = False) -> dict[str, Any]:
        """Return the entry of the tree endpoint."""
        entry: dict[str, Any] = {
            "type": "file",
            "oid": self.blob_id,
            "size": len(self.data),
            "path": path,
        }
        if self.lfs:
            pointer = len(lfs_pointer(self.data))
            entry["lfs"] = {"oid": self.sha256, "size": len(self.data), "pointerSize": pointer}
            if xet:
                entry["xetHash"] = self.xet_hash
        return entry


@dataclass
class StandInRepo:
    """A repository; `gated` ones show their listing to all and their files to `readers` only.

    The LFS files of a `xet` one are offered by Xet as well, as most are on the real hub.
    """

    kind: str
    name: str
    private: bool = False
    gated: bool = False
    xet: bool = False
    readers: set[str] = field(default_factory=set)
    commits: dict[str, dict[str, StandInFile]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def commit(self, files: Mapping[str, bytes], branch: str = "main") -> str:
        """Add a commit that holds `files` and move `branch` to it; return its id."""
        digest = hashlib.sha1(f"{self.name} {len(self.commits)} {branch}".encode())
        for path, data in sorted(files.items()):
            digest.update(path.encode() + hashlib.sha256(data).digest())
        commit = digest.hexdigest()
        self.commits[commit] = {path: StandInFile(data) for path, data in files.items()}
        self.branches[branch] = commit
        return commit

    def resolve(self, revision: str) -> str | None:
        """Return the commit that a branch, a tag or a commit id means."""
        if revision in self.commits:
            return revision
        return self.branches.get(revision) or self.tags.get(revision)

    def listing(self, commit: str) -> list[dict[str, Any]]:
        """Return the tree of a commit, folders first, as the recursive tree endpoint does."""
        files = self.commits[commit]
        folders = sorted(
            {
                "/".join(path.split("/")[:depth])
                for path in files
                for depth in range(1, path.count("/") + 1)
            }
        )
        entries: list[dict[str, Any]] = [
            {
                "type": "directory",
                "oid": hashlib.sha1(name.encode()).hexdigest(),
                "size": 0,
                "path": name,
            }
            for name in folders
        ]
        return entries + [file.listing(path, self.xet) for path, file in sorted(files.items())]

    def info(self, commit: str) -> dict[str, Any]:
        """Return what the hub tells of the repository at a commit."""
        return {
            "_id": hashlib.md5(self.name.encode()).hexdigest()[:24],
            "id": self.name,
            "sha": commit,
            "private": self.private,
            "gated": "manual" if self.gated else False,
            "disabled": False,
            "tags": [],
            "siblings": [{"rfilename": path} for path in sorted(self.commits[commit])],
        }
