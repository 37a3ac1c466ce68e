"""What cannot run here is refused by the real snakemake command before a job starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.llm_batch.machine.read import SIMULATED_MACHINE
from tests.workflow.project import ROOT, Project


@pytest.fixture
def real_project(fresh_project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project whose engine is a real one, on a simulated machine."""
    project = fresh_project
    config = project.read_config()
    config["engines"]["toy"].update(backend="vllm", environment="cu130")
    project.write_config(config)
    on_machine("h100-driver-535", monkeypatch)
    return project


def on_machine(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = ROOT / "tests" / "machines" / f"composed-{name}.json"
    monkeypatch.setenv(SIMULATED_MACHINE, str(path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def made(project: Project) -> list[Path]:
    return sorted(path for path in (project.folder / "results").glob("*/*") if path.is_dir())


def test_an_environment_that_does_not_run_here_can_be_planned_and_is_not_started(
    real_project: Project,
) -> None:
    real_project.run("--dry-run")
    before = made(real_project)
    outcome = real_project.snakemake()
    assert outcome.code == 1
    assert "engines.toy: environment cu130 does not run here: CUDA 13.0 needs driver" in (
        outcome.output
    )
    assert "Traceback" not in outcome.output
    assert made(real_project) == before


def test_auto_is_said_once_and_planned_by_its_name(real_project: Project) -> None:
    outcome = real_project.run("--dry-run", "--config", "environment=auto")
    assert outcome.output.count("environment auto is cu129 here: the newest that driver") == 1
    assert "results/environments/cu129-" in outcome.output
    assert "results/environments/auto" not in outcome.output
