"""`determinism: strict` on a real vLLM engine: the same bytes whatever the placement.

The CPU engine without split attention computes each sequence alone, to the bit; see "What is
reproducible" in the README.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.workflow.kills import Moment, journaled, merged, run_with_kills
from tests.workflow.project import ROOT, Project, make_project

pytestmark = pytest.mark.engine

ROWS = 100
MakeProject = Callable[..., Project]


def strict_config(**tuning: Any) -> dict[str, Any]:
    """Return a config of greedy and sampled runs on one strict engine."""
    return {
        "experiment": "strict",
        "models": {"adder": {"path": "config/quickstart/model"}},
        "engines": {
            "adder": {
                "model": "adder",
                "environment": "cpu",
                "args": {"dtype": "float32", "max_model_len": 64},
                "tuning": tuning,
            }
        },
        "prompts": {
            "chat": {
                "path": "prompts.jsonl",
                "messages": [{"role": "user", "content": "{{ question }}"}],
                "reference": "answer",
                "id": "id",
            }
        },
        "samplings": {
            "greedy": {"temperature": 0, "max_tokens": 16},
            "hot": {"temperature": 1.5, "n": 4, "seed": 7, "max_tokens": 16},
        },
        "metrics": {"number": {"type": "numeric_match"}},
        "runs": [
            {
                "engine": "adder",
                "prompts": "chat",
                "sampling": ["greedy", "hot"],
                "determinism": "strict",
            }
        ],
    }


def quickstart_rows() -> list[dict[str, Any]]:
    path = ROOT / "config/quickstart/prompts.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines][:ROWS]


@pytest.fixture(scope="module")
def make(cpu_environment: Path, tmp_path_factory: pytest.TempPathFactory) -> MakeProject:
    """A function that makes a project with the real environment, rows and placement."""

    def build(rows: list[dict[str, Any]], **tuning: Any) -> Project:
        project = make_project(tmp_path_factory.mktemp("strict") / "project")
        shutil.copytree(
            ROOT / "config/quickstart/model", project.folder / "config/quickstart/model"
        )
        environments = project.folder / "results/environments"
        environments.mkdir(parents=True)
        (environments / cpu_environment.name).symlink_to(cpu_environment)
        project.write_config(strict_config(**tuning))
        project.write_prompts(rows)
        return project

    return build


@pytest.fixture(scope="module")
def undisturbed(make: MakeProject) -> Project:
    """One shard, run once."""
    project = make(quickstart_rows())
    project.run("runs")
    return project


@pytest.mark.parametrize(
    "tuning",
    [{"shards": 2, "max_num_seqs": 5}, {"shards": 5}],
    ids=["2 shards, 5 sequences at a time", "5 shards"],
)
def test_placement_does_not_change_a_byte(
    make: MakeProject, undisturbed: Project, tuning: dict[str, Any]
) -> None:
    project = make(quickstart_rows(), **tuning)
    project.run("runs")
    assert merged(project) == merged(undisturbed)


def test_the_order_of_rows_does_not_change_an_answer(
    make: MakeProject, undisturbed: Project
) -> None:
    rows = quickstart_rows()
    shuffled = make(sorted(rows, key=lambda row: row["id"][::-1]), max_num_seqs=16)
    shuffled.run("runs")
    for run in ("greedy", "hot"):
        assert answers(shuffled, run) == answers(undisturbed, run)


def answers(project: Project, run: str) -> dict[tuple[str, int], Any]:
    """Return what was answered to each row and sample, whatever its line."""
    path = project.one(f"runs/adder.chat.{run}-*/completions.jsonl")
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {
        (record["row"], record["sample"]): (record["seed"], record["token_ids"], record["text"])
        for record in records
    }


def test_engine_supervisor_and_snakemake_killed_once_each_change_no_byte(
    make: MakeProject, undisturbed: Project
) -> None:
    """Each at a random moment of a third of the run; LLM_BATCH_KILL_SEED repeats a failure."""
    seed = int(os.environ.get("LLM_BATCH_KILL_SEED") or random.SystemRandom().randrange(10**6))
    dice = random.Random(seed)
    victims = dice.sample(["engine", "supervisor", "snakemake"], 3)
    plan = [
        Moment(dice.randrange(5 + 140 * third, 100 + 140 * third), dice.random() * 0.1, victim)
        for third, victim in enumerate(victims)
    ]
    print(f"LLM_BATCH_KILL_SEED={seed}: {plan}")
    project = make(quickstart_rows(), max_num_seqs=2)
    story = run_with_kills(project, plan, seed)
    print(f"{dict(story.killed)} killed in {story.sessions} calls, exit codes {dict(story.codes)}")
    assert story.killed == {"engine": 1, "supervisor": 1, "snakemake": 1}
    assert merged(project) == merged(undisturbed)
    # Every answer that was journaled when a kill came is there, and was not asked again.
    counts = Counter(journaled(project))
    assert len(counts) == sum(counts.values()) == 5 * ROWS
