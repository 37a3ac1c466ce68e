"""Make an adapter's stage folder: its two files, checked, and a link to them."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from scripts.fetch_model import check_files, link
from scripts.llm_batch.adapters import WEIGHTS, adapter_rank, tensor_shapes
from scripts.llm_batch.addresses import write_identity, write_json_atomic, write_manifest
from scripts.llm_batch.errors import run_cli


def build_parser() -> argparse.ArgumentParser:
    """Return the command line of this program."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--identity", required=True, type=json.loads, help="JSON of the identity")
    parser.add_argument("--path", required=True, type=Path, help="the local adapter folder")
    parser.add_argument("--output", required=True, type=Path, help="manifest.json to write")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Check the adapter's files against the identity and link them; 0 on success."""
    arguments = build_parser().parse_args(argv)
    folder: Path = arguments.output.parent
    files: dict[str, str] = arguments.identity["files"]
    check_files(arguments.path, files)
    rank = adapter_rank(arguments.path)
    tensors = tensor_shapes(arguments.path / WEIGHTS)
    write_identity(folder, "adapters", arguments.identity)
    link(folder / "snapshot", arguments.path)
    adapter = {
        "source": str(arguments.path),
        "rank": rank,
        "tensors": len(tensors),
        "files": [
            {"path": name, "bytes": (arguments.path / name).stat().st_size, "sha256": digest}
            for name, digest in sorted(files.items())
        ],
    }
    write_json_atomic(folder / "adapter.json", adapter)
    write_manifest(folder, [folder / "adapter.json"], {})
    return 0


if __name__ == "__main__":
    run_cli(main)
