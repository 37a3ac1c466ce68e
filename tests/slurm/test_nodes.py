"""One engine on two nodes, whose processes die one after another. The engine is the dummy."""

from __future__ import annotations

import re
import signal
from collections import Counter
from functools import partial
from pathlib import Path

import psutil
import pytest

from tests.slurm.cluster import NODES, wait_for
from tests.slurm.conftest import Submit
from tests.slurm.project import (
    SECONDS,
    engine_records,
    fill_in_profile,
    make_slurm_project,
    shard_answers,
)
from tests.workflow.kills import journaled
from tests.workflow.project import Project

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

REQUESTS = 3 * 24


def processes(project: Project, module: str) -> list[psutil.Process]:
    """Return the processes of a project, on any node, that run a module of ours."""
    found = []
    for process in psutil.process_iter():
        try:
            if module in process.cmdline() and process.cwd() == str(project.folder):
                found.append(process)
        except psutil.Error:
            continue
    return found


def supervisor(project: Project) -> psutil.Process:
    """Return the process that leads the engine."""
    (found,) = (one for one in processes(project, "scripts.generate") if "srun" not in one.name())
    return found


def followers(project: Project) -> list[psutil.Process]:
    """Return the workers on the second node."""
    tasks = [one for one in processes(project, "scripts.join_engine") if "srun" not in one.name()]
    return [worker for task in tasks for worker in task.children()]


def launchers(project: Project) -> list[psutil.Process]:
    """Return what started the tasks on the second node."""
    return [one for one in supervisor(project).children() if one.name() == "srun"]


def test_an_engine_on_two_nodes_outlives_the_death_of_any_of_its_processes(
    submit: Submit, tmp_path: Path
) -> None:
    project = make_slurm_project(tmp_path / "project", 2, 1, latency_s=0.3)
    config = project.read_config()
    config["engines"]["toy"]["tuning"]["nodes"] = 2
    project.write_config(config)
    # With a model SLURM is told of it twice, in --gpus and in --gres.
    fill_in_profile(project, gpu_model="h100")
    call = submit(project, "runs")

    def ready(starts: int) -> bool:
        found = list(project.folder.glob("results/engines/*/shards/*/*.engine.json"))
        return len(found) >= starts and bool(followers(project))

    for number, victims in enumerate((followers, launchers), start=1):
        call.wait("an engine on two nodes", partial(ready, number))
        for victim in victims(project):
            victim.send_signal(signal.SIGKILL)
    call.wait("another engine", partial(ready, 3))
    answered = sum(shard_answers(project).values())
    assert answered < REQUESTS
    supervisor(project).send_signal(signal.SIGKILL)
    wait_for("end of the tasks", lambda: not processes(project, "scripts.join_engine"), SECONDS)
    call.succeed()

    records = engine_records(project)
    exits = Counter(record["exit"] for record in records)
    assert exits["crashed"] == 3
    assert records[-1]["exit"] == "finished"
    assert {(record["nodes"], record["visible_gpus"]) for record in records} == {(2, "0")}
    counts = Counter(journaled(project))
    assert len(counts) == REQUESTS
    assert set(counts.values()) == {1}
    log = re.compile(rf"[0-9]\.({'|'.join(NODES)})\.log$")
    named = [path for path in project.folder.rglob("*.log") if log.search(path.name)]
    assert len(named) == len(records)
