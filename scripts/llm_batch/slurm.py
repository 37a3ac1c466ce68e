"""What a SLURM cluster asks of the plan, and what it tells about a job."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from scripts.llm_batch.errors import ConfigError, WorkflowError

STEPS = "LLM_BATCH_STEPS"
"""Set where Snakemake itself runs in an allocation, and its jobs are to be steps of it."""

CPU_ENGINE_THREADS = 8
THREADS = 2
THREADS_PER_GPU = 2
"""Cores that vLLM keeps busy on GPUs: its scheduler's process and ours, and one process a GPU, with
as many again for detokenising and sampling."""


def threads(gpus: int, uses_cpu: bool) -> int:
    """Return the cores of a job that answers a shard, where a cluster's nodes are not known."""
    if uses_cpu:
        return CPU_ENGINE_THREADS
    return THREADS + THREADS_PER_GPU * gpus if gpus else 1


def has_steps(environ: Mapping[str, str]) -> bool:
    """Tell whether jobs are steps of one allocation: in `profiles/slurm/run.sbatch`."""
    return bool(environ.get(STEPS) and environ.get("SLURM_JOB_ID"))


def step(environ: Mapping[str, str], threads: int, gpus: int) -> str:
    """Return the words that make a program a step with its own GPUs of one node; else none."""
    if not has_steps(environ):
        return ""
    return " ".join([*step_words(1, threads, gpus), "--input=none"])


def step_words(nodes: int, threads: int, gpus: int) -> list[str]:
    """Return the words that make a program a step: once on each of `nodes`, with `gpus` there.

    A step would take all memory of its node, and the next one would wait; with 0 they share it.
    """
    return [
        *("srun", "--exact", f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1"),
        *(f"--cpus-per-task={threads}", "--mem=0"),
        f"--gpus-per-node={gpus}" if gpus else "--gres=none",
    ]


def step_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables for a step of its own: what this one asked for is no default of it."""
    return {
        name: value
        for name, value in environ.items()
        if not name.startswith(("SLURM_", "SRUN_", "SBATCH_")) or name in _OF_THE_JOB
    }


STEP_CPUS = "SLURM_CPUS_PER_TASK"
"""The cores of this process, if it was told any."""

_OF_THE_JOB = ("SLURM_CONF", "SLURM_JOB_ID", "SLURM_JOBID", "SLURM_CLUSTER_NAME")


def per_node(gpus: int, nodes: int, model: str | None) -> str:
    """Return `--gres` for a job of several nodes, lest SLURM share its GPUs out unevenly.

    `model` is what `gpu_model` says for these jobs: SLURM takes a type in both or in none.
    """
    return ":".join(["gpu", *([model] if model else []), str(gpus // nodes)])


def refuse_nodes(
    engines: Iterable[tuple[str, int]], executor: str, environ: Mapping[str, str]
) -> None:
    """Raise `WorkflowError` for the first of `engines` (name, nodes) that cannot have its nodes.

    `executor` is what Snakemake sends jobs to; in an allocation they are steps of it.
    """
    there = int(environ.get("SLURM_JOB_NUM_NODES", 1)) if has_steps(environ) else 0
    for name, nodes in engines:
        if nodes == 1 or executor == "slurm" or nodes <= there:
            continue
        how = (
            f"this allocation has {there}: sbatch --nodes={nodes} profiles/slurm/run.sbatch"
            if there
            else "SLURM gives them: snakemake --profile profiles/slurm"
        )
        raise WorkflowError(f"engines.{name}.tuning.nodes: {nodes} machines are needed; {how}")


def check_arrays(rules: str | None, jobs: int | None, shards: Sequence[int]) -> None:
    """Refuse job arrays with which snakemake-executor-plugin-slurm 2.8 does the wrong thing.

    `rules` is its setting `--slurm-array-jobs`, `jobs` that of `--jobs`; `shards` are the GPUs of
    each shard to be answered. An array's tasks all get what its first one asks for, so an engine
    of two GPUs would get one; and shards that are ready but above `jobs` are taken for submitted,
    and waited for without end.
    """
    if not {"all", "generate"} & set(re.split(r"[,;\s]+", rules or "")):
        return
    if len(sizes := sorted(set(shards))) > 1:
        raise ConfigError(
            "--slurm-array-jobs generate: the jobs of an array all get the same GPUs, and these "
            f"engines take {' or '.join(map(str, sizes))}; leave it out, or split the config"
        )
    if jobs is not None and jobs < len(shards):
        raise ConfigError(
            f"--slurm-array-jobs generate: with --jobs {jobs} some of {len(shards)} shards would "
            f"never be submitted; give --jobs {len(shards)} or more"
        )


def job_facts(environ: Mapping[str, str]) -> dict[str, str] | None:
    """Return the SLURM job that this process is part of, None outside of SLURM."""
    if not (job := environ.get("SLURM_JOB_ID")):
        return None
    array, task = environ.get("SLURM_ARRAY_JOB_ID"), environ.get("SLURM_ARRAY_TASK_ID")
    facts = {
        "job": f"{array}_{task}" if array and task else job,
        "node": environ.get("SLURMD_NODENAME"),
    }
    return {name: value for name, value in facts.items() if value}
