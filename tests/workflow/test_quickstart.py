"""The quickstart on a real vLLM engine, from the config to the report."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.workflow.project import PARTS, ROOT, Project

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def quickstart(cpu_environment: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The quickstart, run once in a copy of the checkout, with the environment that is built."""
    project = copy_of_checkout(tmp_path_factory.mktemp("quickstart"), cpu_environment)
    project.run()
    return project


def copy_of_checkout(folder: Path, environment: Path) -> Project:
    for part in (*PARTS, "config"):
        source, target = ROOT / part, folder / part
        if source.is_dir():
            shutil.copytree(
                source, target, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True
            )
        else:
            shutil.copy(source, target)
    (folder / "results/environments").mkdir(parents=True)
    (folder / "results/environments" / environment.name).symlink_to(environment)
    return Project(folder)


def headline(project: Project, experiment: str = "quickstart") -> dict[str, dict[str, str]]:
    path = project.folder / f"results/experiments/{experiment}/tables/headline.csv"
    with path.open(encoding="utf-8", newline="") as stream:
        return {row["run"].split(".", 1)[1]: row for row in csv.DictReader(stream)}


def accuracy(row: dict[str, str]) -> float:
    return float(row["number.accuracy"])


def test_accuracy_is_that_of_the_model_card(quickstart: Project) -> None:
    card = (ROOT / "config/quickstart/README.md").read_text(encoding="utf-8")
    runs = headline(quickstart)
    for form in ("chat", "plain"):
        # Rows in error count as wrong in the report, and are left out on the card.
        row = runs[f"{form}.greedy"]
        answered = int(row["completions"]) - int(row["errors"])
        right = round(accuracy(row) * int(row["completions"]))
        share = right / answered
        assert share >= 0.95
        claimed = re.search(rf"{form} greedy accuracy: ([0-9.]+) %", card)
        assert claimed is not None, f"the card does not state '{form} greedy accuracy: … %'"
        assert share == pytest.approx(float(claimed[1]) / 100, abs=0.002)


def test_accuracy_falls_with_temperature_and_cutting_the_tail_helps(quickstart: Project) -> None:
    runs = {name: accuracy(row) for name, row in headline(quickstart).items()}
    assert runs["chat.greedy"] > runs["chat.warm"] > runs["chat.hot"]
    assert runs["chat.hot-top_p"] > runs["chat.hot"]
    assert runs["chat.hot-top_k"] > runs["chat.hot"]


def test_more_samples_find_more_right_answers(quickstart: Project) -> None:
    path = quickstart.one("evaluations/adder-cpu.chat.hot-[0-9a-f]*/metrics.json")
    values = json.loads(path.read_text())["values"]
    curve = [v["value"] for v in values if v["metric"] == "number" and v["statistic"] == "pass@k"]
    assert len(curve) == 3
    assert curve == sorted(curve)
    assert curve[-1] > curve[0] + 0.1


def test_rows_that_must_fail_are_typed_errors(quickstart: Project) -> None:
    path = quickstart.one("runs/adder-cpu.chat.greedy-*/failures.jsonl")
    kinds = {json.loads(line)["error"]["type"] for line in path.read_text().splitlines()}
    assert kinds == {"prompt_too_long", "prompt_empty"}


def test_one_engine_start_answers_all_runs(quickstart: Project) -> None:
    facts = json.loads(quickstart.one("batches/*/facts/0.json").read_text())
    assert len(facts["engines"]) == 1
    assert facts["engines"][0]["backend"] == "vllm"
    assert facts["engines"][0]["version"].startswith("0.28")
    assert facts["recovered"] == 0


def test_a_second_run_has_nothing_to_do(quickstart: Project) -> None:
    assert quickstart.run().nothing_to_do


def test_own_prompts_go_through_an_own_model_without_editing_a_file(quickstart: Project) -> None:
    rows: list[dict[str, Any]] = [
        {"prompt": "39+29=", "reference": "68"},
        {"messages": [{"role": "user", "content": "What is 69 - 72?"}], "reference": "-3"},
    ]
    quickstart.write_prompts(rows, "mine.jsonl")
    quickstart.run("--config", "model=config/quickstart/model", "prompts=mine.jsonl")
    lines = (
        quickstart.folder / "results/experiments/one-off/runs/model.mine.greedy/completions.jsonl"
    )
    answers = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [answer["text"] for answer in answers] == ["68", "-3"]
    assert answers[0]["rendered_prompt"] is None
    assert "What is 69 - 72?" in answers[1]["rendered_prompt"]
