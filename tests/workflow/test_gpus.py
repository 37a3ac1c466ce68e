"""The real snakemake on machines with simulated GPUs; the dummy engine leases them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scripts.llm_batch.machine.read import SIMULATED_MACHINE, read_machine
from scripts.llm_batch.machine.records import to_json
from tests.gpus.simulated import simulated_inventory
from tests.workflow.project import Project, make_project


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setenv("LLM_BATCH_LOCK_FOLDER", str(tmp_path / "locks"))
    return make_project(tmp_path / "project")


def on_machine(project: Project, monkeypatch: pytest.MonkeyPatch, gpus: int) -> None:
    """Let the next calls see a machine with so many simulated GPUs."""
    machine = read_machine(Path(), {})
    record = project.folder.parent / f"machine-{gpus}.json"
    simulated = replace(machine, origin="made up", inventory=simulated_inventory(gpus))
    record.write_text(json.dumps(to_json(simulated)))
    monkeypatch.setenv(SIMULATED_MACHINE, str(record))


def engine_on(project: Project, gpus: int, shards: Any) -> None:
    """Have the engine of the project's config lease GPUs."""
    config = project.read_config()
    for engine in config["engines"].values():
        engine["dummy"] = {"gpus": gpus}
        engine["tuning"] = {"shards": shards}
    project.write_config(config)


def leases(project: Project) -> list[list[str]]:
    """Return the UUIDs that each shard had."""
    paths = sorted(project.folder.glob("results/batches/*/facts/*.json"))
    return [json.loads(path.read_text())["gpu_lease"]["uuids"] for path in paths]


def test_auto_makes_a_shard_for_each_gpu_and_another_machine_asks_nothing_again(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_machine(project, monkeypatch, 2)
    engine_on(project, gpus=1, shards="auto")
    project.run()
    found = leases(project)
    assert len(found) == 2
    assert all(len(uuids) == 1 for uuids in found)
    on_machine(project, monkeypatch, 6)
    assert project.run().nothing_to_do
    on_machine(project, monkeypatch, 0)
    assert project.run().nothing_to_do


def test_engines_that_no_machine_or_limit_can_hold_are_refused_before_anything_runs(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_machine(project, monkeypatch, 2)
    engine_on(project, gpus=4, shards=1)
    assert project.planned(), "a plan can be looked at anywhere"
    refused = project.snakemake()
    assert refused.code == 1
    assert "takes 4 GPUs, and --resources gpu=2 lets jobs have no more" in refused.output
    refused = project.snakemake("--resources", "gpu=4")
    assert refused.code == 1
    assert "the engine needs 4 GPUs, this machine has 2" in refused.output
    assert not list(project.folder.glob("results/batches/*"))


def test_a_limit_above_the_machine_has_jobs_wait_for_each_other(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_machine(project, monkeypatch, 1)
    engine_on(project, gpus=1, shards=3)
    project.run("--resources", "gpu=8")
    assert [len(uuids) for uuids in leases(project)] == [1, 1, 1]
    assert len({uuid for uuids in leases(project) for uuid in uuids}) == 1
    assert not list((project.folder.parent / "locks").glob("ticket-*"))
