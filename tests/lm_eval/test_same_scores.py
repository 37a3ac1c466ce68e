"""Tasks through the real snakemake command, held against the harness's own vLLM backend.

Both have the same tiny engine in float32 on a CPU; nothing is fetched from anywhere.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq
import pytest

from tests.workflow.project import ROOT, Project, make_project

pytestmark = pytest.mark.engine

TASKS = "tests/lm_eval/tasks"
NAMES = ("adding_chat", "adding_choices", "adding_shots", "adding_texts")
WHOLE_S = 1200
"""On two cores with nothing else to do it takes about a minute."""
OFFLINE = {"HF_HUB_OFFLINE": "1"}

# What the workflow's strict CPU engine has, for a peer that computes the same to the last bit.
STRICT = {
    "TORCHDYNAMO_DISABLE": "1",
    "VLLM_CPU_ATTN_SPLIT_KV": "0",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
}


class Both(NamedTuple):
    """Our project, finished, and the peer's results by task."""

    project: Project
    peer: dict[str, Any]

    def evaluation(self, task: str) -> Path:
        return self.project.one(f"evaluations/adder.{task}.task-*")

    def samples(self, task: str) -> list[dict[str, Any]]:
        text = (self.evaluation(task) / "lm_eval_samples.jsonl").read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines()]


def tasks_config() -> dict[str, Any]:
    return {
        "experiment": "tasks",
        "models": {"adder": {"path": "config/quickstart/model"}},
        "engines": {
            "adder": {
                "model": "adder",
                "environment": "cpu",
                "args": {"dtype": "float32", "max_model_len": 64},
            }
        },
        "prompts": {name: {"lm_eval_task": f"{TASKS}/{name}.yaml"} for name in NAMES},
        "runs": [
            {
                "engine": "adder",
                "prompts": list(NAMES),
                "sampling": "task",
                "determinism": "strict",
            }
        ],
    }


def peer_command(engine: Path, harness: Path, output: Path) -> list[str]:
    """Return the command of the harness's own backend, in the engine's environment."""
    (packages,) = (harness / "lib").glob("python3*/site-packages")
    words = [engine / "bin/python", ROOT / "tests/lm_eval/peer.py", packages, output, "{}"]
    return [*map(str, words), *(f"{TASKS}/{name}.yaml" for name in NAMES)]


@pytest.fixture(scope="module")
def both(
    cpu_environment: Path, lm_eval_environment: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Both]:
    """The same tasks by both ways, at the same time."""
    project = make_project(tmp_path_factory.mktemp("tasks") / "project")
    for part in ("config/quickstart/model", TASKS):
        shutil.copytree(ROOT / part, project.folder / part)
    environments = project.folder / "results/environments"
    environments.mkdir(parents=True)
    for environment in (cpu_environment, lm_eval_environment):
        (environments / environment.name).symlink_to(environment)
    project.write_config(tasks_config())
    output = project.folder.parent / "peer.json"
    log = output.with_name("peer.log")
    private = {**os.environ, **OFFLINE, **STRICT, "HF_HOME": str(output.with_name("hf"))}
    with (
        log.open("w", encoding="utf-8") as stream,
        subprocess.Popen(
            peer_command(cpu_environment, lm_eval_environment, output),
            cwd=project.folder,
            env=private,
            stdout=stream,
            stderr=stream,
        ) as peer,
    ):
        try:
            outcome = project.snakemake(seconds=WHOLE_S)
            peer.wait(WHOLE_S)
        finally:
            peer.kill()
    assert outcome.code == 0, outcome.output
    assert peer.returncode == 0, log.read_text(encoding="utf-8")[-3000:]
    found = json.loads(output.read_text(encoding="utf-8"))
    yield Both(project, {Path(task).stem: record for task, record in found.items()})


@pytest.mark.parametrize("task", NAMES)
def test_every_document_has_the_score_that_the_harness_gives_it(both: Both, task: str) -> None:
    ours, theirs = both.samples(task), both.peer[task]["samples"][task]
    assert len(ours) == len(theirs) > 0
    for own, other in zip(ours, theirs, strict=True):
        # Prompts, answers (log-likelihoods to the last bit), filtered answers, and scores.
        assert {key: value for key, value in own.items() if key != "task"} == other


@pytest.mark.parametrize("task", NAMES)
def test_the_figures_are_those_of_the_harness(both: Both, task: str) -> None:
    document = json.loads((both.evaluation(task) / "metrics.json").read_text(encoding="utf-8"))
    theirs = both.peer[task]["results"][task]
    assert document["lm_eval"]["results"][task] == theirs
    figures = {value["metric"]: value for value in document["values"] if value["metric"]}
    expected = {
        key.removesuffix(",none"): value
        for key, value in theirs.items()
        if "," in key and "_stderr" not in key
    }
    assert figures.keys() == expected.keys()
    for name, value in expected.items():
        assert figures[name]["value"] == pytest.approx(value, rel=1e-9)


def test_the_tasks_are_ones_that_can_tell_ways_apart(both: Both) -> None:
    scores = {sample["acc_mutual_info"] for sample in both.samples("adding_choices")}
    assert scores == {0.0, 1.0}
    for task in ("adding_chat", "adding_shots"):
        texts = {sample["resps"][0][0] for sample in both.samples(task)}
        assert len(texts) > 5


def test_a_document_counts_once_in_the_table_of_scores(both: Both) -> None:
    for task, requests in (("adding_choices", 8), ("adding_chat", 1)):
        table = pq.read_table(both.evaluation(task) / "scores.parquet")
        metric = next(name for name in table.column_names if name not in ("row", "sample"))
        scores = table.column(metric).to_pylist()
        documents = [place for place, score in enumerate(scores) if score is not None]
        assert len(documents) == 40
        assert documents == list(range(0, 40 * requests, requests))


def test_only_the_log_probabilities_that_count_are_kept(both: Both) -> None:
    run = both.project.one("runs/adder.adding_choices.task-*")
    table = pq.read_table(run / "completions.parquet", columns=["prompt_logprobs", "prompt_tokens"])
    for row in table.to_pylist():
        assert len(json.loads(row["prompt_logprobs"])) < row["prompt_tokens"]


def test_a_second_run_does_nothing_and_a_changed_task_asks_its_own_requests_only(
    both: Both,
) -> None:
    project = both.project
    assert project.run().nothing_to_do
    yaml = project.folder / TASKS / "adding_chat.yaml"
    text = yaml.read_text(encoding="utf-8")
    try:
        yaml.write_text(text.replace("version: 1.0", "version: 1.1"), encoding="utf-8")
        planned = project.planned()
    finally:
        yaml.write_text(text, encoding="utf-8")
    assert planned["build_task"] == planned["merge_run"] == planned["evaluate_run"] == 1
    assert project.run("--dry-run").nothing_to_do


def test_the_report_shows_the_harness_s_figures(both: Both) -> None:
    page = both.project.folder / "results/experiments/tasks/report.html"
    text = page.read_text(encoding="utf-8")
    assert "exact_match,number" in text
    assert "acc_norm" in text
