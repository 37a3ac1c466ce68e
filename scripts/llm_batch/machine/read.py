"""Read the machine at hand, or a record of one in its place.

The variable `LLM_BATCH_SIMULATED_MACHINE` names a JSON file (a `Machine`, as `python -m
scripts.doctor --record FILE` writes it) that stands for the machine: to ask what a config would
do elsewhere, and for tests. Whoever prints something about it must print its `origin` too.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

from scripts.llm_batch.machine.nvml import read_inventory
from scripts.llm_batch.machine.records import (
    THIS_MACHINE,
    Disk,
    GpuInventory,
    HubLogin,
    Machine,
    Tool,
    load_record,
)

SIMULATED_MACHINE = "LLM_BATCH_SIMULATED_MACHINE"

_RELEASE = re.compile(r"release (\d+\.\d+)")
_VERSION = re.compile(r"\b(\d+\.\d+(?:\.\d+)?)\b")


def read_machine(results: Path, environ: Mapping[str, str] = os.environ) -> Machine:
    """Return this machine, or the one that `LLM_BATCH_SIMULATED_MACHINE` stands for.

    `results` is where environments will lie. Raises `WorkflowError` for a bad record.
    """
    simulated = environ.get(SIMULATED_MACHINE)
    if simulated:
        return load_machine(Path(simulated))
    libc, version = platform.libc_ver()
    cpu, flags = _cpu()
    return Machine(
        origin=THIS_MACHINE,
        inventory=read_inventory(),
        system=sys.platform,
        architecture=platform.machine(),
        python=platform.python_version(),
        libc=libc or "another C library",
        glibc=version if libc == "glibc" else None,
        cpu=cpu,
        cpu_flags=flags,
        memory_bytes=_memory(),
        nvcc=find_nvcc(environ),
        compiler=find_compiler(environ),
        results_disk=disk_of(results),
        hub_disk=disk_of(hub_home(environ)),
        hub_login=hub_login(environ),
    )


def read_gpus(environ: Mapping[str, str] = os.environ) -> GpuInventory:
    """Return the GPUs only: of this machine, or of the one that stands for it."""
    simulated = environ.get(SIMULATED_MACHINE)
    return load_machine(Path(simulated)).inventory if simulated else read_inventory()


def load_machine(path: Path) -> Machine:
    """Return a recorded or simulated machine; its `origin` says so, and which file it is."""
    machine = load_record(Machine, path)
    return replace(machine, origin=f"simulated machine {path.name}: {machine.origin}")


def find_nvcc(environ: Mapping[str, str]) -> Tool | None:
    """Return the CUDA compiler that a build would find: that of CUDA_HOME, else on PATH."""
    home = environ.get("CUDA_HOME") or environ.get("CUDA_PATH")
    found = shutil.which("nvcc", path=f"{home}/bin") if home else None
    found = found or shutil.which("nvcc", path=environ.get("PATH"))
    return _tool(found, _RELEASE)


def find_compiler(environ: Mapping[str, str]) -> Tool | None:
    """Return the C compiler that Triton calls: `CC`, else gcc, else clang."""
    for name in (environ.get("CC"), "gcc", "clang"):
        found = shutil.which(name, path=environ.get("PATH")) if name else None
        if found:
            return _tool(found, _VERSION)
    return None


def _tool(path: str | None, pattern: re.Pattern[str]) -> Tool | None:
    if path is None:
        return None
    try:
        command = [path, "--version"]
        text = subprocess.run(command, capture_output=True, text=True, timeout=10).stdout
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return Tool(path, None)
    found = pattern.search(text)
    return Tool(path, found[1] if found else None)


def disk_of(path: Path) -> Disk:
    """Return the disk that `path` lies on, or will lie on."""
    place = path.absolute()
    while not place.exists():
        place = place.parent
    return Disk(str(path.absolute()), shutil.disk_usage(place).free)


def hub_home(environ: Mapping[str, str]) -> Path:
    """Return the folder where huggingface_hub keeps models.

    Source: huggingface_hub's page "Environment variables" (HF_HUB_CACHE, HF_HOME, XDG_CACHE_HOME).
    """
    if environ.get("HF_HUB_CACHE"):
        return Path(environ["HF_HUB_CACHE"]).expanduser()
    return _hf_home(environ) / "hub"


def _hf_home(environ: Mapping[str, str]) -> Path:
    cache_home = environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(environ.get("HF_HOME") or f"{cache_home}/huggingface").expanduser()


def hub_login(environ: Mapping[str, str]) -> HubLogin:
    """Return where a token for the hub would be found; it is not read, and not checked."""
    if environ.get("HF_TOKEN") or environ.get("HUGGING_FACE_HUB_TOKEN"):
        return "HF_TOKEN"
    path = environ.get("HF_TOKEN_PATH")
    token = Path(path).expanduser() if path else _hf_home(environ) / "token"
    return "token file" if token.is_file() and token.stat().st_size else "none"


@cache
def _cpu() -> tuple[str | None, tuple[str, ...]]:
    """Return the processor's name and those of its flags that vLLM's kernels ask for."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or None, ()
    values = dict(re.findall(r"^(model name|flags)\s*:\s*(.*)$", text, re.MULTILINE))
    flags = set(values.get("flags", "").split())
    wanted = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
    return values.get("model name"), tuple(flag for flag in wanted if flag in flags)


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return None
