"""What the workflow knows about SLURM without a cluster."""

from __future__ import annotations

import errno
import fcntl
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from snakemake.resources import Resources

from scripts.llm_batch.errors import ConfigError, WorkflowError
from scripts.llm_batch.generate.state import ShardFolder
from scripts.llm_batch.slurm import (
    check_arrays,
    job_facts,
    per_node,
    refuse_nodes,
    step,
    step_environment,
    threads,
)

ROOT = Path(__file__).resolve().parents[2]
RULES = sorted((ROOT / "rules").glob("*.smk"))


@pytest.mark.parametrize(
    ("rules", "jobs", "shards"),
    [
        (None, 1, [1, 2]),
        ("merge_run", 1, [1, 2]),
        ("generate", 8, [2] * 8),
        ("all", None, [1] * 4),
    ],
)
def test_arrays_that_work_are_let_through(
    rules: str | None, jobs: int | None, shards: list[int]
) -> None:
    check_arrays(rules, jobs, shards)


@pytest.mark.parametrize(
    ("rules", "jobs", "shards", "message"),
    [
        ("generate", 100, [1, 2, 2], "take 1 or 2; leave it out"),
        ("merge_run, generate", 7, [1] * 8, "give --jobs 8 or more"),
        ("merge_run;all", 7, [1] * 8, "some of 8 shards"),
    ],
)
def test_arrays_that_would_hang_or_give_wrong_gpus_are_refused(
    rules: str, jobs: int, shards: list[int], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        check_arrays(rules, jobs, shards)


def test_threads_grow_with_the_gpus_and_a_rehearsal_takes_one() -> None:
    assert [threads(gpus, False) for gpus in (0, 1, 8)] == [1, 4, 18]
    assert threads(0, True) == 8


def test_a_step_gets_its_own_cards_of_one_node_and_only_in_an_allocation() -> None:
    allocation = {"LLM_BATCH_STEPS": "1", "SLURM_JOB_ID": "12"}
    words = step(allocation, 4, 2).split()
    assert words[0] == "srun"
    assert {"--gpus-per-node=2", "--nodes=1", "--cpus-per-task=4", "--exact"} <= set(words)
    assert "--gres=none" in step(allocation, 1, 0)
    assert step({"SLURM_JOB_ID": "12"}, 4, 2) == step({"LLM_BATCH_STEPS": "1"}, 4, 2) == ""


def test_a_step_of_its_own_forgets_what_the_job_asked_for() -> None:
    inherited = {"SLURM_JOB_ID": "12", "SLURM_GPUS": "4", "SRUN_DEBUG": "1", "PATH": "/bin"}
    assert step_environment(inherited) == {"SLURM_JOB_ID": "12", "PATH": "/bin"}


@pytest.mark.parametrize(
    ("executor", "environ", "message"),
    [
        ("local", {}, "SLURM gives them: snakemake --profile profiles/slurm"),
        ("local", {"SLURM_JOB_ID": "1", "SLURM_JOB_NUM_NODES": "2"}, "SLURM gives them"),
        (
            "local",
            {"LLM_BATCH_STEPS": "1", "SLURM_JOB_ID": "1", "SLURM_JOB_NUM_NODES": "1"},
            "this allocation has 1: sbatch --nodes=2",
        ),
        ("drmaa", {}, "SLURM gives them"),
    ],
)
def test_an_engine_on_two_nodes_is_refused_where_nobody_gives_them(
    executor: str, environ: dict[str, str], message: str
) -> None:
    with pytest.raises(WorkflowError, match=f"engines.big.tuning.nodes: 2 machines .*{message}"):
        refuse_nodes([("small", 1), ("big", 2)], executor, environ)


def test_two_nodes_are_had_from_slurm_and_inside_an_allocation_that_has_them() -> None:
    refuse_nodes([("big", 2)], "slurm", {})
    steps = {"LLM_BATCH_STEPS": "1", "SLURM_JOB_ID": "1", "SLURM_JOB_NUM_NODES": "2"}
    refuse_nodes([("big", 2)], "local", steps)


def test_gpus_of_several_nodes_are_asked_for_by_node_and_with_the_model_of_the_profile() -> None:
    assert per_node(16, 2, None) == "gpu:8"
    assert per_node(4, 2, "h100") == "gpu:h100:2"


def test_every_rule_but_those_that_start_engines_runs_beside_snakemake() -> None:
    """A new rule must be put into `localrules`, or here."""
    rules = re.findall(r"^rule (\w+):", "".join(p.read_text() for p in RULES), re.MULTILINE)
    snakefile = (ROOT / "Snakefile").read_text()
    local = re.search(r"^localrules:\n((?:    \w+,\n)+)", snakefile, re.MULTILINE)
    assert local is not None
    assert set(rules) - set(re.findall(r"\w+", local[1])) == {"generate", "replicate_run"}


def test_a_job_is_told_by_its_number_and_an_array_task_by_both() -> None:
    environ = {"SLURM_JOB_ID": "12", "SLURMD_NODENAME": "n1"}
    assert job_facts({}) is None
    assert job_facts(environ) == {"job": "12", "node": "n1"}
    task = {**environ, "SLURM_ARRAY_JOB_ID": "10", "SLURM_ARRAY_TASK_ID": "3"}
    assert (job_facts(task) or {})["job"] == "10_3"


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP])
def test_a_shared_disk_without_locks_does_not_stop_a_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(number, "no locks here")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with ShardFolder(tmp_path / "journals", "batch.0") as folder:
        assert "pid" in (folder / "lock").read_text()


def test_no_resource_of_the_profile_is_derived_from_sizes_of_inputs() -> None:
    profile = yaml.safe_load((ROOT / "profiles/slurm/profile.yaml").read_text(encoding="utf-8"))
    written = [f"{key}={value}" for key, value in profile["default-resources"].items()]
    parse = Resources.parser_factory(allow_expressions=True, defaults="full")
    computed = [
        {name for name, value in parse(words).items() if value.is_evaluable()}
        for words in ([], written)
    ]
    # Snakemake's own are, and it warns of a coroutine where an input is not there yet.
    assert computed == [{"disk_mb", "mem_mb", "tmpdir"}, {"tmpdir"}]
