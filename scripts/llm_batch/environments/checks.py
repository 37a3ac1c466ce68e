"""Checks around building an environment: the machine before it, the packages after it."""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.llm_batch.environments.identity import EnvironmentSpec, canonical_name
from scripts.llm_batch.environments.uv_calls import clean_environment, run_logged
from scripts.llm_batch.errors import WorkflowError

MACHINES = {("linux", "x86_64"): "linux-64"}

# Run by the new interpreter: what is installed, and whether the modules can be imported.
_PROBE = """
import importlib, importlib.metadata, json, platform, sys
# Before anything is imported: setuptools then shows what it carries inside as installed.
packages, owners, clashes = [], {}, set()
for found in importlib.metadata.distributions():
    name = found.metadata["Name"]
    packages.append([name, found.version])
    for file in (found.files or []) if name.lower().startswith("nvidia") else []:
        kept = owners.setdefault(str(file), (name, file.hash and file.hash.value))
        if kept[0] != name and file.hash and kept[1] != file.hash.value:
            clashes.add((kept[0], name))
modules = {}
for name in sys.argv[2:]:
    try:
        module = importlib.import_module(name)
        modules[name] = {"version": str(getattr(module, "__version__", None))}
    except Exception as error:
        modules[name] = {"error": f"{type(error).__name__}: {error}"}
found = {
    "python": platform.python_version(),
    "implementation": platform.python_implementation(),
    "base": sys.base_prefix,
    "packages": packages,
    "clashes": sorted(clashes),
    "modules": modules,
    "cuda": getattr(getattr(sys.modules.get("torch"), "version", None), "cuda", None),
}
with open(sys.argv[1], "w") as stream:
    json.dump(found, stream)
"""


@dataclass(frozen=True)
class Installed:
    """What the new interpreter says about itself.

    `cuda` is the CUDA version of torch, if any; `clashes` are pairs of NVIDIA's packages that hold
    different files of the same name, so that one has overwritten the other.
    """

    python: str
    implementation: str
    base: str
    packages: Mapping[str, str]
    versions: Mapping[str, str]
    cuda: str | None
    clashes: tuple[tuple[str, str], ...]


def check_machine(spec: EnvironmentSpec, parent: Path) -> None:
    """Raise `WorkflowError` if this machine cannot hold or run the environment."""
    found = MACHINES.get((sys.platform, platform.machine()))
    if found != spec.platform:
        raise WorkflowError(
            f"environment {spec.name} is for {spec.platform}, this machine is {sys.platform} "
            f"{platform.machine()}; run on a Linux machine with an x86-64 processor"
        )
    check_glibc(spec)
    for program, package in spec.programs.items():
        if shutil.which(program) is None:
            raise WorkflowError(
                f"environment {spec.name} needs the program {program}, which is not on PATH; "
                f"install the system package {package}"
            )
    for place in sorted({parent, *other_disks(parent)}):
        check_space(spec, place)


def check_glibc(spec: EnvironmentSpec) -> None:
    """Raise `WorkflowError` if the C library is older than the wheels accept."""
    # Without an argument: told by the library itself. With an interpreter it would be the version
    # that this was linked for, which is older wherever Python came as a portable build.
    library, version = platform.libc_ver()
    if spec.glibc is None:
        return
    if library != "glibc" or _numbers(version) < _numbers(spec.glibc):
        raise WorkflowError(
            f"environment {spec.name} needs glibc {spec.glibc} or newer, this machine has "
            f"{library or 'another C library'} {version}; use a newer system or a container"
        )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def check_space(spec: EnvironmentSpec, place: Path) -> None:
    """Raise `WorkflowError` if the disk that holds `place` is too full."""
    free = shutil.disk_usage(place).free // 1_000_000
    if free < spec.megabytes:
        raise WorkflowError(
            f"{place}: environment {spec.name} needs {spec.megabytes / 1000:.1f} GB here, "
            f"{free / 1000:.1f} GB are free; free some space"
        )


def other_disks(parent: Path) -> Iterator[Path]:
    """Yield uv's cache if it is on another disk: then every package is stored twice."""
    if os.environ.get("UV_NO_CACHE"):
        return
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    place = Path(os.environ.get("UV_CACHE_DIR") or Path(home) / "uv").absolute()
    while not place.exists():
        place = place.parent
    if place.stat().st_dev != parent.stat().st_dev:
        yield place


def find_python(version: str) -> str:
    """Return what `uv venv --python` is told: an interpreter's path, else the version itself.

    The interpreter that runs this comes first, then those on PATH that really start (a version
    manager puts programs there that only say what is missing). uv itself looks further, and
    fetches one if there is none.
    """
    if f"{sys.version_info[0]}.{sys.version_info[1]}" == version:
        return sys.executable
    for folder in os.get_exec_path():
        candidate = Path(folder) / f"python{version}"
        if os.access(candidate, os.X_OK) and _starts(candidate, version):
            return str(candidate)
    return version


def _starts(python: Path, version: str) -> bool:
    code = "import sys, venv; print('%d.%d' % sys.version_info[:2])"
    try:
        command = [str(python), "-I", "-c", code]
        result = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return result.returncode == 0 and result.stdout.strip() == version


def probe(
    python: Path, name: str, imports: Sequence[str], scratch: Path, isolated: bool = True
) -> Installed:
    """Ask the interpreter of environment `name` what it has, importing the modules `imports`.

    `scratch` is a folder for what modules write when they are imported. Raises `WorkflowError`
    if the interpreter dies or a module cannot be imported. `isolated`: nothing that variables of
    the process name can be imported; a script that starts an interpreter may set such variables.
    """
    answer = scratch / "probe.json"
    private = {
        "VLLM_CACHE_ROOT": str(scratch / "vllm"),
        "VLLM_CONFIG_ROOT": str(scratch / "vllm"),
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    options = ["-I"] if isolated else []
    command = [str(python.absolute()), *options, "-c", _PROBE, str(answer.absolute()), *imports]
    code, _ = run_logged(command, clean_environment(os.environ, private), scratch)
    if not answer.exists():
        raise WorkflowError(
            f"environment {name}: importing {', '.join(imports) or 'nothing'} "
            f"{_death(code)}; the log above has what was printed"
        )
    found = json.loads(answer.read_text(encoding="utf-8"))
    for imported, module in found["modules"].items():
        if "error" in module:
            detail = " ".join(module["error"].split())
            raise WorkflowError(
                f"environment {name}: all packages are installed, but `import {imported}` fails "
                f"({detail}); a system library may be missing, the log above has more"
            )
    return Installed(
        python=found["python"],
        implementation=found["implementation"],
        base=found["base"],
        packages={canonical_name(package): version for package, version in found["packages"]},
        versions={imported: module["version"] for imported, module in found["modules"].items()},
        cuda=found["cuda"],
        clashes=tuple((one, other) for one, other in found["clashes"]),
    )


def _death(code: int) -> str:
    if code == -signal.SIGILL:
        return "needs processor instructions that this machine lacks (SIGILL)"
    if code == -signal.SIGKILL:
        return "was killed, perhaps for want of memory"
    return f"ended with exit code {code}"


def verify(spec: EnvironmentSpec, locked: Mapping[str, str], installed: Installed) -> None:
    """Raise `WorkflowError` unless exactly the locked packages are there, in their versions."""
    problems = [
        f"{name} is {installed.packages.get(name, 'missing')}, locked is {version}"
        for name, version in locked.items()
        if installed.packages.get(name) != version
    ]
    extra = sorted(set(installed.packages) - set(locked))
    problems += [f"{name} is not in the lock" for name in extra]
    problems += [
        f"module {name} says {installed.versions[name]}, expected is {version}"
        for name, version in spec.imports.items()
        if installed.versions[name] != version
    ]
    if "torch" in installed.versions and installed.cuda != spec.cuda:
        problems.append(
            f"torch is built for CUDA {installed.cuda or 'none'}, expected is {spec.cuda or 'none'}"
        )
    problems += [
        f"{one} and {other} overwrite each other's files: they are for different CUDA versions"
        for one, other in installed.clashes
    ]
    if not installed.python.startswith(spec.python + "."):
        problems.append(f"Python is {installed.python}, expected is {spec.python}")
    if problems:
        raise WorkflowError(
            f"environment {spec.name} is not what its lock says: {'; '.join(problems)}; "
            "run again, and report it if it stays"
        )
