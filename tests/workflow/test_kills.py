"""Engines, supervisors and snakemake itself die at random moments: nothing is lost, nothing twice.

The moments are drawn beforehand, as numbers of answers that are in the journals when a process is
killed, so that they spread over the whole run on any machine. LLM_BATCH_KILLS says how many there
are (12); with 50 the test takes some minutes. test_strict does the same once each with vLLM.
"""

from __future__ import annotations

import base64
import json
import os
import random
import shutil
import signal
from collections import Counter
from pathlib import Path

import pytest

from tests.workflow.kills import (
    Moment,
    Session,
    count_answers,
    journaled,
    merged,
    run_with_kills,
    wait_for_moment,
)
from tests.workflow.project import Project, dummy_rows, make_project

KILLS = int(os.environ.get("LLM_BATCH_KILLS", "12"))
ROWS = 1000
REQUESTS = 3 * ROWS
SEQUENCES = 8
SHARDS = 2


def moments(count: int, seed: int) -> list[Moment]:
    """Return `count` random moments of one run, in their order, with each kind of victim alike.

    Snakemake alone is killed before the first answer and after the last, too.
    """
    dice = random.Random(seed)
    victims = (["engine", "supervisor", "snakemake"] * count)[: count - 2]
    drawn = [
        Moment(dice.randrange(0, REQUESTS * 17 // 20), dice.random() * 0.3, victim)
        for victim in victims
    ]
    drawn.append(Moment(0, dice.uniform(0.5, 4), "snakemake"))
    drawn.append(Moment(REQUESTS, dice.random(), "snakemake"))
    return sorted(drawn, key=lambda moment: moment.answers)


def make_kill_project(folder: Path, seconds: float) -> Project:
    """Return a project of 3000 requests whose two shards take `seconds` each, undisturbed."""
    project = make_project(folder)
    project.write_prompts(dummy_rows(ROWS))
    config = project.read_config()
    latency = seconds * SEQUENCES * SHARDS / REQUESTS
    config["engines"]["toy"]["dummy"] = {"latency_s": round(latency, 6)}
    config["engines"]["toy"]["tuning"] = {"max_num_seqs": SEQUENCES, "shards": SHARDS}
    project.write_config(config)
    return project


@pytest.mark.slow
def test_kills_at_random_moments_lose_nothing_and_ask_nothing_twice(tmp_path: Path) -> None:
    calm = make_kill_project(tmp_path / "calm", seconds=0)
    calm.run("runs")
    project = make_kill_project(tmp_path / "killed", seconds=0.9 * KILLS)
    story = run_with_kills(project, moments(KILLS, seed=KILLS), seed=KILLS)
    print(f"{dict(story.killed)} killed in {story.sessions} calls, exit codes {dict(story.codes)}")
    # Moments after the end of a fast run are none; there are few of them on any machine.
    assert story.killed.total() >= 0.8 * KILLS
    assert set(story.killed) == {"engine", "supervisor", "snakemake"}
    expected = merged(calm)
    assert len(expected) == 2 * 3
    assert merged(project) == expected
    counts = Counter(journaled(project))
    twice = sum(counts.values()) - len(counts)
    print(f"{len(counts)} requests, {twice} answers twice")
    assert len(counts) == REQUESTS
    # An answer is with the kernel when its step ends, so only losing the machine could lose it.
    assert twice == 0
    facts = [json.loads(path.read_text()) for path in project.folder.glob("results/runs/*/facts*")]
    assert all(not fact["errors"] for fact in facts)
    assert project.run("--dry-run", "runs").nothing_to_do


def test_a_job_whose_snakemake_is_killed_while_it_loads_does_not_run_on(tmp_path: Path) -> None:
    """It cannot see its Snakemake any more, and must not take itself for called by hand."""
    project = make_kill_project(tmp_path / "at-once", seconds=3000)
    session = Session(project)
    try:
        while not session.victims("supervisor"):
            assert not session.ended()
        session.process.kill()
        assert session.end() == -signal.SIGKILL
    finally:
        session.kill_all()
    assert count_answers(project) < REQUESTS


def test_an_interrupt_of_snakemake_alone_stops_its_engines(tmp_path: Path) -> None:
    project = make_kill_project(tmp_path / "interrupted", seconds=300)
    session = Session(project)
    try:
        wait_for_moment(session, Moment(20, 0.0, "engine"))
        session.process.send_signal(signal.SIGINT)
        session.end()
    finally:
        session.kill_all()
    assert 20 <= count_answers(project) < REQUESTS
    ends = (project.folder / "results/engines").glob("*/shards/*/*.*.*.json")
    exits = [json.loads(p.read_text())["exit"] for p in ends if "engine" not in p.name]
    assert set(exits) == {"interrupted"}


def test_a_kill_just_after_the_last_answers_does_not_hide_what_is_left(project: Project) -> None:
    """Where a job's outputs were there, Snakemake took all that follows for finished."""
    shutil.rmtree(project.folder / "results/runs")
    for path in ("completions/0.parquet", "facts/0.json"):
        name = project.one(f"batches/*/{path}").relative_to(project.folder).as_posix()
        marker = base64.urlsafe_b64encode(name.encode()).decode()
        (project.folder / ".snakemake/incomplete").mkdir(exist_ok=True)
        (project.folder / ".snakemake/incomplete" / marker).touch()
    assert project.planned("runs") == {"merge_run": 2}


def test_moments_spread_over_the_run_and_the_victims() -> None:
    plan = moments(50, seed=0)
    assert len(plan) == 50
    kinds = Counter(moment.victim for moment in plan)
    assert set(kinds) == {"engine", "supervisor", "snakemake"}
    assert min(kinds.values()) >= 16
    assert (plan[0].answers, plan[-1].answers) == (0, REQUESTS)
    assert plan == moments(50, seed=0) != moments(50, seed=1)
