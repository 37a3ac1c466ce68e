"""What the workflow knows about SLURM without a cluster."""

from __future__ import annotations

import errno
import fcntl
from pathlib import Path
from typing import Any

import pytest

from scripts.llm_batch.errors import ConfigError
from scripts.llm_batch.generate.state import ShardFolder
from scripts.llm_batch.slurm import check_arrays, job_facts, threads


@pytest.mark.parametrize(
    ("rules", "jobs", "batches"),
    [
        (None, 1, [(1, 4), (2, 4)]),
        ("merge_run", 1, [(1, 4), (2, 4)]),
        ("generate", 8, [(2, 4), (2, 4)]),
        ("all", None, [(1, 4)]),
    ],
)
def test_arrays_that_work_are_let_through(
    rules: str | None, jobs: int | None, batches: list[tuple[int, int]]
) -> None:
    check_arrays(rules, jobs, batches)


@pytest.mark.parametrize(
    ("rules", "jobs", "batches", "message"),
    [
        ("generate", 100, [(1, 4), (2, 4)], "take 1 or 2; leave it out"),
        ("merge_run, generate", 7, [(1, 8)], "give --jobs 8 or more"),
        ("merge_run;all", 7, [(1, 4), (1, 4)], "some of 8 shards"),
    ],
)
def test_arrays_that_would_hang_or_give_wrong_gpus_are_refused(
    rules: str, jobs: int, batches: list[tuple[int, int]], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        check_arrays(rules, jobs, batches)


def test_threads_grow_with_the_gpus_and_a_rehearsal_takes_one() -> None:
    assert [threads(gpus, False) for gpus in (0, 1, 8)] == [1, 4, 18]
    assert threads(0, True) == 8


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
