"""`snakemake replicate` with the real command and the dummy engine, which is deterministic."""

from __future__ import annotations

import json

from tests.workflow.project import Project


def test_a_sample_is_answered_again_and_compared(project: Project) -> None:
    answered = project.answered()
    project.run("replicate", "--config", "replicate=9")
    record = json.loads(
        project.one("replications/toy.questions.warm-*/replication.json").read_text()
    )
    assert (record["compared"], record["identical"]) == (9, 9)
    assert project.answered() == answered


def test_a_replication_that_is_there_is_not_made_again(project: Project) -> None:
    project.run("replicate", "--config", "replicate=3")
    assert project.planned("replicate", "--config", "replicate=3") == {}


def test_without_a_number_nothing_is_replicated(project: Project) -> None:
    assert project.planned("replicate") == {}
