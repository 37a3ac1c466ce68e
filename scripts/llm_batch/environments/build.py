"""Build one engine's environment from its lock, so that it is whole or not there at all.

It is built in a folder beside its place, checked package by package, and renamed. A virtual
environment made with `--relocatable` finds itself by its own path, so it works after the rename
and when the whole project is moved.
"""

from __future__ import annotations

import importlib.metadata
import logging
import os
import platform
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from scripts.llm_batch.addresses import read_json, write_identity, write_json_atomic, write_manifest
from scripts.llm_batch.environments.checks import (
    MACHINES,
    Installed,
    check_machine,
    find_python,
    probe,
    verify,
)
from scripts.llm_batch.environments.identity import (
    EnvironmentSpec,
    canonical_name,
    environment_identity,
    load_spec,
    lock_path,
    locked_packages,
    pin_path,
    requirement_blocks,
)
from scripts.llm_batch.environments.pip_settings import find_links_arguments, uv_arguments
from scripts.llm_batch.environments.uv_calls import UvError, run_uv, user_settings
from scripts.llm_batch.errors import WorkflowError

_BUILDING = ".building-"


def build_environment(identity: Mapping[str, Any], envs_dir: Path, folder: Path) -> None:
    """Make `folder` the environment of `identity`; at once if it is already there.

    One process builds, others wait for it. Raises `WorkflowError`; then `folder` holds no
    manifest, and nothing is left beside it but an empty lock file.
    """
    name = str(identity["name"])
    conda = pin_path(name, envs_dir).name in identity["lock_sha256"]
    if environment_identity(name, envs_dir, conda) != dict(identity):
        raise WorkflowError(
            f"{lock_path(name, envs_dir)}: changed since the workflow was planned; run it again"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with building_lock(folder):
        if is_finished(folder, identity):
            logging.info("%s: built already", folder)
            return
        remove_leftovers(folder)
        spec = load_spec(name, envs_dir)
        check_machine(spec, folder.parent)
        if conda:
            raise WorkflowError(
                f"{pin_path(name, envs_dir)}: conda layers cannot be built yet; set conda: false "
                f"for {name} in the section environments of the config"
            )
        with staging(folder) as staged:
            fill(staged, spec, lock_path(name, envs_dir), identity)
            put_in_place(staged, folder)
    logging.info("%s: built", folder)


def is_finished(folder: Path, identity: Mapping[str, Any]) -> bool:
    """Whether a whole environment of this identity lies in `folder`."""
    if not ((folder / "manifest.json").is_file() and (folder / "identity.json").is_file()):
        return False
    return bool(read_json(folder / "identity.json").get("identity") == dict(identity))


@contextmanager
def building_lock(folder: Path) -> Iterator[None]:
    """Hold the lock of `folder`; the kernel releases it when its holder dies."""
    path = _lock_file(folder)
    lock = FileLock(path)
    try:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            logging.info("%s: being built by another process; waiting for it", folder)
            lock.acquire()
    except (OSError, NotImplementedError) as error:
        raise WorkflowError(
            f"{path}: cannot be locked ({error}); put the project on a disk with file locks"
        ) from None
    try:
        yield
    finally:
        lock.release()


def _lock_file(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.lock")


def remove_leftovers(folder: Path) -> None:
    """Remove what killed builders left beside `folder`; the caller holds its lock."""
    for leftover in folder.parent.glob(f".*{_BUILDING}*"):
        other = leftover.with_name(leftover.name[1:].rpartition(_BUILDING)[0])
        lock = FileLock(_lock_file(other))
        try:
            if other.name != folder.name:
                # Somebody who is alive and builds there holds this lock.
                lock.acquire(timeout=0)
            logging.info("%s: left by a builder that was killed; removed", leftover)
            shutil.rmtree(leftover, ignore_errors=True)
        except Timeout:
            continue
        finally:
            lock.release()


@contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """Yield a new folder of the same name below a hidden sibling, which goes in the end."""
    hidden = folder.with_name(f".{folder.name}{_BUILDING}{os.getpid()}")
    staged = hidden / folder.name
    staged.mkdir(parents=True)
    try:
        yield staged
    finally:
        shutil.rmtree(hidden, ignore_errors=True)


def put_in_place(staged: Path, folder: Path) -> None:
    """Rename `staged` to `folder`; what lay there unfinished goes with the staging folder."""
    if folder.exists():
        folder.rename(staged.with_name("replaced"))
    staged.rename(folder)


def fill(staged: Path, spec: EnvironmentSpec, lock: Path, identity: Mapping[str, Any]) -> None:
    """Install and check everything in `staged`, and describe it; the manifest comes last."""
    locked = locked_packages(lock)
    scratch = staged.with_name("scratch")
    scratch.mkdir()
    started = time.monotonic()
    create(staged, spec)
    install(staged / "bin/python", spec, lock, scratch)
    installed_at = time.monotonic()
    installed = probe(staged / "bin/python", spec.name, list(spec.imports), scratch)
    verify(spec, locked, installed)
    seconds = {
        "install": round(installed_at - started, 1),
        "check": round(time.monotonic() - installed_at, 1),
    }
    write_identity(staged, "environments", identity)
    record = environment_record(spec.name, installed, seconds, size_on_disk(staged))
    write_json_atomic(staged / "environment.json", record)
    files = [staged / "identity.json", staged / "environment.json", staged / "pyvenv.cfg"]
    write_manifest(staged, files, {"packages": len(locked), "seconds": seconds})


def create(staged: Path, spec: EnvironmentSpec) -> None:
    """Make an empty virtual environment: no pip, no setuptools."""
    options = ["--relocatable", "--no-project", "--allow-existing", "--python"]
    run_uv(
        ["venv", *options, find_python(spec.python), str(staged.absolute())],
        f"environment {spec.name} needs Python {spec.python}",
    )


def install(python: Path, spec: EnvironmentSpec, lock: Path, scratch: Path) -> None:
    """Install the lock: first what has an index of its own, then the rest."""
    owner = {canonical_name(p): url for url, names in spec.indexes.items() for p in names}
    parts: dict[str, list[str]] = {url: [] for url in spec.indexes}
    rest: list[str] = []
    for block in requirement_blocks(lock.read_text(encoding="utf-8")):
        url = owner.get(canonical_name(block.split("==")[0].strip()))
        (parts[url] if url else rest).append(block)
    for number, (url, blocks) in enumerate(parts.items()):
        file = scratch / f"{number}.requirements.txt"
        file.write_text("\n".join(blocks) + "\n", encoding="utf-8")
        if blocks:
            install_from_index(python, spec, file, url)
    file = scratch / "requirements.txt"
    file.write_text("\n".join(rest) + "\n", encoding="utf-8")
    if rest:
        install_from_usual_places(python, spec, file)


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


def install_from_index(python: Path, spec: EnvironmentSpec, file: Path, url: str) -> None:
    """Install what the usual index lacks from the first place that has it.

    The user's folders come before the user's indexes and these before `url`: a machine that
    cannot reach `url` never asks it for what lies in a folder.
    """
    settings = user_settings()
    folders = find_links_arguments(settings, os.environ)
    usual = uv_arguments(settings, os.environ)
    attempts = {}
    if folders or os.environ.get("UV_FIND_LINKS"):
        attempts["find-links"] = ["--no-index", *folders]
    if settings.no_index or settings.index_url or settings.extra_index_urls:
        attempts["the usual places"] = usual
    if not settings.no_index:
        hosts = [
            word for host in settings.trusted_hosts for word in ("--allow-insecure-host", host)
        ]
        attempts[url] = ["--default-index", url, *hosts]
    failures = []
    for place, arguments in attempts.items():
        try:
            run_uv(_pip_install(python, spec, file, arguments), place)
            return
        except UvError as error:
            failures.append(str(error))
    names = ", ".join(locked_packages(file))
    raise UvError(
        f"environment {spec.name}: {names}: {'; '.join(failures) or 'no place to look in'}; "
        "or put the wheel into a folder and name that (PIP_FIND_LINKS=FOLDER)"
    )


def _pip_install(
    python: Path, spec: EnvironmentSpec, file: Path, arguments: list[str]
) -> list[str]:
    options = ["--require-hashes", "--no-deps", "--only-binary", ":all:", "--no-progress"]
    # A newer machine would take newer wheels, which are not those of the lock.
    options += ["--python-platform", spec.wheel_platform]
    place = ["--python", str(python.absolute()), "--requirements", str(file)]
    return ["pip", "install", *options, *arguments, *place]


def size_on_disk(folder: Path) -> int:
    """Return the bytes of all files in `folder`."""
    return sum(
        path.lstat().st_size for path in folder.rglob("*") if path.is_symlink() or path.is_file()
    )


def environment_record(
    name: str, installed: Installed, seconds: Mapping[str, float], size: int
) -> dict[str, Any]:
    """Return what environment.json says: every package, the main versions, how it was made."""
    return {
        "environment": name,
        "platform": MACHINES.get((sys.platform, platform.machine())),
        "python": {
            "version": installed.python,
            "implementation": installed.implementation,
            "base": installed.base,
        },
        "glibc": platform.libc_ver()[1],
        "packages": dict(sorted(installed.packages.items())),
        "vllm": installed.versions.get("vllm"),
        "torch": installed.versions.get("torch"),
        "cuda": installed.cuda,
        "built_with": {"uv": importlib.metadata.version("uv")},
        "seconds": dict(seconds),
        "bytes": size,
    }
