"""Engines, supervisors and snakemake itself die at random moments: nothing is lost, nothing twice.

The moments are drawn beforehand, as numbers of answers that are in the journals when a process is
killed, so that they spread over the whole run on any machine. LLM_BATCH_KILLS says how many there
are (12); with 50 the test takes some minutes.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from tests.workflow.project import Project, dummy_rows, make_project

KILLS = int(os.environ.get("LLM_BATCH_KILLS", "12"))
ROWS = 1000
REQUESTS = 3 * ROWS
SEQUENCES = 8
SHARDS = 2

GRACE_S = 15.0
"""What snakemake leaves behind when it is killed has so long to notice; it should take a second."""

WAIT_S = 120.0


@dataclass(frozen=True)
class Moment:
    """When to kill what: after `answers` answers and `delay` seconds more."""

    answers: int
    delay: float
    victim: str


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


def merged(project: Project) -> dict[str, bytes]:
    """Return what is merged of every run, by its name."""
    found = (project.folder / "results/runs").glob("*/*s.*")
    names = {"completions.parquet", "completions.jsonl", "failures.jsonl"}
    return {
        f"{path.parent.name.rpartition('-')[0]}/{path.name}": path.read_bytes()
        for path in found
        if path.name in names
    }


def journaled(project: Project) -> Iterator[str]:
    """Yield the requests that are answered in whole lines of journals, as often as they are."""
    for path in (project.folder / "results/engines").glob("*/journals/*.jsonl"):
        with path.open("rb") as stream:
            for line in stream:
                if line.startswith(b'{"key"') and line.endswith(b"\n"):
                    answer = json.loads(line)
                    yield f"{answer['key']}/{answer['max_tokens']}"


def count_answers(project: Project) -> int:
    """Return how many answers are journaled, without decoding them."""
    journals = (project.folder / "results/engines").glob("*/journals/*.jsonl")
    return sum(path.read_bytes().count(b'\n{"key"') for path in journals)


@dataclass
class Session:
    """One call of snakemake, its processes, and what they leave behind."""

    project: Project
    seen: dict[int, psutil.Process] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.log = (self.project.folder / "snakemake.log").open("ab")
        # A killed snakemake leaves its lock, which `snakemake --unlock` removes.
        for lock in (self.project.folder / ".snakemake/locks").glob("*"):
            lock.unlink()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "snakemake", "--cores", "2", "runs"],
            cwd=self.project.folder,
            stdout=self.log,
            stderr=self.log,
            env={**os.environ, "PYTHONPATH": ""},
            start_new_session=True,
        )

    def ended(self) -> bool:
        return self.process.poll() is not None

    def descendants(self) -> list[psutil.Process]:
        """Return the processes that came from snakemake, and remember them."""
        with contextlib.suppress(psutil.Error):
            for child in psutil.Process(self.process.pid).children(recursive=True):
                self.seen.setdefault(child.pid, child)
        return [process for process in self.seen.values() if runs(process)]

    def victims(self, kind: str) -> list[psutil.Process]:
        if kind == "snakemake":
            return [] if self.ended() else [psutil.Process(self.process.pid)]
        return [process for process in self.descendants() if kind_of(process) == kind]

    def end(self) -> int:
        """Wait for snakemake to end; return its exit code after nothing of it runs any more."""
        while not self.ended():
            self.descendants()
            time.sleep(0.05)
        deadline = time.monotonic() + GRACE_S
        while left := self.descendants():
            assert time.monotonic() < deadline, f"orphans: {[p.cmdline() for p in left]}"
            time.sleep(0.05)
        self.log.close()
        return self.process.returncode

    def kill_all(self) -> None:
        """End what runs, if a test has failed."""
        for process in self.descendants():
            with contextlib.suppress(psutil.Error):
                process.kill()
        if not self.ended():
            self.process.kill()
            self.process.wait()


def runs(process: psutil.Process) -> bool:
    """Tell whether a process (not another of the same number) runs and is no zombie."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def kind_of(process: psutil.Process) -> str | None:
    """Return what a process below snakemake is; shells between are nothing."""
    try:
        words = process.cmdline()
    except psutil.Error:
        return None
    if "--settings" in words and any(word.endswith("scripts/worker") for word in words):
        return "engine"
    return "supervisor" if words[1:3] == ["-m", "scripts.generate"] else None


def wait_for_moment(session: Session, moment: Moment) -> list[psutil.Process]:
    """Return whom to kill; nobody if snakemake has ended before there was any."""
    deadline = time.monotonic() + WAIT_S
    while not session.ended():
        assert time.monotonic() < deadline, f"no progress before {moment}"
        found = session.victims(moment.victim)
        if found and count_answers(session.project) >= moment.answers:
            time.sleep(moment.delay)
            return [process for process in found if runs(process)]
        time.sleep(0.03)
    return []


@dataclass
class Story:
    """What has happened to a run."""

    killed: Counter[str] = field(default_factory=Counter)
    sessions: int = 0
    codes: Counter[int] = field(default_factory=Counter)


def run_with_kills(project: Project, plan: list[Moment], seed: int) -> Story:
    """Run the workflow, kill at every moment, and start it again until it is done."""
    dice = random.Random(seed)
    story = Story()
    left = list(plan)
    while True:
        session = Session(project)
        story.sessions += 1
        try:
            while left and (found := wait_for_moment(session, left[0])):
                moment = left.pop(0)
                dice.choice(found).send_signal(signal.SIGKILL)
                story.killed[moment.victim] += 1
            code = session.end()
        finally:
            session.kill_all()
        story.codes[code] += 1
        assert story.sessions <= len(plan) + 3, "the workflow does not come to its end"
        if code == 0:
            return story


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
