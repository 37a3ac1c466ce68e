"""Make the locks in envs/ from their sources: `make lock`.

`workflow` and `development` are resolved for Python 3.11 to 3.13 on every platform. An engine's
environment lists all its packages in `<name>.in`; its lock names for each the one wheel that the
platform in `<name>.yaml` takes, so that the same bytes are installed everywhere.
Versions that satisfy the sources stay as they are; edit a source to move one.
"""

from __future__ import annotations

import argparse
import logging
import os
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from packaging import tags
from packaging.utils import parse_wheel_filename
from uv import find_uv_bin

from scripts.llm_batch.addresses import write_text_atomic
from scripts.llm_batch.environments.identity import (
    NOT_ENGINES,
    EnvironmentSpec,
    environment_names,
    load_spec,
    lock_path,
    requirement_blocks,
)
from scripts.llm_batch.environments.pip_settings import (
    read_pip_settings,
    uv_arguments,
    uv_variables,
)
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
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--environments-dir", type=Path, default=Path("envs"), help="envs/")
    parser.add_argument("names", nargs="*", help="which locks to make; all if none is named")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Make the locks; 0 on success."""
    arguments = build_parser().parse_args(argv)
    envs: Path = arguments.environments_dir.absolute()
    engines = sorted(path.stem for path in envs.glob("*.in") if path.stem not in NOT_ENGINES)
    for name in arguments.names or ["workflow", "development", *engines]:
        logging.info("locking %s", name)
        if name in NOT_ENGINES:
            lock_universal(name, envs)
        else:
            lock_engine(name, envs)
    return 0


def lock_universal(name: str, envs: Path) -> None:
    """Resolve `<name>.in`; for the workflow make the file for conda, too."""
    lock = lock_path(name, envs)
    compile_requirements(
        envs,
        ["--universal", "--generate-hashes", "--no-annotate"],
        ["--custom-compile-command", COMMAND, "--output-file", lock.name, f"{name}.in"],
    )
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


def lock_engine(name: str, envs: Path) -> None:
    """Write for each package of `<name>.in` the hash of the wheel that the platform takes."""
    lock = lock_path(name, envs)
    lock.touch()
    if name not in environment_names(envs):
        raise WorkflowError(f"{envs / name}.yaml: missing; describe the environment {name} first")
    spec = load_spec(name, envs)
    packages = resolved_packages(spec, envs)
    lines = [
        f"# Made by `{COMMAND}` from {name}.in: for each package the one wheel that is installed",
        f"# on {spec.platform} with Python {spec.python}.",
    ]
    order = wheel_order(spec)
    for package in packages:
        lines.append(f"{package['name']}=={package['version']} \\")
        lines.append(f"    --hash=sha256:{best_wheel_sha256(package, order)}")
    write_text_atomic(lock, "\n".join(lines) + "\n")


def resolved_packages(spec: EnvironmentSpec, envs: Path) -> list[dict[str, Any]]:
    """Return each package with the wheels that fit the platform, as uv finds them."""
    options = ["--no-deps", "--only-binary", ":all:", "--format", "pylock.toml"]
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "pylock.toml"
        place = [
            "--python-platform",
            spec.wheel_platform,
            "--output-file",
            str(output),
            f"{spec.name}.in",
        ]
        try:
            compile_requirements(envs, options, place, python=spec.python)
        except WorkflowError:
            # A package is in none of the user's places: ask the environment's own indexes, too.
            extra = [word for url in spec.indexes for word in ("--index", url)]
            compile_requirements(envs, [*options, *extra], place, python=spec.python)
        with output.open("rb") as stream:
            packages: list[dict[str, Any]] = tomllib.load(stream)["packages"]
    return packages


def wheel_order(spec: EnvironmentSpec) -> list[tags.Tag]:
    """Return the tags that the platform accepts, best first, as installers sort them."""
    major, minor = (int(part) for part in spec.python.split("."))
    newest = int(spec.manylinux.split(".")[1])
    legacy = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
    platforms = []
    for glibc in range(newest, 4, -1):
        platforms.append(f"manylinux_2_{glibc}_x86_64")
        if glibc in legacy:
            platforms.append(f"{legacy[glibc]}_x86_64")
    platforms.append("linux_x86_64")

    def accepted() -> Iterator[tags.Tag]:
        yield from tags.cpython_tags((major, minor), platforms=platforms)
        yield from tags.compatible_tags((major, minor), f"cp{major}{minor}", platforms)

    return list(accepted())


def best_wheel_sha256(package: dict[str, Any], order: list[tags.Tag]) -> str:
    """Return the sha256 of the wheel whose tag comes first in `order`."""
    ranks = {tag: rank for rank, tag in enumerate(order)}
    ranked = []
    for wheel in package.get("wheels", []):
        file_name = wheel.get("name") or str(wheel["url"]).rsplit("/", 1)[-1]
        _, _, _, wheel_tags = parse_wheel_filename(file_name)
        rank = min((ranks[tag] for tag in wheel_tags if tag in ranks), default=None)
        if rank is not None:
            ranked.append((rank, str(wheel["hashes"]["sha256"])))
    if not ranked:
        raise WorkflowError(
            f"{package['name']} {package['version']}: no wheel fits; choose another version"
        )
    return min(ranked)[1]


def compile_requirements(
    envs: Path, options: list[str], place: list[str], python: str = PYTHON
) -> None:
    """Call `uv pip compile` in `envs` with the user's pip settings."""
    settings = read_pip_settings(os.environ, Path(sys.prefix))
    command = [find_uv_bin(), "pip", "compile", "--quiet", "--python-version", python]
    result = subprocess.run(
        [*command, *uv_arguments(settings, os.environ), *options, *place],
        cwd=envs,
        env={**os.environ, **uv_variables(settings, os.environ)},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        check=False,
    )
    if result.returncode:
        raise WorkflowError(f"{place[-1]} cannot be locked: {' '.join(result.stderr.split())}")


if __name__ == "__main__":
    run_cli(main)
