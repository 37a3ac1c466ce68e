"""What is refused when a workflow starts, before its first job. A dry run plans all of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from scripts.llm_batch import slurm
from scripts.llm_batch.config.errors import display_path
from scripts.llm_batch.config.records import Config
from scripts.llm_batch.doctor import auto, start
from scripts.llm_batch.errors import ConfigError
from scripts.llm_batch.gpus import capacity
from scripts.llm_batch.plan.records import EnginePlan, Plan

ASKING = ("generate", "replicate_run")
"""The rules that start engines."""


def refuse_to_start(
    workflow: Any, config: Config, plan: Plan, envs: Path, engine_of: Callable[[Any], EnginePlan]
) -> None:
    """Raise `WorkflowError` for what can be known to fail.

    `workflow` is Snakemake's, with its jobs planned; `engine_of` returns the engine that a job with
    these wildcards asks. Refused are models and data without a commit, engines that can never have
    their nodes or GPUs, job arrays that would hang, `auto` where jobs go to other machines, and
    engines that cannot work.
    """
    refuse_unpinned(plan, workflow.configfiles)
    asked = [(job, engine_of(job.wildcards)) for job in asking_jobs(workflow)]
    local = workflow.local_exec
    names = [(engine.stage.name, engine.nodes) for _, engine in asked]
    slurm.refuse_nodes(names, workflow.executor_plugin.name, os.environ)
    capacity.refuse_impossible([capacity.wanted_of(*pair) for pair in asked], local)
    shards = [engine.gpus for job, engine in asked if job.rule.name == "generate"]
    arrays = getattr(workflow.executor_settings, "array_jobs", None)
    slurm.check_arrays(arrays, workflow.nodes, shards)
    if not local:
        auto.refuse_elsewhere(config.auto, workflow.executor_plugin.name)
    engines = {engine.stage.folder: engine for _, engine in asked}
    start.refuse_plan(engines.values(), envs, Path("results"), local)


def asking_jobs(workflow: Any) -> list[Any]:
    """Return the jobs that will start engines; none if outputs are only touched."""
    if workflow.touch:
        return []
    return [job for job in workflow.dag.needrun_jobs() if job.rule.name in ASKING]


def refuse_unpinned(plan: Plan, configfiles: Sequence[str]) -> None:
    """Raise `ConfigError` if something of the plan has no commit yet."""
    if plan.unpinned:
        raise ConfigError(unpinned_message(plan, configfiles))


def unpinned_message(plan: Plan, configfiles: Sequence[str]) -> str:
    """Return in one line what has no commit yet, and the command that writes it."""
    names = ", ".join(dict.fromkeys(plan.unpinned))
    config = display_path(Path(configfiles[-1])) if configfiles else "CONFIG"
    return (
        f"{names}: without a revision, so this can be planned but not run; "
        f"`python -m scripts.pin {config}` writes the newest commit"
    )
