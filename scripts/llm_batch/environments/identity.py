"""Environments: what `envs/<name>.yaml` and its lock say, and where an interpreter lies.

Imported while the Snakefile is parsed, so nothing heavy is imported here.
"""

from __future__ import annotations

import datetime
import difflib
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from scripts.llm_batch.errors import ConfigError, WorkflowError

NOT_ENGINES = frozenset({"workflow", "development"})
"""Files in `envs/` that are for the workflow itself."""

LM_EVAL = "lm-eval"
"""The environment of lm-evaluation-harness."""

TOOLS = frozenset({LM_EVAL})
"""Environments that are built like an engine's, and hold a tool of the workflow instead."""

_PIN = re.compile(r"^(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)==(?P<version>[^\s;\\]+)")
_HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}\b")


OLDEST_GLIBC = "2.28"
"""Wheels are chosen for it where a description names none."""


@dataclass(frozen=True)
class WheelLock:
    """How the lock of the wheels is made again: with `dependencies`, without what is in `excludes`,
    and without anything that came after `newest` (a time in ISO 8601).
    """

    dependencies: bool
    newest: str | None
    excludes: tuple[str, ...]


@dataclass(frozen=True)
class CondaLock:
    """How the conda layer is solved again: what from which channels, nothing after `newest`."""

    specs: tuple[str, ...]
    channels: tuple[str, ...]
    newest: str | None


@dataclass(frozen=True)
class EnvironmentSpec:
    """One `envs/<name>.yaml`.

    `indexes` maps the address of a package index to the packages it is asked for, `files` a package
    to the address of its wheel, `imports` a
    module to the `__version__` it must have, `programs` a program to the system package it is in.
    `glibc` is the oldest C library, `manylinux` the one that wheels are chosen for, `megabytes` the
    free disk space that building needs, `cuda` the version that torch is built for, None on a CPU.
    """

    name: str
    python: str
    platform: str
    glibc: str | None
    manylinux: str
    cuda: str | None
    indexes: Mapping[str, tuple[str, ...]]
    files: Mapping[str, str]
    imports: Mapping[str, str]
    programs: Mapping[str, str]
    megabytes: int
    vllm: Mapping[str, str]
    lock: WheelLock
    conda: CondaLock

    @property
    def device(self) -> str:
        """`cuda`, or `cpu` for a torch without CUDA."""
        return "cpu" if self.cuda is None else "cuda"

    @property
    def wheel_platform(self) -> str:
        """What uv calls the platform that wheels are chosen for, on whatever machine."""
        return f"x86_64-manylinux_{self.manylinux.replace('.', '_')}"


def environment_names(envs_dir: Path) -> list[str]:
    """Return the environments of engines: those that have both a description and a lock."""
    return [name for name in _described(envs_dir) if name not in TOOLS]


def _described(envs_dir: Path) -> list[str]:
    return sorted(
        path.stem
        for path in envs_dir.glob("*.yaml")
        if path.stem not in NOT_ENGINES and lock_path(path.stem, envs_dir).is_file()
    )


def lock_path(name: str, envs_dir: Path) -> Path:
    """Return the lock of an environment: every package, its version and the hash of its wheel."""
    return envs_dir / f"{name}.requirements.txt"


def pin_path(name: str, envs_dir: Path) -> Path:
    """Return the conda layer's lock: Python, compiler and nvcc. Not every environment has one."""
    return envs_dir / f"{name}.linux-64.pin.txt"


def environment_identity(name: str, envs_dir: Path, conda: bool = True) -> dict[str, Any]:
    """Return what decides the bytes of an environment: its locks, its Python and its platform.

    Without `conda` its conda layer is left out, and it runs on a Python that is there. Raises
    `ConfigError` if there is no such environment.
    """
    spec = load_spec(name, envs_dir)
    locks = [lock_path(name, envs_dir)]
    if conda and pin_path(name, envs_dir).is_file():
        locks.append(pin_path(name, envs_dir))
    return {
        "name": name,
        "lock_sha256": {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in locks},
        "python": spec.python,
        "platform": spec.platform,
    }


def load_spec(name: str, envs_dir: Path) -> EnvironmentSpec:
    """Read `<name>.yaml`; raise `ConfigError` if the environment is unknown or ill-described."""
    if name not in _described(envs_dir):
        names = environment_names(envs_dir)
        # Not the config's own `nearest`: the config asks this module which environments exist.
        close = difflib.get_close_matches(name.lower(), names, n=1)
        meant = f"; did you mean '{close[0]}'?" if close else ""
        known = ", ".join(names) or "none"
        raise ConfigError(f"there is no environment '{name}'; there are: {known}{meant}")
    path = envs_dir / f"{name}.yaml"
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
        return EnvironmentSpec(
            name=str(raw["name"]),
            python=str(raw["python"]),
            platform=str(raw["platform"]),
            glibc=str(raw["glibc"]) if raw.get("glibc") else None,
            manylinux=str(raw.get("manylinux") or raw.get("glibc") or OLDEST_GLIBC),
            cuda=_cuda(raw.get("torch") or {}),
            indexes={url: tuple(some) for url, some in (raw.get("indexes") or {}).items()},
            files={str(k): str(v) for k, v in (raw.get("files") or {}).items()},
            imports={str(k): str(v) for k, v in (raw.get("imports") or {}).items()},
            programs={str(k): str(v) for k, v in (raw.get("programs") or {}).items()},
            megabytes=int(raw.get("megabytes") or 0),
            vllm={str(k): str(v) for k, v in (raw.get("vllm") or {}).items()},
            lock=_wheel_lock(raw.get("lock") or {}),
            conda=_conda_lock(raw.get("conda") or {}),
        )
    except (AttributeError, KeyError, TypeError, ValueError, yaml.YAMLError) as error:
        detail = " ".join(str(error).split())
        raise ConfigError(
            f"{path}: not a description of an environment ({detail}); compare it with envs/cpu.yaml"
        ) from None


def _wheel_lock(raw: Mapping[str, Any]) -> WheelLock:
    excludes = tuple(str(name) for name in raw.get("excludes") or ())
    return WheelLock(bool(raw.get("dependencies", True)), _time(raw.get("newest")), excludes)


def _conda_lock(raw: Mapping[str, Any]) -> CondaLock:
    specs, channels = (
        tuple(str(entry) for entry in raw.get(key) or ()) for key in ("specs", "channels")
    )
    return CondaLock(specs, channels, _time(raw.get("newest")))


def _time(value: Any) -> str | None:
    """Return a time as text in ISO 8601; YAML reads one without quotes as a time of UTC."""
    if isinstance(value, datetime.datetime):
        value = value.replace(tzinfo=value.tzinfo or datetime.UTC).isoformat()
    return None if value is None else str(value)


def _cuda(torch: Mapping[str, Any]) -> str | None:
    version = torch.get("cuda")
    return None if version is None else str(version)


def canonical_name(name: str) -> str:
    """Return a package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def requirement_blocks(text: str) -> list[str]:
    """Return the requirements of a lock, each with its hashes, on one line."""
    joined = re.sub(r"\s*\\\n\s*", " ", text)
    return [line for line in joined.splitlines() if line.strip() and not line.startswith("#")]


def locked_packages(lock: Path) -> dict[str, str]:
    """Return the version of each package in a lock, by canonical name.

    Raises `WorkflowError` for a requirement without an exact version or without a hash.
    """
    packages = {}
    for block in requirement_blocks(lock.read_text(encoding="utf-8")):
        pin = _PIN.match(block)
        if pin is None or not _HASH.search(block):
            raise WorkflowError(
                f"{lock}: '{block.split(' --hash')[0]}' has no exact version or no sha256; "
                "make the lock again with `make lock`"
            )
        packages[canonical_name(pin["name"])] = pin["version"]
    return packages


def environment_python(folder: Path) -> Path:
    """Return the interpreter of the built environment in `folder`.

    Raises `WorkflowError` if it is not there or no longer starts from where it was linked to.
    """
    # Not resolved: a virtual environment is recognised by the path that it is started with.
    python = folder.absolute() / "bin/python"
    if not python.exists():
        raise WorkflowError(
            f"{python}: missing, or the Python that it was made from has been removed; "
            f"delete {folder} and run the workflow again to build it anew"
        )
    return python
