"""Install a hash-locked requirements file into the running virtual environment with uv.

Used by scripts/setup.sh when nothing but uv is installed, so: standard library and uv only.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from scripts.llm_batch.environments.pip_settings import uv_arguments
from scripts.llm_batch.environments.uv_calls import run_uv, user_settings
from scripts.llm_batch.errors import run_cli

BUILD = "build.constraints.txt"
"""Beside the lock: what may build a package that has no wheel, with hashes, too."""


def build_parser() -> argparse.ArgumentParser:
    """Return the command line of this program."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("requirements", type=Path, help="the lock")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Install; 0 on success."""
    requirements: Path = build_parser().parse_args(argv).requirements
    places = uv_arguments(user_settings(), os.environ)
    options = ["--require-hashes", "--build-constraints", str(requirements.with_name(BUILD))]
    options += ["--no-progress", "--python", sys.executable]
    run_uv(["pip", "install", *options, *places, "--requirements", str(requirements)], "uv")
    return 0


if __name__ == "__main__":
    run_cli(main)
