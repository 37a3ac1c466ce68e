"""The lock of an environment's wheels: which versions, and for each the one file that is taken.

uv resolves; what it finds depends on `<name>.in`, on the description and, without a date in it, on
the day. Versions of the lock that still fit stay as they are.
"""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from packaging import tags
from packaging.utils import parse_wheel_filename
from uv import find_uv_bin

from scripts.llm_batch.addresses import write_text_atomic
from scripts.llm_batch.environments.identity import (
    EnvironmentSpec,
    canonical_name,
    lock_path,
    requirement_blocks,
)
from scripts.llm_batch.environments.pip_settings import (
    read_pip_settings,
    uv_arguments,
    uv_variables,
)
from scripts.llm_batch.errors import WorkflowError

LEGACY = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
"""Old names of platforms, by the version of the C library."""


def lock_wheels(spec: EnvironmentSpec, envs: Path, command: str, fresh: bool = False) -> None:
    """Write `<name>.requirements.txt`; `fresh` forgets the versions that it has.

    Raises `WorkflowError` if the requirements cannot be met, or a package has no wheel that fits.
    """
    lock = lock_path(spec.name, envs)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / f"{spec.name}.in"
        text = (envs / f"{spec.name}.in").read_text(encoding="utf-8")
        source.write_text(with_addresses(text, spec), encoding="utf-8")
        if spec.lock.dependencies:
            source = resolve(spec, source, None if fresh else lock)
        packages = found_wheels(spec, source)
    order = wheel_order(spec)
    lines = [
        f"# Made by `{command}` from {spec.name}.in: "
        "for each package the one wheel that is installed",
        f"# on {spec.platform} with Python {spec.python}.",
    ]
    for package in sorted(packages, key=lambda package: str(package["name"])):
        version, sha256 = chosen_file(package, order)
        lines += [f"{package['name']}=={version} \\", f"    --hash=sha256:{sha256}"]
    write_text_atomic(lock, "\n".join(lines) + "\n")


def with_addresses(text: str, spec: EnvironmentSpec) -> str:
    """Return requirements in which packages that no index has stand with their address."""
    lines = []
    for line in text.splitlines():
        name = canonical_name(re.split(r"[=<>~! \[]", line.strip(), maxsplit=1)[0])
        url = next((u for p, u in spec.files.items() if canonical_name(p) == name), None)
        lines.append(f"{name} @ {url}" if url else line)
    return "\n".join(lines) + "\n"


def resolve(spec: EnvironmentSpec, source: Path, known: Path | None) -> Path:
    """Return a file that names every package that `source` needs, in its exact version."""
    output = source.with_suffix(".txt")
    if known is not None:
        write_pins(known, output)
    options = ["--no-header", "--no-annotate"]
    if spec.lock.newest:
        options += ["--exclude-newer", spec.lock.newest]
        # Of these the index may not say when they came.
        for package in [p for names in spec.indexes.values() for p in names]:
            options += ["--exclude-newer-package", f"{package}=false"]
    if spec.lock.excludes:
        excludes = source.with_name("excludes.txt")
        excludes.write_text("\n".join(spec.lock.excludes) + "\n", encoding="utf-8")
        options += ["--excludes", str(excludes)]
    compile_for(spec, options, source, output)
    return output


def write_pins(lock: Path, output: Path) -> None:
    """Write the versions of a lock to where uv finds them and keeps them.

    Not its hashes: uv would keep these, too, and look for no other.
    """
    if lock.is_file():
        pins = [block.split(" --hash")[0] for block in requirement_blocks(lock.read_text("utf-8"))]
        output.write_text("\n".join(pins) + "\n", encoding="utf-8")


def lock_anywhere(lock: Path, source: Path, command: str, python: str) -> None:
    """Write the lock of `source` for every platform, with the hashes of all files of a version."""
    options = ["--universal", "--generate-hashes", "--no-annotate"]
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / lock.name
        write_pins(lock, output)
        place = ["--custom-compile-command", command, "--output-file", str(output), source.name]
        compile_first([(True, options), (False, options)], source.parent, place, python)
        write_text_atomic(lock, output.read_text(encoding="utf-8"))


def found_wheels(spec: EnvironmentSpec, source: Path) -> list[dict[str, Any]]:
    """Return each package of `source` with the files that fit the platform, as uv finds them."""
    output = source.with_name("pylock.toml")
    compile_for(spec, ["--no-deps", "--format", "pylock.toml"], source, output)
    with output.open("rb") as stream:
        packages: list[dict[str, Any]] = tomllib.load(stream)["packages"]
    return packages


def compile_for(spec: EnvironmentSpec, options: list[str], source: Path, output: Path) -> None:
    """Call uv for the platform of `spec`, with more places to look in at each failure.

    The usual index comes first, alone: an index that mirrors a few files of a package hides its
    others. Then the user's extra indexes, then the environment's own.
    """
    platform = ["--only-binary", ":all:", "--python-platform", spec.wheel_platform, *options]
    place = ["--output-file", str(output), str(source)]
    extra = [word for url in spec.indexes for word in ("--index", url)]
    attempts = [(True, platform), (False, platform), (False, [*platform, *extra])]
    compile_first(attempts, source.parent, place, spec.python)


def compile_first(
    attempts: Sequence[tuple[bool, list[str]]], folder: Path, place: Sequence[str], python: str
) -> None:
    """Call uv with one way to look after the other, until one works.

    A way: whether the usual index is asked alone, and options. The last one's error is raised.
    """
    for number, (narrow, options) in enumerate(attempts, 1):
        try:
            compile_requirements(folder, options, place, python, narrow)
            return
        except WorkflowError as error:
            if number == len(attempts):
                raise
            logging.info("%s; looking in more places", str(error)[:300])


def wheel_order(spec: EnvironmentSpec) -> list[tags.Tag]:
    """Return the tags that the platform accepts, best first, as installers sort them."""
    major, minor = (int(part) for part in spec.python.split("."))
    platforms = wheel_platforms(spec)

    def accepted() -> Iterator[tags.Tag]:
        yield from tags.cpython_tags((major, minor), platforms=platforms)
        yield from tags.compatible_tags((major, minor), f"cp{major}{minor}", platforms)

    return list(accepted())


def wheel_platforms(spec: EnvironmentSpec) -> list[str]:
    """Return the platforms that wheels of this environment may be for, best first."""
    platforms = []
    for glibc in range(int(spec.manylinux.split(".")[1]), 4, -1):
        platforms.append(f"manylinux_2_{glibc}_x86_64")
        if glibc in LEGACY:
            platforms.append(f"{LEGACY[glibc]}_x86_64")
    return [*platforms, "linux_x86_64"]


def chosen_file(package: dict[str, Any], order: list[tags.Tag]) -> tuple[str, str]:
    """Return the version of a package and the sha256 of the file that is taken."""
    if "archive" in package:
        archive = package["archive"]
        place = str(archive.get("url") or archive["path"])
        file = place.partition("#")[0].rsplit("/", 1)[-1].replace("%2B", "+")
        return str(parse_wheel_filename(file)[1]), str(archive["hashes"]["sha256"])
    return str(package["version"]), best_wheel_sha256(package, order)


def best_wheel_sha256(package: dict[str, Any], order: list[tags.Tag]) -> str:
    """Return the sha256 of the wheel whose tag comes first in `order`."""
    ranks = {tag: rank for rank, tag in enumerate(order)}
    ranked = []
    for wheel in package.get("wheels", []):
        file_name = wheel.get("name") or str(wheel["url"]).rsplit("/", 1)[-1]
        _, _, _, wheel_tags = parse_wheel_filename(file_name.replace("%2B", "+"))
        rank = min((ranks[tag] for tag in wheel_tags if tag in ranks), default=None)
        if rank is not None:
            ranked.append((rank, str(wheel["hashes"]["sha256"])))
    if not ranked:
        raise WorkflowError(
            f"{package['name']} {package['version']}: no wheel fits; choose another version"
        )
    return min(ranked)[1]


def compile_requirements(
    folder: Path, options: Sequence[str], place: Sequence[str], python: str, narrow: bool = False
) -> None:
    """Call `uv pip compile` in `folder` with the user's pip settings; `narrow`: one index only."""
    settings = read_pip_settings(os.environ, Path(sys.prefix))
    if narrow:
        settings = replace(settings, extra_index_urls=())
    command = [find_uv_bin(), "pip", "compile", "--quiet", "--python-version", python]
    result = subprocess.run(
        [*command, *uv_arguments(settings, os.environ), *options, *place],
        cwd=folder,
        env={**os.environ, **uv_variables(settings, os.environ)},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        check=False,
    )
    if result.returncode:
        name = Path(place[-1]).name
        raise WorkflowError(f"{name} cannot be locked: {' '.join(result.stderr.split())}")
