"""Make a data set's stage folder: the files of its splits fetched, checked and linked."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scripts.fetch_model import MEMO, link_files, pinned_source
from scripts.llm_batch.addresses import write_identity, write_json_atomic, write_manifest
from scripts.llm_batch.data.source import DATA_SET
from scripts.llm_batch.digests import DigestMemo
from scripts.llm_batch.errors import WorkflowError, run_cli
from scripts.llm_batch.hub.datasets import CARD, choose_splits
from scripts.llm_batch.hub.models import known_files
from scripts.llm_batch.hub.problems import explained, quiet_client
from scripts.llm_batch.hub.source import Source


def build_parser() -> argparse.ArgumentParser:
    """Return the command line of this program."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--identity", required=True, type=json.loads, help="JSON of the identity")
    parser.add_argument("--output", required=True, type=Path, help="manifest.json to write")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Fetch, check and link the files; 0 on success."""
    arguments = build_parser().parse_args(argv)
    quiet_client()
    folder: Path = arguments.output.parent
    identity: dict[str, Any] = arguments.identity
    memo = DigestMemo(folder.parent.parent / MEMO)
    source = pinned_source(identity["dataset"], identity.get("revision"), "dataset")
    with explained(source):
        files = known_files(source)
        card = read_card(source) if CARD in files else {}
    try:
        splits = choose_splits(
            files, card, identity.get("config"), identity.get("splits"), identity.get("files")
        )
    except WorkflowError as error:
        raise WorkflowError(f"{source}: {error}") from None
    names = sorted({name for paths in splits.values() for name in paths})
    described = link_files(folder / "snapshot", source, [files[name] for name in names], memo)
    memo.save()
    write_identity(folder, "datasets", identity)
    write_json_atomic(folder / DATA_SET, {**described, "splits": splits})
    write_manifest(folder, [folder / DATA_SET], {})
    return 0


def read_card(source: Source) -> dict[str, Any]:
    """Return the metadata that a data set's README begins with, empty without any."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.repocard import metadata_load

    path = hf_hub_download(source.repo, CARD, repo_type=source.kind, revision=source.revision)
    try:
        return metadata_load(path) or {}
    except ValueError:
        return {}


if __name__ == "__main__":
    run_cli(main)
