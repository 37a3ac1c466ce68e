"""Runs of one task of lm-evaluation-harness are compared document by document.

And what settings are called in the report.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from scripts.llm_batch.report.comparisons import compare_experiment
from scripts.llm_batch.report.records import Experiment

TASK = {"lm_eval": {"task": "adding_choices", "harness": "b6e66ec64845"}}


def run(folder: Path, engine: str, right: int) -> Any:
    """Return a run of which the first `right` of 40 documents, two requests each, are right."""
    evaluation = folder / engine
    evaluation.mkdir()
    scores = [[float(number < right), None] for number in range(40)]
    table = {
        "row": [f"adding_choices/{number}/{part}" for number in range(40) for part in (0, 1)],
        "sample": [0] * 80,
        "acc": [score for pair in scores for score in pair],
        "acc.extracted": pa.nulls(80, pa.string()),
    }
    pq.write_table(pa.table(table), evaluation / "scores.parquet")
    value = SimpleNamespace(metric="acc", statistic="accuracy")
    length = SimpleNamespace(metric=None, statistic="mean_completion_tokens")
    identity = {"engine": engine, "prompts": TASK, "sampling": {"params": {}, "n": 1}}
    return SimpleNamespace(
        name=engine,
        label=engine,
        identity=identity,
        evaluation=evaluation,
        values=[value, length],
        metrics={"metrics": {}},
    )


def test_two_engines_on_one_task_are_compared(tmp_path: Path) -> None:
    runs = [run(tmp_path, "small", right=20), run(tmp_path, "large", right=36)]
    found = compare_experiment(cast("Experiment", SimpleNamespace(runs=runs)), {})
    (one,) = found.document["comparisons"]
    assert (one["metric"], one["rows"]) == ("acc", 40)
    assert one["difference"] == 0.4
    assert one["p_corrected"] < 0.001


def test_a_setting_of_several_seeds_is_not_named_after_one_of_them(tmp_path: Path) -> None:
    runs = [run(tmp_path, f"hot+top_p_0.9+seed_{seed}", right=20 + seed) for seed in (1, 2)]
    for seed, one in enumerate(runs):
        one.identity = {**one.identity, "engine": "e", "sampling": {"params": {}, "seed": seed}}
    alone = run(tmp_path, "cold+seed_1", right=30)
    found = compare_experiment(cast("Experiment", SimpleNamespace(runs=[*runs, alone])), {})
    assert sorted(found.labels.values()) == ["cold+seed_1", "hot+top_p_0.9 (2 seeds)"]
