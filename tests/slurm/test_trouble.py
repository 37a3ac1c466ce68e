"""What happens to jobs on a busy cluster, all of it at once: the bytes are those of a calm run."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.slurm.cluster import Cluster, wait_for
from tests.slurm.project import (
    MEMORY_MB,
    Call,
    engine_records,
    fill_in_profile,
    make_slurm_project,
    shard_answers,
)
from tests.workflow.kills import journaled, merged
from tests.workflow.project import Project

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

SHARDS = 4
REQUESTS = 3 * 24


@dataclass
class Story:
    """Projects on one cluster, and what was done to their jobs."""

    calm: Project
    disturbed: Project
    limited: Project
    exceeding: Project
    interrupted: Project
    outputs: dict[str, str] = field(default_factory=dict)
    fates: dict[str, str] = field(default_factory=dict)


@pytest.fixture(scope="module")
def story(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """Cancel, preempt, drain, take down and interrupt; limit a job's time."""
    folder = tmp_path_factory.mktemp("story")
    story = Story(
        calm=make_slurm_project(folder / "calm", None, 1),
        disturbed=make_slurm_project(folder / "disturbed", 1, SHARDS, latency_s=2.0),
        limited=make_slurm_project(folder / "limited", None, 1, latency_s=0.7),
        exceeding=make_slurm_project(folder / "exceeding", None, 1, latency_s=0.7),
        interrupted=make_slurm_project(folder / "interrupted", None, 1, latency_s=0.2),
    )
    story.calm.run("runs")
    # The second one gets no warning before its limit.
    asked = {"runtime": "attempt * 10", "mem_mb": f"attempt * {MEMORY_MB}"}
    fill_in_profile(story.limited, **asked, slurm_extra="'--signal=TERM@120 --exclude=n1'")
    fill_in_profile(story.exceeding, **asked, slurm_extra="'--exclude=n1'")
    calls = [
        Call(getattr(story, name), cluster, ("runs",))
        for name in ("limited", "exceeding", "disturbed")
    ]
    try:
        with ThreadPoolExecutor() as pool:
            warned = pool.submit(limit, story.limited, calls[0], cluster, 110)
            exceeded = pool.submit(exceed, story.exceeding, calls[1], cluster)
            disturb(story, calls[2], cluster)
            interrupt(story, cluster, calls)
            warned.result()
            exceeded.result()
        for name, call in zip(("limited", "exceeding", "disturbed"), calls, strict=False):
            story.outputs[name] = call.succeed()
        yield story
    finally:
        for call in calls:
            call.stop()
        cluster.resume()


def limit(project: Project, call: Call, cluster: Cluster, seconds: int) -> None:
    """Let the time of a job end in so many seconds, once its engine is answering."""
    call.wait("an answer", lambda: sum(shard_answers(project).values()) > 0)
    (job,) = call.jobs()
    cluster.end_in(job, seconds)


def exceed(project: Project, call: Call, cluster: Cluster) -> None:
    """Let the first attempt run out of time, and the second one out of memory.

    The simulated nodes enforce no memory, so it is killed as the kernel would: all its processes.
    """
    limit(project, call, cluster, 1)
    call.wait("a second attempt", lambda: "runtime=20" in call.output and bool(call.jobs()))
    (job,) = call.jobs()
    before = sum(shard_answers(project).values())
    call.wait("another answer", lambda: sum(shard_answers(project).values()) > before)
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("SLURM_JOB_ID") == job and process.cwd() == str(
                project.folder
            ):
                process.kill()


def disturb(story: Story, call: Call, cluster: Cluster) -> None:
    """Do to the four jobs what administrators, other users and broken nodes do."""
    call.wait("answers of all shards", lambda: len(shard_answers(story.disturbed)) == SHARDS)
    call.wait("an answer each", lambda: min(shard_answers(story.disturbed).values()) > 0)
    by_node: dict[str, list[str]] = {"n1": [], "n2": []}
    for job in call.jobs():
        by_node[cluster.call("squeue", "-h", "-j", job, "-o", "%N")].append(job)
    cancelled, lost = by_node["n1"]
    cluster.call("scancel", cancelled)
    cluster.set_node("n1", "drain")
    cluster.call("sbatch", "-p", "urgent", "--gpus=2", "-w", "n2", "-o", "/dev/null", "--wrap=true")
    preempted = set(by_node["n2"])
    wait_for("preemption", lambda: not preempted & set(call.jobs("running")))
    cluster.set_node("n1", "down")
    wait_for("loss of the node", lambda: lost not in call.jobs("running"))
    story.fates = {cancelled: "cancelled", lost: "lost", **dict.fromkeys(preempted, "preempted")}


def interrupt(story: Story, cluster: Cluster, calls: list[Call]) -> None:
    """Press Ctrl-C, look what is left, and call again."""
    calls.append(Call(story.interrupted, cluster, ("runs",)))
    calls[-1].wait("answers", lambda: sum(shard_answers(story.interrupted).values()) > 0)
    assert calls[-1].interrupt() != 0
    wait_for("end of its jobs", lambda: not calls[-1].jobs("pending,running,completing"))
    calls.append(Call(story.interrupted, cluster, ("runs",)))
    story.outputs["interrupted"] = calls[-1].succeed()


def engines(project: Project) -> dict[str, list[dict[str, Any]]]:
    """Return the records of the engine starts of each SLURM job."""
    found: dict[str, list[dict[str, Any]]] = {}
    for record in engine_records(project):
        found.setdefault(record["slurm"]["job"], []).append(record)
    return found


NAMES = ["disturbed", "limited", "exceeding", "interrupted"]


@pytest.mark.parametrize("name", NAMES)
def test_the_bytes_are_those_of_a_calm_run_on_one_machine(story: Story, name: str) -> None:
    expected = merged(story.calm)
    assert len(expected) == 2 * 3
    assert merged(getattr(story, name)) == expected


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_asked_twice(story: Story, name: str) -> None:
    counts = Counter(journaled(getattr(story, name)))
    assert len(counts) == REQUESTS
    assert set(counts.values()) == {1}


def test_jobs_that_slurm_queues_again_go_on_under_their_number(story: Story) -> None:
    found = engines(story.disturbed)
    again = {job: fate for job, fate in story.fates.items() if fate != "cancelled"}
    assert sorted(again.values()) == ["lost", "preempted", "preempted"]
    for job, fate in again.items():
        before, after = found[job]
        assert before["exit"] in ("interrupted", "crashed")
        assert after["exit"] == "finished"
        assert 0 < after["requests"] < REQUESTS / SHARDS
        assert (before["slurm"]["node"], after["slurm"]["node"]) == (
            ("n1", "n2") if fate == "lost" else ("n2", "n2")
        )


def test_a_cancelled_job_goes_on_in_another_one_elsewhere(story: Story) -> None:
    found = engines(story.disturbed)
    (cancelled,) = (job for job, fate in story.fates.items() if fate == "cancelled")
    (retry,) = set(found) - set(story.fates)
    assert found[retry][-1]["exit"] == "finished"
    assert found[retry][-1]["slurm"]["node"] == "n2"
    assert found[cancelled][0]["requests"] + found[retry][-1]["requests"] == REQUESTS / SHARDS
    assert "SLURM status is: 'CANCELLED'" in story.outputs["disturbed"]


def test_a_job_is_warned_before_its_limit_and_the_next_one_has_more_time(story: Story) -> None:
    warned, last = engine_records(story.limited)
    assert (warned["exit"], last["exit"]) == ("interrupted", "finished")
    assert 0 < warned["requests"] < REQUESTS
    output = story.outputs["limited"]
    assert "Trying to restart" in output
    assert "runtime=10" in output
    assert "runtime=20" in output


def test_a_job_beyond_its_limit_or_its_memory_is_killed_and_the_next_has_more_of_both(
    story: Story,
) -> None:
    late, killed, last = engine_records(story.exceeding)
    assert late["exit"] in ("interrupted", "crashed")
    assert (killed["exit"], last["exit"]) == ("crashed", "finished")
    output = story.outputs["exceeding"]
    assert "SLURM status is: 'TIMEOUT'" in output
    for attempt in (1, 2, 3):
        assert f"mem_mb={attempt * MEMORY_MB}," in output
        assert f"runtime={attempt * 10}" in output


def test_a_failure_names_the_logs_of_slurm_and_of_the_shard(story: Story) -> None:
    line = next(
        line for line in story.outputs["limited"].splitlines() if "check log file(s)" in line
    )
    shard, slurm = line.split(" (check")[0].split("log: ")[1].split(", ")
    assert shard.startswith("logs/generate/")
    assert "CANCELLED AT" in Path(slurm).read_text()


def test_ctrl_c_cancels_the_jobs_and_the_next_call_goes_on(story: Story) -> None:
    before, after = (records[0] for records in engines(story.interrupted).values())
    assert before["exit"] in ("interrupted", "crashed")
    assert 0 < after["requests"] < REQUESTS
