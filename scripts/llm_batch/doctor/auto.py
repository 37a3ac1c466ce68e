"""`environment: auto` on the machine at hand."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from scripts.llm_batch.doctor.choose import Choice, choose
from scripts.llm_batch.doctor.examine import visible
from scripts.llm_batch.doctor.variants import load_variants
from scripts.llm_batch.errors import ConfigError
from scripts.llm_batch.machine.read import SIMULATED_MACHINE, read_machine
from scripts.llm_batch.machine.records import Machine

SUBMITTERS = ("sbatch", "qsub", "bsub")
"""Commands of SLURM, of PBS and Grid Engine, and of LSF: jobs may run where other GPUs are."""


def choose_here(envs_dir: Path, environ: Mapping[str, str] = os.environ) -> Choice:
    """Return what `auto` is on this machine, by the cards that `CUDA_VISIBLE_DEVICES` leaves.

    Raises `ConfigError` if nothing runs here, or if this looks like the head node of a cluster: no
    GPU, and a command that sends jobs elsewhere.
    """
    machine = visible(read_machine(Path("results"), environ), environ)
    if not environ.get(SIMULATED_MACHINE) and (reason := head_node(machine, environ)):
        raise ConfigError(
            f"environment auto: {reason}; name the environment, e.g. --config environment=cu128 "
            "(python -m scripts.doctor on a GPU node says which), or cpu"
        )
    choice = choose(load_variants(envs_dir), machine)
    if machine.is_this:
        return choice
    return Choice(choice.name, f"{choice.reason} ({machine.origin})")


def head_node(machine: Machine, environ: Mapping[str, str] = os.environ) -> str:
    """Return why a machine looks like the head node of a cluster; empty if it does not."""
    command = submitter(environ)
    if machine.gpus or not command:
        return ""
    return f"no GPU on this node, and {command} sends jobs to others"


def submitter(environ: Mapping[str, str]) -> str | None:
    """Return the command that sends jobs to other machines, None if there is none on PATH."""
    path = environ.get("PATH")
    return next((name for name in SUBMITTERS if shutil.which(name, path=path)), None)


def refuse_elsewhere(choice: Choice | None, executor: str) -> None:
    """Raise `ConfigError` if `auto` was chosen here and jobs run where it may be another."""
    if choice is not None:
        raise ConfigError(
            f"environment auto: jobs run elsewhere ({executor}), where GPUs and drivers may differ "
            f"from this machine's; name the environment, e.g. --config environment={choice.name}"
        )
