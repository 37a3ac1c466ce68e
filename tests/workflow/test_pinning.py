"""What has no commit can be planned and not run; what has one is planned without any network."""

from __future__ import annotations

from typing import Any

import pytest

from tests.workflow.project import Project, dummy_config


def hub_config(**model: Any) -> dict[str, Any]:
    """Return a config of a real engine with a model on the hub."""
    config = dummy_config()
    config["models"] = {"gemma": {"repo": "google/gemma-2-9b-it", **model}}
    config["engines"] = {"gemma": {"model": "gemma", "environment": "cpu"}}
    config["runs"][0]["engine"] = "gemma"
    return config


def test_without_a_commit_a_plan_is_shown_and_a_run_refused(fresh_project: Project) -> None:
    fresh_project.write_config(hub_config())
    message = (
        "models.gemma: without a revision, so this can be planned but not run; "
        "`python -m scripts.pin config/config.yaml` writes the newest commit"
    )
    dry = fresh_project.run("--dry-run")
    assert message in dry.output
    assert dry.jobs()["fetch_model"] == 1
    refused = fresh_project.snakemake()
    assert refused.code == 1
    assert message in refused.output
    assert "Traceback" not in refused.output
    assert not list((fresh_project.folder / "results").glob("*/*/manifest.json"))


@pytest.mark.parametrize("target", ["models", "all"])
def test_with_a_commit_nothing_is_asked_of_the_hub_to_plan(
    fresh_project: Project, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    fresh_project.write_config(hub_config(revision="a" * 40))
    assert fresh_project.planned(target)["fetch_model"] == 1


def test_a_branch_is_refused_with_the_command_that_pins_it(fresh_project: Project) -> None:
    fresh_project.write_config(hub_config(revision="main"))
    refused = fresh_project.snakemake("--dry-run")
    assert refused.code == 1
    assert (
        "models.gemma.revision: 'main' can come to mean other files, a commit (40 hexadecimal "
        "digits) cannot; `python -m scripts.pin config/config.yaml` writes the commit in its place"
    ) in refused.output


def test_a_rehearsal_needs_no_commit(fresh_project: Project) -> None:
    fresh_project.write_config(hub_config())
    rehearsal = fresh_project.run("--config", "backend=dummy")
    assert "without a revision" not in rehearsal.output
