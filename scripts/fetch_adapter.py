"""Make an adapter's stage folder: its two files, fetched and checked, and a link to them."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts.fetch_model import MEMO, check_files, link, link_hub_model
from scripts.llm_batch.addresses import write_identity, write_json_atomic, write_manifest
from scripts.llm_batch.digests import DigestMemo
from scripts.llm_batch.errors import run_cli
from scripts.llm_batch.hub.models import Wanted
from scripts.llm_batch.hub.problems import quiet_client
from scripts.llm_batch.models.adapters import SETTINGS, WEIGHTS, adapter_rank, tensor_shapes


def build_parser() -> argparse.ArgumentParser:
    """Return the command line of this program."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--identity", required=True, type=json.loads, help="JSON of the identity")
    parser.add_argument("--path", type=Path, help="the local adapter folder; without it, the hub")
    parser.add_argument("--output", required=True, type=Path, help="manifest.json to write")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Fetch or check the adapter and link it; 0 on success."""
    arguments = build_parser().parse_args(argv)
    folder: Path = arguments.output.parent
    identity: dict[str, Any] = arguments.identity
    snapshot = folder / "snapshot"
    memo = DigestMemo(folder.parent.parent / MEMO)
    if "repo" in identity:
        quiet_client()
        adapter = link_hub_model(snapshot, identity, Wanted([SETTINGS, WEIGHTS]), memo)
    else:
        adapter = link_local_adapter(snapshot, arguments.path, identity["files"], memo)
    memo.save()
    adapter["rank"] = adapter_rank(snapshot)
    adapter["tensors"] = len(tensor_shapes(snapshot / WEIGHTS))
    write_identity(folder, "adapters", identity)
    write_json_atomic(folder / "adapter.json", adapter)
    write_manifest(folder, [folder / "adapter.json"], {})
    return 0


def link_local_adapter(
    snapshot: Path, path: Path, files: Mapping[str, str], memo: DigestMemo
) -> dict[str, Any]:
    """Check a local adapter against the digests of the plan, link it and tell its files."""
    check_files(path, files, memo)
    link(snapshot, path)
    listing = [
        {"path": name, "bytes": (path / name).stat().st_size, "sha256": digest}
        for name, digest in sorted(files.items())
    ]
    return {"source": str(path), "files": listing}


if __name__ == "__main__":
    run_cli(main)
