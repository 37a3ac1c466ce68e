"""Whether the bytes of a file are those that the hub promised."""

from __future__ import annotations

import hashlib
from pathlib import Path

from scripts.llm_batch.digests import DigestMemo
from scripts.llm_batch.hub.source import HubFile

_BLOCK = 1 << 20


def git_blob_id(path: Path) -> str:
    """Return git's id of a file: sha1 of `blob <size>`, a zero byte and the content."""
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def damage(path: Path, file: HubFile, memo: DigestMemo) -> str | None:
    """Return how `path` differs from what the hub has as `file`, None if it does not.

    Files in LFS are checked by sha256, remembered by `memo`; those in git by their blob id.
    """
    size = path.stat().st_size
    if size != file.size:
        return f"{size} bytes, expected {file.size}"
    if file.sha256 is not None:
        found, expected = memo.sha256(path), file.sha256
        name = "sha256"
    else:
        found, expected = git_blob_id(path), file.blob_id or ""
        name = "git blob id"
    return None if found == expected else f"{name} {found[:12]}…, expected {expected[:12]}…"
