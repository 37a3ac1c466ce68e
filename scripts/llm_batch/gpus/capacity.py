"""How many engines a machine holds, and the refusal of engines that it cannot hold."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from scripts.llm_batch.errors import WorkflowError
from scripts.llm_batch.gpus.devices import visible_devices
from scripts.llm_batch.gpus.leases import too_few, usable
from scripts.llm_batch.gpus.present import inventory, scheduled_names, visible_count

GPU = "gpu"
AUTO = "auto"


def replicas(size: int, gpus: int) -> int:
    """Return how many engines of `size` GPUs work at a time on `gpus`; one at least, 1 on a CPU."""
    return max(1, gpus // size) if size else 1


def limit_gpus(workflow: Any, environ: Mapping[str, str] = os.environ) -> int:
    """Return how many GPUs jobs may have at a time; 1 where nobody says and none is there.

    That is `--resources gpu=N`. Without it Snakemake would start as many jobs as there are cores,
    so on one machine the limit is set to the GPUs there are. A scheduler counts by itself.
    """
    found = workflow.global_resources.get(GPU)
    if found is not None and found.value is not None:
        return int(found.value)
    count = visible_count(environ)
    # Only executors that send jobs away have a number of nodes (--jobs).
    if count and workflow.nodes is None and workflow.is_main_process:
        workflow.register_resource(GPU, count)
    return max(1, count)


class Wanted(NamedTuple):
    """A job that will run: its engine, the GPUs that it takes, and those that Snakemake grants."""

    engine: str
    size: int
    granted: int
    shards: int | str | None = None
    nodes: int = 1


def wanted_of(job: Any, engine: Any) -> Wanted:
    """Return what a job of Snakemake wants for an `EnginePlan`.

    Snakemake grants no more than its limit, and says nothing.
    """
    granted = job.resources.get(GPU, engine.gpus)
    size = engine.gpus
    shards = engine.tuning.get("shards")
    known = granted if isinstance(granted, int) else size
    return Wanted(engine.stage.name, size, known, shards, engine.nodes)


def refuse_impossible(
    jobs: Iterable[Wanted], local: bool, environ: Mapping[str, str] = os.environ
) -> None:
    """Raise `WorkflowError` for the first job that can never have its GPUs.

    `local`: on this machine, whose GPUs are counted; elsewhere a scheduler knows.
    """
    for job in sorted(set(jobs), key=str):
        if job.granted < job.size:
            raise WorkflowError(
                f"engine '{job.engine}' takes {job.size} GPUs, and --resources gpu={job.granted} "
                f"lets jobs have no more at a time; run with --resources gpu={job.size}"
            )
        if local and job.size:
            _refuse_missing(job, environ)
        if not local and job.shards == AUTO:
            raise WorkflowError(
                f"engines.{job.engine}.tuning.shards: auto counts the GPUs of this machine, and "
                "jobs go to others; write the number of shards that may be answered at a time"
            )


def _refuse_missing(job: Wanted, environ: Mapping[str, str]) -> None:
    scheduled = scheduled_names(environ)
    there = inventory(environ)
    size = job.size // job.nodes
    count = (
        len(scheduled)
        if scheduled is not None
        else len(usable(visible_devices(there, environ), size))
    )
    if count < size:
        raise WorkflowError(f"engines.{job.engine}: {too_few(size, count, there)}")
