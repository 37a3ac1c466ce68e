"""Killing engines, supervisors and snakemake itself while the real command runs.

test_kills does it many times with the dummy engine, test_strict once each with vLLM.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import psutil

from tests.workflow.project import Project

GRACE_S = 120.0
"""What snakemake leaves behind when it is killed has so long to notice; it should take a second."""

WAIT_S = 240.0


@dataclass(frozen=True)
class Moment:
    """When to kill what: after `answers` answers and `delay` seconds more."""

    answers: int
    delay: float
    victim: str


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
        # Also before snakemake is killed: afterwards nobody can tell who came from it.
        found = self.descendants()
        if kind == "snakemake":
            return [] if self.ended() else [psutil.Process(self.process.pid)]
        return [process for process in found if kind_of(process) == kind]

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
            # Who has gone in between has a successor, or snakemake ends.
            if alive := [process for process in found if runs(process)]:
                return alive
        time.sleep(0.03)
    return []


@dataclass
class Story:
    """What has happened to a run."""

    killed: Counter[str] = field(default_factory=Counter)
    sessions: int = 0
    codes: Counter[int] = field(default_factory=Counter)


def run_with_kills(project: Project, plan: Sequence[Moment], seed: int) -> Story:
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
