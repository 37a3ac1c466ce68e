"""Calls of snakemake on a cluster that go on while a test does something to it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.slurm.cluster import Cluster, wait_for
from tests.workflow.project import Project, dummy_rows, make_project

SECONDS = 400.0
"""Waiting ends after so long; other tests may keep the machine busy."""

MEMORY_MB = 500
POLL_S = 3
"""What a small and quick cluster needs otherwise than the profile says."""


@dataclass
class Call:
    """A running `snakemake --profile profiles/slurm`."""

    project: Project
    cluster: Cluster
    arguments: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] = field(init=False)

    def __post_init__(self) -> None:
        command = [sys.executable, "-m", "snakemake", "--profile", "profiles/slurm"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, *self.arguments],
                cwd=self.project.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**self.cluster.environment, "PYTHONPATH": ""},
                start_new_session=True,
            )

    @property
    def log(self) -> Path:
        """What snakemake says."""
        return self.project.folder / "snakemake.log"

    @property
    def output(self) -> str:
        """What snakemake has said so far."""
        return self.log.read_text(errors="replace")

    def wait(self, what: str, holds: Callable[[], bool]) -> None:
        """Wait until `holds()`, which must be before snakemake ends."""
        wait_for(what, lambda: holds() or self.process.poll() is not None, SECONDS)
        assert holds(), f"snakemake ended before there was {what}:\n{self.output}"

    def jobs(self, states: str = "running") -> list[str]:
        """Return the ids of this call's jobs."""
        folder = str(self.project.folder)
        words = ("squeue", "--noheader", "--format=%i %Z", f"--states={states}", "--sort=i")
        lines = [line.split() for line in self.cluster.call(*words).splitlines()]
        return [number for number, workdir in lines if workdir == folder]

    def end(self) -> int:
        """Wait for the end of snakemake; return its exit code."""
        try:
            return self.process.wait(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"snakemake does not end:\n{self.output}") from None

    def succeed(self) -> str:
        """Wait for the end, insist on success, and return the output."""
        assert self.end() == 0, self.output
        return self.output

    def interrupt(self) -> int:
        """Send what Ctrl-C sends; return the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.end()

    def stop(self) -> None:
        """End what a failed test left; the cluster's own jobs end with the cluster."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def fill_in_profile(project: Project, **generate: Any) -> None:
    """Do what a user does with the profile: say what this cluster's `generate` jobs ask for."""
    path = project.folder / "profiles/slurm/profile.yaml"
    profile = yaml.safe_load(path.read_text(encoding="utf-8"))
    profile["default-resources"]["mem_mb"] = MEMORY_MB
    profile["set-resources"]["generate"].update({"mem_mb": MEMORY_MB, **generate})
    profile["slurm-init-seconds-before-status-checks"] = POLL_S
    path.write_text(yaml.safe_dump(profile), encoding="utf-8")


def make_slurm_project(folder: Path, gpus: int | None, shards: int, **dummy: Any) -> Project:
    """Return a project of 3 × 24 requests on a dummy engine that takes `gpus`."""
    project = make_project(folder)
    project.write_prompts(dummy_rows(24))
    config = project.read_config()
    engine = config["engines"]["toy"]
    engine["dummy"] = {**dummy, **({"gpus": gpus} if gpus else {})}
    engine["tuning"] = {"shards": shards, "max_num_seqs": 1}
    project.write_config(config)
    fill_in_profile(project)
    return project


def engine_records(project: Project) -> list[dict[str, Any]]:
    """Return the records of all engine starts that a finished project's facts tell of."""
    paths = (project.folder / "results/batches").glob("*/facts/*.json")
    return [record for path in sorted(paths) for record in json.loads(path.read_text())["engines"]]


def shard_answers(project: Project) -> dict[str, int]:
    """Return how many answers the journals hold of each shard, by its number."""
    counts: dict[str, int] = {}
    for path in (project.folder / "results/engines").glob("*/journals/*.jsonl"):
        shard = path.name.split(".")[1]
        counts[shard] = counts.get(shard, 0) + path.read_bytes().count(b'\n{"key"')
    return counts
