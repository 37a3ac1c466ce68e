"""Worker processes, their kin, and the workflow above."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from scripts.llm_batch.errors import WorkflowError
from scripts.llm_batch.generate import process as module
from scripts.llm_batch.generate.guard import (
    WORKFLOW,
    Guard,
    announce,
    has_ended,
    is_snakemake,
    workflow_chain,
)
from scripts.llm_batch.generate.process import WorkerProcess, adopt_orphans

SCRIPT = """
import subprocess, sys, time
child = [sys.executable, "-c", "import time; time.sleep(60)"]
subprocess.Popen(child, start_new_session=True)
print("ready", flush=True)
time.sleep(60)
"""


@pytest.fixture
def strangers() -> set[psutil.Process]:
    """Helpers of Python's own that other tests in this process have left behind."""
    return set(psutil.Process().children(recursive=True))


@pytest.fixture
def worker(
    strangers: set[psutil.Process], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[WorkerProcess]:
    """A worker that ignores everything and has a child in a session of its own."""
    script = tmp_path / "worker.py"
    script.write_text(SCRIPT)
    monkeypatch.setattr(module, "WORKER", script)
    adopt_orphans()
    process = WorkerProcess(Path(sys.executable), tmp_path, os.environ, tmp_path / "log")
    while "ready" not in (tmp_path / "log").read_text():
        time.sleep(0.01)
    yield process
    process.end()


def kin(strangers: set[psutil.Process]) -> list[psutil.Process]:
    return [
        child
        for child in psutil.Process().children(recursive=True)
        if child.status() != psutil.STATUS_ZOMBIE and child not in strangers
    ]


def test_nothing_that_came_from_a_worker_outlives_its_end(
    worker: WorkerProcess, strangers: set[psutil.Process]
) -> None:
    assert len(kin(strangers)) == 2
    worker.end()
    assert kin(strangers) == []


def test_orphans_of_a_killed_worker_are_found(
    worker: WorkerProcess, strangers: set[psutil.Process]
) -> None:
    os.kill(worker.pid, signal.SIGKILL)
    assert worker.wait(300) == -signal.SIGKILL
    worker.end()
    assert kin(strangers) == []


def test_waiting_ends_with_the_worker_or_the_time(worker: WorkerProcess) -> None:
    began = time.monotonic()
    assert worker.wait(0.05) is None
    assert time.monotonic() - began > 0.04
    assert worker.stop() == -signal.SIGTERM


def test_an_interpreter_that_is_missing_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(WorkflowError, match="build the environment again"):
        WorkerProcess(tmp_path / "python", tmp_path, {}, tmp_path / "log")


@pytest.mark.parametrize(
    ("words", "yes"),
    [
        (["/opt/bin/python", "/opt/bin/snakemake", "--cores", "all"], True),
        (["python", "-m", "snakemake", "--cores", "4"], True),
        (["snakemake"], True),
        (["bash", "-c", "snakemake --cores all"], False),
        (["vim", "notes", "about", "the", "snakemake"], False),
        ([], False),
    ],
)
def test_snakemake_is_known_by_its_command_line(words: list[str], yes: bool) -> None:
    assert is_snakemake(words) is yes


def test_without_snakemake_there_is_nothing_to_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scripts.llm_batch.generate.guard.is_snakemake", lambda words: False)
    assert workflow_chain(psutil.Process()) == []


def test_a_workflow_that_was_killed_before_anybody_looked_is_missed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("scripts.llm_batch.generate.guard.is_snakemake", lambda words: False)
    monkeypatch.setenv(WORKFLOW, "")
    assert not Guard(os.environ).abandoned()
    announce()
    alive = os.environ[WORKFLOW]
    assert not has_ended(alive)
    assert not Guard(os.environ).abandoned()
    # The number of a process that has ended is given to another, which started later.
    assert has_ended(f"{os.getpid()} 12.5")
    with subprocess.Popen(["true"]) as ended:
        ended.wait()
    assert Guard({WORKFLOW: f"{ended.pid} 12.5"}).abandoned()
