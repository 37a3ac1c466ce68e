"""The wheels of an environment: every file by its hash, from wherever the user's pip looks."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path

from scripts.llm_batch.environments.identity import (
    EnvironmentSpec,
    canonical_name,
    locked_packages,
    requirement_blocks,
)
from scripts.llm_batch.environments.pip_settings import (
    PipSettings,
    find_links_arguments,
    uv_arguments,
)
from scripts.llm_batch.environments.uv_calls import UvError, run_uv, user_settings

USUAL = "the usual places"


def install_wheels(
    python: Path, spec: EnvironmentSpec, lock: Path, scratch: Path, wheelhouse: Path | None = None
) -> None:
    """Install the lock: first what the usual index lacks, then the rest.

    With `wheelhouse` nothing is looked for but in that folder. Raises `UvError`.
    """
    own = {canonical_name(p): url for url, names in spec.indexes.items() for p in names}
    own |= {canonical_name(package): url for package, url in spec.files.items()}
    parts: dict[str, list[str]] = {"": []}
    for block in requirement_blocks(lock.read_text(encoding="utf-8")):
        url = own.get(canonical_name(block.split("==")[0].strip()), "")
        parts.setdefault("" if wheelhouse else url, []).append(block)
    usual = parts.pop("")
    for number, (url, blocks) in enumerate(parts.items()):
        install_from_elsewhere(python, spec, _write(scratch, f"{number}", blocks), url)
    if usual and wheelhouse:
        file = _write(scratch, "all", usual)
        install_from_folder(python, spec, file, wheelhouse)
    elif usual:
        install_from_usual_places(python, spec, _write(scratch, "usual", usual))


def _write(scratch: Path, name: str, blocks: list[str]) -> Path:
    file = scratch / f"{name}.requirements.txt"
    file.write_text("\n".join(blocks) + "\n", encoding="utf-8")
    return file


def install_from_folder(python: Path, spec: EnvironmentSpec, file: Path, folder: Path) -> None:
    """Install from the wheels in `folder`, without a network."""
    places = ["--no-index", "--offline", "--find-links", str(folder.absolute())]
    run_uv(_pip_install(python, spec, file, places), f"environment {spec.name}, from {folder}")


def install_from_usual_places(python: Path, spec: EnvironmentSpec, file: Path) -> None:
    """Install from where the user's pip looks; if that fails, once more without extra indexes.

    An extra index that mirrors a few wheels of a package hides the others of the same version: uv
    then downloads one that the lock does not name.
    """
    settings = user_settings()
    narrow = replace(settings, extra_index_urls=())
    doing = f"environment {spec.name}"
    try:
        run_uv(_pip_install(python, spec, file, uv_arguments(settings, os.environ)), doing)
    except UvError as error:
        if narrow == settings:
            raise
        logging.info("%s; once more without the extra indexes", error)
        run_uv(_pip_install(python, spec, file, uv_arguments(narrow, os.environ)), doing)


def install_from_elsewhere(python: Path, spec: EnvironmentSpec, file: Path, url: str) -> None:
    """Install what the usual index lacks from the first place that has it.

    The user's folders come before the user's indexes and these before `url`, an index or a wheel:
    a machine that cannot reach `url` never asks it for what lies in a folder.
    """
    failures = []
    for place, (requirements, arguments) in _attempts(file, url).items():
        try:
            run_uv(_pip_install(python, spec, requirements, arguments), place)
            return
        except UvError as error:
            failures.append(str(error))
    names = ", ".join(locked_packages(file))
    raise UvError(
        f"environment {spec.name}: {names}: {'; '.join(failures) or 'no place to look in'}; "
        "or put the wheel into a folder and name that (PIP_FIND_LINKS=FOLDER)"
    )


def _attempts(file: Path, url: str) -> dict[str, tuple[Path, list[str]]]:
    """Return for each place to try, by its name, the requirements and uv's options."""
    settings = user_settings()
    folders = find_links_arguments(settings, os.environ)
    attempts = {}
    if folders or os.environ.get("UV_FIND_LINKS"):
        attempts["find-links"] = (file, ["--no-index", *folders])
    if settings.no_index or settings.index_url or settings.extra_index_urls:
        attempts[USUAL] = (file, uv_arguments(settings, os.environ))
    if not settings.no_index:
        attempts[url] = _at(file, url, settings)
    return attempts


def _at(file: Path, url: str, settings: PipSettings) -> tuple[Path, list[str]]:
    hosts = [word for host in settings.trusted_hosts for word in ("--allow-insecure-host", host)]
    if not url.endswith(".whl"):
        return file, ["--default-index", url, *hosts]
    (block,) = requirement_blocks(file.read_text(encoding="utf-8"))
    name, _, rest = block.partition("==")
    direct = file.with_suffix(".url.txt")
    hashes = rest.partition(" ")[2]
    direct.write_text(f"{name.strip()} @ {url} {hashes}\n", encoding="utf-8")
    return direct, hosts


def _pip_install(
    python: Path, spec: EnvironmentSpec, file: Path, arguments: list[str]
) -> list[str]:
    options = ["--require-hashes", "--no-deps", "--only-binary", ":all:", "--no-progress"]
    # A newer machine would take newer wheels, which are not those of the lock.
    options += ["--python-platform", spec.wheel_platform]
    place = ["--python", str(python.absolute()), "--requirements", str(file)]
    return ["pip", "install", *options, *arguments, *place]
