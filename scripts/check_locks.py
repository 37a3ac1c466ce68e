"""Ask the package index whether every wheel of a lock is there, with that hash.

    python -m scripts.check_locks            every environment in envs/
    python -m scripts.check_locks cu130      one

Nothing is downloaded: the index says which files it has, for the platform of the environment.
Wheels that the usual index does not have (`indexes` and `files` of a description) are counted, not
asked for. Exit code 1 if one is missing.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from scripts.llm_batch.environments.identity import (
    TOOLS,
    EnvironmentSpec,
    canonical_name,
    environment_names,
    load_spec,
    lock_path,
    requirement_blocks,
)
from scripts.llm_batch.environments.lock_wheels import found_wheels
from scripts.llm_batch.errors import run_cli


class Checked(NamedTuple):
    """Wheels of a lock that the index has, that are from elsewhere, and that it lacks."""

    there: list[str]
    elsewhere: list[str]
    missing: list[str]


def build_parser() -> argparse.ArgumentParser:
    """Return the command line of this program."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--environments-dir", type=Path, default=Path("envs"), help="envs/")
    parser.add_argument("names", nargs="*", help="environments; all if none is named")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Print a line for each environment; 0 if the index has every wheel it should."""
    arguments = build_parser().parse_args(argv)
    envs: Path = arguments.environments_dir
    complete = True
    print(f"{'environment':<12} {'there':>6} {'elsewhere':>10} {'missing':>8}")
    for name in arguments.names or [*environment_names(envs), *sorted(TOOLS)]:
        checked = check_lock(load_spec(name, envs), envs)
        counts = f"{len(checked.there):>6} {len(checked.elsewhere):>10} {len(checked.missing):>8}"
        print(f"{name:<12} {counts}  {', '.join(checked.missing)}".rstrip(), flush=True)
        complete = complete and not checked.missing
    return 0 if complete else 1


def check_lock(spec: EnvironmentSpec, envs: Path) -> Checked:
    """Return which wheels of a lock the index has under their hash."""
    other = {canonical_name(p) for names in spec.indexes.values() for p in names}
    other |= {canonical_name(package) for package in spec.files}
    wanted: dict[str, str] = {}
    elsewhere = []
    for block in requirement_blocks(lock_path(spec.name, envs).read_text(encoding="utf-8")):
        pin, sha256 = re.split(r"\s+--hash=sha256:", block, maxsplit=1)
        if canonical_name(pin.partition("==")[0]) in other:
            elsewhere.append(pin)
        else:
            wanted[pin] = sha256.strip()
    found = known_hashes(spec, list(wanted))
    there = [pin for pin, sha256 in wanted.items() if sha256 in found]
    return Checked(there, elsewhere, [pin for pin in wanted if pin not in there])


def known_hashes(spec: EnvironmentSpec, pins: Sequence[str]) -> set[str]:
    """Return the sha256 of every file that the index has of these versions for the platform."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / f"{spec.name}.txt"
        source.write_text("\n".join(pins) + "\n", encoding="utf-8")
        packages = found_wheels(spec, source)
    wheels = [wheel for package in packages for wheel in package.get("wheels", [])]
    return {str(wheel["hashes"]["sha256"]) for wheel in wheels}


if __name__ == "__main__":
    run_cli(main)
