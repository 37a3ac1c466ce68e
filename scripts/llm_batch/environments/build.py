"""Build one engine's environment from its locks, so that it is whole or not there at all.

It is built in a folder beside its place, checked package by package, and renamed. Without a conda
layer it is a virtual environment made with `--relocatable`, which finds itself by its own path.
With one, its files hold their path, and are told when the project is moved.
"""

from __future__ import annotations

import importlib.metadata
import logging
import os
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.llm_batch.addresses import write_identity, write_json_atomic, write_manifest
from scripts.llm_batch.environments.checks import (
    MACHINES,
    Installed,
    check_machine,
    find_python,
    probe,
    verify,
)
from scripts.llm_batch.environments.conda_layer import (
    conda_packages,
    install_conda_layer,
    verify_conda_layer,
)
from scripts.llm_batch.environments.conda_pins import CondaPin, read_pins
from scripts.llm_batch.environments.conda_settings import read_conda_settings
from scripts.llm_batch.environments.identity import (
    EnvironmentSpec,
    canonical_name,
    environment_identity,
    load_spec,
    lock_path,
    locked_packages,
    pin_path,
)
from scripts.llm_batch.environments.prefixes import rewrite_scripts
from scripts.llm_batch.environments.staging import (
    building_lock,
    is_finished,
    put_in_place,
    remove_leftovers,
    staging,
)
from scripts.llm_batch.environments.uv_calls import run_uv
from scripts.llm_batch.environments.variables import engine_variables
from scripts.llm_batch.environments.wheels import install_wheels
from scripts.llm_batch.errors import WorkflowError


@dataclass(frozen=True)
class Job:
    """What is built: the locks of wheels (`lock`) and conda layer (`pins`), for `folder`."""

    identity: Mapping[str, Any]
    spec: EnvironmentSpec
    lock: Path
    pins: Sequence[CondaPin]
    folder: Path
    wheelhouse: Path | None


def build_environment(
    identity: Mapping[str, Any], envs_dir: Path, folder: Path, wheelhouse: Path | None = None
) -> None:
    """Make `folder` the environment of `identity`; at once if it is already there.

    One process builds, others wait for it. With `wheelhouse` every file comes from that folder.
    Raises `WorkflowError`; then `folder` holds no manifest, and nothing is left beside it but an
    empty lock file.
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
        pins = read_pins(pin_path(name, envs_dir)) if conda else []
        job = Job(identity, spec, lock_path(name, envs_dir), pins, folder.absolute(), wheelhouse)
        with staging(job.folder) as staged:
            fill(staged, job)
            put_in_place(staged, job.folder)
    logging.info("%s: built", folder)


def fill(staged: Path, job: Job) -> None:
    """Install and check everything in `staged`, and describe it; the manifest comes last."""
    spec, locked = job.spec, locked_packages(job.lock)
    scratch = staged.with_name("scratch")
    scratch.mkdir()
    started = time.monotonic()
    if job.pins:
        create_from_conda(staged, job)
    else:
        create(staged, spec)
    python = staged / "bin/python"
    beneath = python_packages(staged) if job.pins else {}
    install_wheels(python, spec, job.lock, scratch, job.wheelhouse)
    installed_at = time.monotonic()
    installed = probe(python, spec.name, list(spec.imports), scratch)
    verify(spec, {**beneath, **locked}, installed)
    if job.pins:
        verify_conda_layer(staged, job.pins)
        rewrite_scripts(staged / "bin", str(staged), str(job.folder))
    seconds = {
        "install": round(installed_at - started, 1),
        "check": round(time.monotonic() - installed_at, 1),
    }
    describe(staged, job, installed, seconds)


def describe(staged: Path, job: Job, installed: Installed, seconds: Mapping[str, float]) -> None:
    """Write what the environment is and what it holds."""
    write_identity(staged, "environments", job.identity)
    record = environment_record(job.spec.name, installed, seconds, size_on_disk(staged))
    record["variables"] = engine_variables(staged, installed.packages)
    if job.pins:
        record["python"]["base"] = str(job.folder)
        record["prefix"] = str(job.folder)
        record["conda"] = {
            name: f"{version} {build}"
            for name, (version, build, _) in conda_packages(staged).items()
        }
        record["built_with"]["py-rattler"] = importlib.metadata.version("py-rattler")
    write_json_atomic(staged / "environment.json", record)
    # environment.json of a conda layer names its place, which may change.
    own = "conda-meta/history" if job.pins else "environment.json"
    files = [staged / "identity.json", staged / own]
    facts = {"packages": len(installed.packages), "conda": len(job.pins), "seconds": dict(seconds)}
    write_manifest(staged, files, facts)


def create_from_conda(staged: Path, job: Job) -> None:
    """Put the conda layer in place; it has to bring the interpreter."""
    settings = read_conda_settings(os.environ)
    install_conda_layer(staged, job.folder, job.pins, settings, job.wheelhouse)
    if not (staged / "bin/python").exists():
        raise WorkflowError(
            f"environment {job.spec.name}: its conda layer has no Python; add python to the lock"
        )


def python_packages(prefix: Path) -> dict[str, str]:
    """Return the Python packages that the conda layer itself brings, with their versions."""
    places = [str(path) for path in prefix.glob("lib/python*/site-packages")]
    found = importlib.metadata.distributions(path=places)
    return {canonical_name(d.metadata["Name"]): d.version for d in found}


def create(staged: Path, spec: EnvironmentSpec) -> None:
    """Make an empty virtual environment: no pip, no setuptools."""
    options = ["--relocatable", "--no-project", "--allow-existing", "--python"]
    run_uv(
        ["venv", *options, find_python(spec.python), str(staged.absolute())],
        f"environment {spec.name} needs Python {spec.python}",
    )


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
