"""Build an engine's environment from its lock files, or record one that is there already."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from scripts.llm_batch.environments.adopt import record_environment
from scripts.llm_batch.environments.build import build_environment
from scripts.llm_batch.errors import run_cli


def build_parser() -> argparse.ArgumentParser:
    """Return the command line of this program."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--identity", required=True, type=json.loads, help="JSON of the identity")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--environments-dir", type=Path, help="envs/")
    source.add_argument("--python", type=Path, help="an interpreter that is there, to record")
    parser.add_argument("--wheelhouse", type=Path, help="folder to build from, without a network")
    parser.add_argument("--output", required=True, type=Path, help="manifest.json to write")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Build the environment in the folder of `--output`; 0 on success."""
    arguments = build_parser().parse_args(argv)
    folder: Path = arguments.output.parent
    if arguments.python:
        record_environment(arguments.identity, arguments.python, folder)
    else:
        build_environment(
            arguments.identity, arguments.environments_dir, folder, arguments.wheelhouse
        )
    return 0


def _stop(number: int, _frame: FrameType | None) -> None:
    # An exit like any other, so that the unfinished folder is removed.
    sys.exit(128 + number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _stop)
    run_cli(main)
