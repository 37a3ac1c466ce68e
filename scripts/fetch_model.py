"""Make a model's stage folder: its files fetched and checked, a list of them, a link to them.

A model on the hub comes into the user's ordinary hub cache (HF_HOME), and `snapshot/` has a link
for each file that was checked, and no other. A local folder stays where it is: `snapshot` is a
link to it.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts.llm_batch.addresses import (
    file_sha256,
    write_identity,
    write_json_atomic,
    write_manifest,
)
from scripts.llm_batch.digests import DigestMemo
from scripts.llm_batch.errors import WorkflowError, run_cli
from scripts.llm_batch.hub.download import fetch_files
from scripts.llm_batch.hub.models import Wanted, choose_files
from scripts.llm_batch.hub.problems import explained, quiet_client
from scripts.llm_batch.hub.source import COMMIT, HubFile, Kind, Source, snapshot_folder
from scripts.llm_batch.models.remote_code import foreign_code, localise
from scripts.llm_batch.models.size import gpus_needed, hub_model_size

log = logging.getLogger(__name__)

MEMO = ".digests.json"
TOLD_MEMORY_BYTES = 80 * 10**9
"""Of the GPU that the size is held against in the log; `scripts.model_size` takes any."""


def build_parser() -> argparse.ArgumentParser:
    """Return the command line of this program."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--identity", required=True, type=json.loads, help="JSON of the identity")
    parser.add_argument("--path", type=Path, help="the local model folder; without it, the hub")
    parser.add_argument("--pickled", action="store_true", help="weights may be pickled")
    parser.add_argument("--output", required=True, type=Path, help="manifest.json to write")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Fetch or check the model and link it; 0 on success."""
    arguments = build_parser().parse_args(argv)
    quiet_client()
    folder: Path = arguments.output.parent
    identity: dict[str, Any] = arguments.identity
    memo = DigestMemo(folder.parent.parent / MEMO)
    snapshot = folder / "snapshot"
    if "repo" in identity:
        wanted = Wanted(identity.get("files"), arguments.pickled)
        model = link_hub_model(snapshot, identity, wanted, memo)
    else:
        model = link_local_model(snapshot, arguments.path, identity, memo)
    memo.save()
    if "code" in identity:
        changed = localise(snapshot, identity["code"], code_fetcher(memo))
        model["written"] = [listed(snapshot / name, name) for name in changed]
    model["foreign_code"] = foreign_code(snapshot)
    write_identity(folder, "models", identity)
    write_json_atomic(folder / "model.json", model)
    write_manifest(folder, [folder / "model.json"], {})
    return 0


def link_hub_model(
    snapshot: Path, identity: Mapping[str, Any], wanted: Wanted, memo: DigestMemo
) -> dict[str, Any]:
    """Fetch a model or adapter from the hub, link its files and return what is told of them."""
    source = pinned_source(identity["repo"], identity.get("revision"))
    files = choose_files(source, wanted)
    missing = not all((snapshot_folder(source) / file.path).is_file() for file in files)
    if missing and wanted.patterns is None:
        tell_size(source)
    return link_files(snapshot, source, files, memo)


def pinned_source(repo: str, revision: str | None, kind: Kind = "model") -> Source:
    """Return a repository at a commit; raise `WorkflowError` for a branch."""
    if revision is None or not COMMIT.fullmatch(revision):
        raise WorkflowError(
            f"{repo}: '{revision or ''}' is no commit; `python -m scripts.pin CONFIG` writes one "
            "into the config"
        )
    return Source(repo, revision, kind)


def link_files(
    snapshot: Path, source: Source, files: Sequence[HubFile], memo: DigestMemo
) -> dict[str, Any]:
    """Fetch files of a commit, link them into `snapshot` and return what is told of them."""
    cached = fetch_files(source, files, memo)
    link_each(snapshot, cached, [file.path for file in files])
    return {
        "source": f"{source.repo}@{source.revision}",
        "files": [hub_listed(cached / file.path, file, memo) for file in files],
    }


def hub_listed(path: Path, file: HubFile, memo: DigestMemo) -> dict[str, Any]:
    """Return the entry of model.json for a file that was checked against what the hub has."""
    checked = {"checked": "sha256"} if file.sha256 else {"checked": "git blob id"}
    blob = {} if file.sha256 else {"git_blob_id": file.blob_id}
    return {
        "path": file.path,
        "bytes": file.size,
        "sha256": file.sha256 or memo.sha256(path),
        **checked,
        **blob,
    }


def link_local_model(
    snapshot: Path, path: Path, identity: Mapping[str, Any], memo: DigestMemo
) -> dict[str, Any]:
    """Check a local model against its identity, link it and return its model.json."""
    files: dict[str, str] = identity["files"]
    check_files(path, files, memo)
    if "code" in identity:
        link_each(snapshot, path, sorted(files))
    else:
        link(snapshot, path)
    listing = [
        {"path": name, "bytes": (path / name).stat().st_size, "sha256": digest}
        for name, digest in sorted(files.items())
    ]
    return {"source": str(path), "files": listing}


def check_files(source: Path, files: Mapping[str, str], memo: DigestMemo) -> None:
    """Raise `WorkflowError` if a file of the model is not what the plan saw.

    What the plan hashed a moment ago, and has the same size, times and inode, is not hashed again.
    """
    for name, expected in files.items():
        path = source / name
        if not path.is_file():
            raise WorkflowError(f"{path}: gone since the workflow was planned; run it again")
        found = memo.sha256(path)
        if found != expected:
            raise WorkflowError(
                f"{path}: changed since the workflow was planned (sha256 {found[:12]}…, expected "
                f"{expected[:12]}…); run it again, the changed model gets an address of its own"
            )


def code_fetcher(memo: DigestMemo) -> Callable[[str, str], Path]:
    """Return what fetches the Python files of a repository at a commit, and says where they are."""

    def fetch(repo: str, revision: str) -> Path:
        source = Source(repo, revision)
        files = choose_files(source, Wanted(code_only=True))
        return fetch_files(source, files, memo)

    return fetch


def link(path: Path, target: Path) -> None:
    """Point `path` at `target`, relatively, so that both can be moved together."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(os.path.relpath(target.resolve(), path.parent.resolve()))
    temporary.replace(path)


def link_each(folder: Path, source: Path, names: Sequence[str]) -> None:
    """Make `folder` anew, with a link to each named file of `source`."""
    if folder.is_symlink():
        folder.unlink()
    shutil.rmtree(folder, ignore_errors=True)
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        link(path, source / name)


def listed(path: Path, name: str) -> dict[str, Any]:
    """Return the entry of model.json for a file that was written here."""
    return {"path": name, "bytes": path.stat().st_size, "sha256": file_sha256(path)}


def tell_size(source: Source) -> None:
    """Log how large a model on the hub is, before it is fetched; nothing if that is not known."""
    try:
        with explained(source):
            size = hub_model_size(source.repo, source.revision)
    except WorkflowError as error:
        log.info("%s", error)
        return
    parameters, stored = size.total_parameters.value, size.stored_bytes.value
    log.info("%s: %s parameters, %.2f GB of weights", source, f"{parameters:,}", stored / 1e9)
    fit = gpus_needed(size, TOLD_MEMORY_BYTES)
    log.info("GPUs needed of 80 GB each: %s (%s)", fit.gpus or "more", fit.arithmetic)


if __name__ == "__main__":
    run_cli(main)
