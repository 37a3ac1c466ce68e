"""The check before anything is generated: at the start of a workflow, and of each job.

It costs a look at the driver and at the headers of the weights. `LLM_BATCH_DOCTOR=off` leaves it
out, for whoever knows better.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.llm_batch.doctor.auto import submitter
from scripts.llm_batch.doctor.engines import engine_problems, job_problems, refusal
from scripts.llm_batch.doctor.examine import visible
from scripts.llm_batch.errors import ConfigError, WorkflowError
from scripts.llm_batch.generate.settings import EngineSpec
from scripts.llm_batch.machine.read import read_machine
from scripts.llm_batch.machine.records import Machine

if TYPE_CHECKING:
    # A job has no plan, and must not wait for what makes one to be imported.
    from scripts.llm_batch.plan.records import EnginePlan

SWITCH = "LLM_BATCH_DOCTOR"

log = logging.getLogger(__name__)


def is_off(environ: Mapping[str, str]) -> bool:
    """Tell whether the user has switched the check off."""
    return environ.get(SWITCH, "").lower() in ("off", "0", "no", "false")


def machine_here(environ: Mapping[str, str]) -> Machine:
    """Return this machine with the cards that may be used.

    What `CUDA_VISIBLE_DEVICES` names wrongly is told by whoever leases GPUs, not here.
    """
    machine = read_machine(Path("results"), environ)
    try:
        return visible(machine, environ)
    except WorkflowError:
        return machine


def refuse_plan(
    engines: Iterable[EnginePlan],
    envs_dir: Path,
    results: Path,
    local: bool,
    environ: Mapping[str, str] = os.environ,
) -> None:
    """Raise `ConfigError`, a line for each reason, if engines that are about to start cannot work.

    `local`: they start on this machine. Elsewhere each job checks the machine that it is on.
    """
    engines = [engine for engine in engines if engine.environment is not None]
    if is_off(environ) or not engines:
        return
    machine = machine_here(environ) if local else None
    message = refusal(engine_problems(engines, envs_dir, machine, results))
    if message:
        raise ConfigError(message)


def look_ahead(
    engines: Iterable[EnginePlan],
    envs_dir: Path,
    results: Path,
    environ: Mapping[str, str] = os.environ,
) -> list[str]:
    """Return what would be refused if `engines` started on this machine, a line each.

    On the head node of a cluster nothing is said of its own, for jobs run elsewhere.
    """
    engines = [engine for engine in engines if engine.environment is not None]
    if is_off(environ) or not engines:
        return []
    machine = machine_here(environ)
    elsewhere = not machine.gpus and submitter(environ) is not None
    found = engine_problems(engines, envs_dir, None if elsewhere else machine, results)
    return list(dict.fromkeys(map(str, found)))


def refuse_job(
    spec: EngineSpec, envs_dir: Path, gpus: int, environ: Mapping[str, str] = os.environ
) -> None:
    """Raise `WorkflowError` if the engine of this job cannot work on this machine."""
    if spec.backend == "dummy" or is_off(environ):
        return
    machine = machine_here(environ)
    found = job_problems(spec, envs_dir, gpus, machine)
    if not machine.is_this:
        log.warning("checked against a %s", machine.origin)
    if found:
        raise WorkflowError(
            f"the engine cannot work here: {'; '.join(map(str, found))} "
            f"({SWITCH}=off leaves this check out)"
        )
