"""A judge waits for the runs it judges, in one call; a second call finds everything in place."""

from __future__ import annotations

import json

import pyarrow.parquet as pq

from tests.workflow.project import Project


def test_judges_join_the_chain(project: Project) -> None:
    config = project.read_config()
    config["engines"]["judge"] = {**config["engines"]["toy"], "dummy": {"length": 3}}
    config["prompts"]["judged"] = {
        "from_run": "toy.questions.warm",
        "template": "{{ question }} {{ completion }} {{ sample }}",
        "reference": "answer",
    }
    config["prompts"]["duel"] = {
        "from_runs": ["toy.questions.greedy", "toy.questions.warm"],
        "template": "{{ prompt }} A: {{ first }} B: {{ second }}",
    }
    config["metrics"]["verdict"] = {"type": "multiple_choice", "choices": "AB"}
    config["runs"] += [
        # The same engine as before: it is started again for what it judges.
        {"engine": "toy", "prompts": "judged", "sampling": "greedy", "metrics": "exact"},
        {"engine": "judge", "prompts": "duel", "sampling": "warm", "metrics": "verdict"},
    ]
    project.write_config(config)
    planned = project.planned()
    assert (planned["derive_prompts"], planned["generate"], planned["merge_run"]) == (2, 2, 2)

    before = project.answered()
    project.run()
    assert project.answered() - before == 12 * 2 + 12 * 2 * 2
    rows = pq.read_table(project.one("runs/judge.duel.warm-*/completions.parquet")).to_pylist()
    assert [row["row"] for row in rows[:3:2]] == ["q0/0/ab", "q0/0/ba"]
    assert rows[0]["prompt"].startswith("What is number 0? A: ")
    metrics = json.loads(project.one("evaluations/judge.duel.warm-*/metrics.json").read_text())
    wins = next(value for value in metrics["values"] if value["statistic"] == "win_rate")
    # A dummy chooses neither: every verdict is missing.
    assert (wins["value"], wins["rows"], wins["completions"]) == (0.5, 12, 48)
    assert project.run().nothing_to_do
