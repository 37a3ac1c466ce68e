"""What a SLURM cluster asks of the plan, and what it tells about a job."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from scripts.llm_batch.errors import ConfigError

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


def check_arrays(rules: str | None, jobs: int | None, batches: Iterable[tuple[int, int]]) -> None:
    """Refuse job arrays with which snakemake-executor-plugin-slurm 2.8 does the wrong thing.

    `rules` is its setting `--slurm-array-jobs`, `jobs` that of `--jobs`; `batches` are the GPUs of
    an engine and the number of shards, each. An array's tasks all get
    what its first one asks for, so an engine of two GPUs would get one; and shards that are ready
    but above `jobs` are taken for submitted, and waited for without end.
    """
    if not {"all", "generate"} & set(re.split(r"[,;\s]+", rules or "")):
        return
    planned = list(batches)
    if len(sizes := sorted({gpus for gpus, _ in planned})) > 1:
        raise ConfigError(
            "--slurm-array-jobs generate: the jobs of an array all get the same GPUs, and these "
            f"engines take {' or '.join(map(str, sizes))}; leave it out, or split the config"
        )
    shards = sum(shards for _, shards in planned)
    if jobs is not None and jobs < shards:
        raise ConfigError(
            f"--slurm-array-jobs generate: with --jobs {jobs} some of {shards} shards would never "
            f"be submitted; give --jobs {shards} or more"
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
