"""Make the locks in envs/ from their sources: `make lock`.

    python -m scripts.lock_environment                       all of them, but no conda layer
    python -m scripts.lock_environment cu130                 one, with its conda layer
    python -m scripts.lock_environment cu130 --download DIR  load its files, to build offline

`workflow` and `development` are resolved for Python 3.11 to 3.13 on every platform. An engine's
environment is resolved for the one platform in `<name>.yaml`; its lock names for each package the
one wheel that is taken, so that the same bytes are installed everywhere.
Versions that satisfy the sources stay as they are; edit a source to move one, or say --fresh.
"""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from scripts.llm_batch.addresses import write_text_atomic
from scripts.llm_batch.environments.conda_settings import read_conda_settings
from scripts.llm_batch.environments.download import download
from scripts.llm_batch.environments.identity import (
    NOT_ENGINES,
    TOOLS,
    environment_names,
    load_spec,
    lock_path,
    requirement_blocks,
)
from scripts.llm_batch.environments.lock_conda import lock_conda
from scripts.llm_batch.environments.lock_wheels import lock_anywhere, lock_wheels
from scripts.llm_batch.errors import WorkflowError, run_cli

COMMAND = "make lock"
PYTHON = "3.11"

CONDA_HEADER = f"""\
# The workflow's own environment for conda, the same packages as in workflow.requirements.txt.
# Made by `{COMMAND}`. The hashes stand here, not in a file beside it, because Snakemake copies
# this file before it calls conda.
name: llm-batch-inference
channels:
  - conda-forge
  - nodefaults
dependencies:
  - python={PYTHON}.*
  - pip
  - pip:
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the command line of this program."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--environments-dir", type=Path, default=Path("envs"), help="envs/")
    parser.add_argument("--fresh", action="store_true", help="forget the versions of the lock")
    parser.add_argument("--wheels-only", action="store_true", help="leave the conda layer as it is")
    parser.add_argument("--download", type=Path, metavar="DIR", help="load the files of the lock")
    parser.add_argument("names", nargs="*", help="which locks to make; all if none is named")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Make the locks, or load what they name; 0 on success."""
    arguments = build_parser().parse_args(argv)
    envs: Path = arguments.environments_dir.absolute()
    if arguments.download and not arguments.names:
        raise WorkflowError("--download: say which environment, for example cu130")
    every = ["workflow", "development", *environment_names(envs), *sorted(TOOLS)]
    for name in arguments.names or every:
        if arguments.download:
            download(load_spec(name, envs), envs, arguments.download)
        elif name in NOT_ENGINES:
            logging.info("locking %s", name)
            lock_universal(name, envs)
        else:
            logging.info("locking %s", name)
            # Channels cannot be reached everywhere; all locks at once is for the wheels.
            conda = bool(arguments.names) and not arguments.wheels_only
            lock_engine(name, envs, arguments.fresh, conda)
    return 0


def lock_universal(name: str, envs: Path) -> None:
    """Resolve `<name>.in`; for the workflow make the file for conda, too."""
    lock = lock_path(name, envs)
    lock_anywhere(lock, envs / f"{name}.in", COMMAND, PYTHON)
    if name == "workflow":
        write_text_atomic(envs / "workflow.yaml", conda_file(lock.read_text(encoding="utf-8")))


def conda_file(lock: str) -> str:
    """Return a lock's requirements as the pip section of a conda environment."""
    items = []
    for block in requirement_blocks(lock):
        requirement, *hashes = block.split(" --hash=")
        lines = [requirement, *(f"--hash={value}" for value in hashes)]
        items.append("      - >-\n" + "".join(f"        {line.strip()}\n" for line in lines))
    return CONDA_HEADER + "".join(items)


def lock_engine(name: str, envs: Path, fresh: bool, conda: bool) -> None:
    """Lock the wheels of an environment and, if its description has specs, its conda layer."""
    lock_path(name, envs).touch()
    if not (envs / f"{name}.yaml").is_file():
        raise WorkflowError(f"{envs / name}.yaml: missing; describe the environment {name} first")
    spec = load_spec(name, envs)
    lock_wheels(spec, envs, COMMAND, fresh)
    if conda and spec.conda.specs:
        command = f"python -m scripts.lock_environment {name}"
        lock_conda(spec, envs, read_conda_settings(os.environ), command)


if __name__ == "__main__":
    run_cli(main)
