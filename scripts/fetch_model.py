"""Make a model's stage folder: which files it consists of, checked, and a link to them."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path

from scripts.llm_batch.addresses import (
    file_sha256,
    write_identity,
    write_json_atomic,
    write_manifest,
)
from scripts.llm_batch.errors import WorkflowError, run_cli


def build_parser() -> argparse.ArgumentParser:
    """Return the command line of this program."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--identity", required=True, type=json.loads, help="JSON of the identity")
    parser.add_argument("--path", required=True, type=Path, help="the local model folder")
    parser.add_argument("--output", required=True, type=Path, help="manifest.json to write")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Check the model's files against the identity and link them; 0 on success."""
    arguments = build_parser().parse_args(argv)
    folder: Path = arguments.output.parent
    files: dict[str, str] = arguments.identity["files"]
    check_files(arguments.path, files)
    write_identity(folder, "models", arguments.identity)
    link(folder / "snapshot", arguments.path)
    listing = [
        {"path": name, "bytes": (arguments.path / name).stat().st_size, "sha256": digest}
        for name, digest in sorted(files.items())
    ]
    model = {"source": str(arguments.path), "files": listing}
    write_json_atomic(folder / "model.json", model)
    write_manifest(folder, [folder / "model.json"], {})
    return 0


def check_files(source: Path, files: dict[str, str]) -> None:
    """Raise `WorkflowError` if a file of the model is not what the plan saw."""
    for name, expected in files.items():
        path = source / name
        if not path.is_file():
            raise WorkflowError(f"{path}: gone since the workflow was planned; run it again")
        found = file_sha256(path)
        if found != expected:
            raise WorkflowError(
                f"{path}: changed since the workflow was planned (sha256 {found[:12]}…, expected "
                f"{expected[:12]}…); run it again, the changed model gets an address of its own"
            )


def link(path: Path, target: Path) -> None:
    """Point `path` at `target`, relatively, so that both can be moved together."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(os.path.relpath(target.resolve(), path.parent.resolve()))
    temporary.replace(path)


if __name__ == "__main__":
    run_cli(main)
