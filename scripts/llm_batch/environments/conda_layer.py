"""The conda layer of an environment: Python, a compiler and nvcc, put in place without conda.

Conda packages hold the path of the folder that they are installed in. They are installed into a
hidden folder with the final path written into them, so the rename makes them right.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts.llm_batch.addresses import write_json_atomic
from scripts.llm_batch.environments.apart import apart
from scripts.llm_batch.environments.archives import obtain
from scripts.llm_batch.environments.conda_pins import CondaPin
from scripts.llm_batch.environments.conda_settings import CondaSettings
from scripts.llm_batch.errors import WorkflowError

PLAIN_NAMES: Mapping[str, str] = {"gcc": "cc", "g++": "c++"}
"""conda calls its compiler `x86_64-conda-linux-gnu-gcc`; Triton, torch and nvcc look for gcc."""


def install_conda_layer(
    staged: Path,
    final: Path,
    pins: Sequence[CondaPin],
    settings: CondaSettings,
    wheelhouse: Path | None = None,
) -> None:
    """Install the archives of `pins` into `staged` as if it lay at `final`.

    Both are absolute. Raises `WorkflowError` if an archive is missing, changed, or no package.
    """
    archives = obtain(pins, staged.with_name("archives"), settings, wheelhouse)
    logging.info("linking %d conda packages", len(archives))
    try:
        apart(_install, staged, final, list(zip(pins, archives, strict=True)))
    except WorkflowError as error:
        raise WorkflowError(
            f"{final}: the conda layer cannot be put in place: {error}; "
            "if the path is too long, put the project elsewhere"
        ) from None
    describe_origin(staged, pins)
    add_plain_names(staged / "bin")


def _install(staged: Path, final: Path, archives: Sequence[tuple[CondaPin, Path]]) -> None:
    import rattler

    records = [_record(pin, archive) for pin, archive in archives]
    asyncio.run(
        rattler.install(
            records,
            target_prefix=staged,
            # Beside it, so that files are linked and not copied, and gone with it.
            cache_dir=staged.with_name("extracted"),
            alternative_target_prefix=final,
            execute_link_scripts=False,
            show_progress=False,
        )
    )


def _record(pin: CondaPin, archive: Path) -> Any:
    """Return rattler's record of an archive, made from what the archive says of itself."""
    import rattler
    from rattler.package import IndexJson

    index = IndexJson.from_package_archive(archive)
    said = (index.name.normalized, str(index.version), str(index.build))
    if said != pin.distribution:
        raise WorkflowError(f"{pin.file} says that it is {'-'.join(said)}")
    record = rattler.PackageRecord(
        name=index.name,
        version=str(index.version),
        build=index.build,
        build_number=index.build_number,
        subdir=pin.subdir,
        noarch=index.noarch,
        depends=index.depends,
        constrains=index.constrains,
        sha256=bytes.fromhex(pin.sha256),
        size=archive.stat().st_size,
        license=index.license,
        python_site_packages_path=index.python_site_packages_path,
    )
    return rattler.RepoDataRecord(record, pin.file, archive.as_uri(), pin.base)


def describe_origin(prefix: Path, pins: Sequence[CondaPin]) -> None:
    """Let conda's records name the channel instead of the folder that was installed from."""
    for pin in pins:
        path = prefix / "conda-meta" / f"{'-'.join(pin.distribution)}.json"
        record = json.loads(path.read_text(encoding="utf-8"))
        record.update(url=pin.url, channel=pin.base, fn=pin.file)
        record.pop("extracted_package_dir", None)
        record.pop("link", None)
        write_json_atomic(path, record)


def add_plain_names(folder: Path) -> None:
    """Add links `gcc`, `cc`, `g++` and `c++` to conda's compilers, where there are none."""
    for name, other in PLAIN_NAMES.items():
        for compiler in sorted(folder.glob(f"*-conda-linux-gnu-{name}")):
            for link in (folder / name, folder / other):
                if not link.is_symlink() and not link.exists():
                    link.symlink_to(compiler.name)


def conda_packages(prefix: Path) -> dict[str, tuple[str, str, str]]:
    """Return (version, build, sha256) of each conda package in `prefix`, by name."""
    found = {}
    for path in sorted((prefix / "conda-meta").glob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        found[record["name"]] = (record["version"], record["build"], record.get("sha256") or "")
    return found


def verify_conda_layer(prefix: Path, pins: Sequence[CondaPin]) -> None:
    """Raise `WorkflowError` unless exactly the locked packages are there, and all their files."""
    locked = {pin.distribution[0]: (*pin.distribution[1:], pin.sha256) for pin in pins}
    found = conda_packages(prefix)
    problems = [f"{name} is not as locked" for name in locked if found.get(name) != locked[name]]
    problems += [f"{name} is not in the lock" for name in found.keys() - locked.keys()]
    for path in sorted((prefix / "conda-meta").glob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        missing = [name for name in record["files"] if not _is_there(prefix / name)]
        problems += [f"{record['name']}: {name} is missing" for name in missing[:3]]
    if problems:
        raise WorkflowError(f"{prefix}: the conda layer is not what its lock says: {problems[0]}")


def _is_there(path: Path) -> bool:
    return path.is_symlink() or path.exists()
