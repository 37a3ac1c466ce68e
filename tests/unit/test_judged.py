"""A model as judge: rows from completions, verdicts counted by hand, kappa as published."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from scripts.derive_prompts import main as derive
from scripts.evaluate_run import evaluate_run
from scripts.llm_batch.addresses import address, write_json_atomic
from scripts.llm_batch.config.load import load_config
from scripts.llm_batch.digests import DigestMemo
from scripts.llm_batch.errors import WorkflowError
from scripts.llm_batch.evaluation.agreement import cohen, fleiss_estimate, verdict_counts
from scripts.llm_batch.evaluation.comparing import Options, Scored, compare
from scripts.llm_batch.plan.make import make_plan
from scripts.llm_batch.plan.records import Plan
from tests.unit.config_cases import BASE, make_project
from tests.unit.test_evaluate_run import completion, figures, write_run

VERDICT = {"type": "multiple_choice", "choices": "AB"}


def source(root: Path, name: str, records: list[dict[str, Any]], derived: bool = False) -> Path:
    """Write a merged run whose completions are to be judged."""
    folder = write_run(root / "runs" / name, records)
    prompts = {"from_runs": ["x"]} if derived else {"data": "d"}
    write_json_atomic(folder / "identity.json", {"identity": {"prompts": prompts}})
    return folder


def rows_of(root: Path, file: Path, *runs: Path) -> list[dict[str, Any]]:
    """Run the real program and return its rows."""
    identity = {"from_runs": [run.name for run in runs]}
    folder = root / "prompts" / f"judged-{address('prompts', identity)}"
    folder.mkdir(parents=True)
    output = folder / "rows.jsonl"
    words = ["--identity", json.dumps(identity), "--runs", *map(str, runs)]
    files = [str(file)] * len(runs)
    assert derive([*words, "--prompts", *files, "--output", str(output)]) == 0
    return [json.loads(line) for line in output.read_text().splitlines()]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    rows = [{"question": "1+1", "first": "mine", "level": 3}, {"question": "2+2"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_each_completion_of_a_run_is_a_row_and_errors_are_left_out(
    tmp_path: Path, file: Path
) -> None:
    chat = json.dumps([{"role": "system", "content": "s"}, {"role": "user", "content": "1+1?"}])
    run = source(
        tmp_path,
        "a",
        [
            completion("r1", 0, "two", None, prompt=chat),
            completion("r1", 1, None, None),
            completion("r2", 0, "four", None, prompt="2+2="),
        ],
    )
    rows = rows_of(tmp_path, file, run)
    assert [(row["id"], row["completion"], row["judged_row"]) for row in rows] == [
        ("r1/0", "two", 1),
        ("r2/0", "four", 2),
    ]
    assert (rows[0]["prompt"], rows[0]["messages"][0]["content"]) == ("1+1?", "s")
    assert (rows[1]["prompt"], rows[1]["question"]) == ("2+2=", "2+2")
    (manifest,) = tmp_path.glob("prompts/*/manifest.json")
    assert json.loads(manifest.read_text())["facts"] == {"rows": 2, "left_out": 1}


def test_two_runs_are_shown_in_both_orders(tmp_path: Path, file: Path) -> None:
    one = source(tmp_path, "a", [completion("r1", 0, "x", None), completion("r2", 0, "y", None)])
    two = source(tmp_path, "b", [completion("r1", 0, "z", None), completion("r2", 0, None, None)])
    rows = rows_of(tmp_path, file, one, two)
    assert [(row["id"], row["order"], row["favoured"]) for row in rows] == [
        ("r1/0/ab", "ab", "A"),
        ("r1/0/ba", "ba", "B"),
    ]
    assert [(row["first"], row["second"]) for row in rows] == [("x", "z"), ("z", "x")]
    assert rows[0]["row"]["first"] == "mine", "a field whose name is taken is still below row"


def test_verdicts_about_verdicts_are_about_the_first_rows(tmp_path: Path) -> None:
    path = tmp_path / "derived.jsonl"
    path.write_text('{"judged_row": 7, "id": "q/0"}\n')
    run = source(tmp_path, "a", [completion("r1", 0, "A", None)], derived=True)
    assert [row["judged_row"] for row in rows_of(tmp_path, path, run)] == [7]


def test_a_file_that_lost_lines_is_refused(tmp_path: Path, file: Path) -> None:
    run = source(tmp_path, "a", [completion("r9", 0, "x", None)])
    with pytest.raises(WorkflowError, match="has no line 9"):
        rows_of(tmp_path, file, run)


def duel(row: int, order: str, verdict: str | None, sample: int = 0) -> dict[str, Any]:
    favoured = {"ab": "A", "ba": "B"}[order]
    tags = json.dumps({"judged_row": row, "order": order})
    found = completion("x1", sample, verdict, favoured, tags=tags)
    return {**found, "row": f"q{row}/0/{order}", "line": 2 * row + (order == "ba")}


def judged(root: Path, records: list[dict[str, Any]], name: str = "judge") -> Path:
    """Evaluate a run of verdicts and return the evaluation's folder."""
    run = source(root, name, records, derived=True)
    identity = {"run": name, "metrics": {"verdict": VERDICT}}
    folder = root / "evaluations" / f"{name}-{address('evaluations', identity)}"
    outputs = (folder / "scores.parquet", folder / "metrics.json")
    evaluate_run(run, name, identity, *outputs)
    return folder


def test_wins_consistency_and_position_are_those_counted_by_hand(tmp_path: Path) -> None:
    folder = judged(
        tmp_path,
        [
            *(duel(1, "ab", "A"), duel(1, "ba", "B")),  # the first run, twice
            *(duel(2, "ab", "A"), duel(2, "ba", "A")),  # what was shown first, twice
            *(duel(3, "ab", "B"), duel(3, "ba", "A")),  # the second run, twice
            *(duel(4, "ab", "neither"), duel(4, "ba", "B")),  # no verdict, then the first run
        ],
    )
    found = figures(folder)
    wins = found["verdict", "win_rate", None]
    assert (wins["value"], wins["rows"], wins["completions"]) == ((1 + 0.5 + 0 + 0.75) / 4, 4, 8)
    assert wins["low"] < wins["value"] < wins["high"]
    consistent = found["verdict", "position_consistency", None]
    assert (consistent["value"], consistent["rows"]) == (pytest.approx(2 / 3), 3)
    # Shown first and chosen: 1 of 2, 2 of 2, 0 + 0 … by row: 0.5, 1, 0.5, 0.
    assert found["verdict", "first_position", None]["value"] == 0.5
    assert found["verdict", "accuracy", None]["value"] == (1 + 0.5 + 0 + 0.5) / 4


def test_the_rows_of_the_first_file_are_what_intervals_draw(tmp_path: Path) -> None:
    records = [duel(row, order, "A") for row in (1, 2, 3) for order in ("ab", "ba")]
    accuracy = figures(judged(tmp_path, records))["verdict", "accuracy", None]
    assert (accuracy["rows"], accuracy["samples"]) == (3, 2)


def test_fleiss_kappa_is_that_of_the_published_example() -> None:
    # Fleiss 1971 as in Wikipedia: ten subjects, fourteen raters, five categories.
    counts = np.asarray(
        [
            [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
            [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
        ]
    )  # fmt: skip
    found = fleiss_estimate(counts)
    assert found is not None
    assert found.value == pytest.approx(0.210, abs=0.0005)
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.value < found.high


def test_kappa_of_verdicts_that_cannot_disagree_is_unknown() -> None:
    assert fleiss_estimate(np.asarray([[2, 0], [2, 0]])) is None
    assert fleiss_estimate(verdict_counts(["a", "b"], ["A", "B"])) is None
    assert cohen(["A", "A"], ["A", "A"])["kappa"] is None


def test_cohens_kappa_is_that_of_the_textbook_example() -> None:
    # Wikipedia's first example: 20 both yes, 15 both no, 5 and 10 apart: kappa 0.4.
    pairs = [("y", "y")] * 20 + [("y", "n")] * 5 + [("n", "y")] * 10 + [("n", "n")] * 15
    found = cohen([a for a, _ in pairs], [b for _, b in pairs])
    assert found["kappa"] == pytest.approx(0.4)
    assert found["agreement"] == pytest.approx(0.7)


def test_two_judges_of_the_same_completions_are_compared(tmp_path: Path) -> None:
    runs = []
    for name, verdicts in (("one", "ABAB"), ("two", "ABBA")):
        records = [
            duel(row, order, verdicts[2 * row - 2 + place])
            for row in (1, 2)
            for place, order in enumerate(("ab", "ba"))
        ]
        folder = judged(tmp_path, records, name)
        identity = {
            "engine": {"model": name},
            "prompts": {"from_runs": ["x", "y"]},
            "sampling": {"params": {}, "n": 1},
        }
        runs.append(Scored(name, identity, {"verdict": "accuracy"}, folder / "scores.parquet"))
    (found,) = compare(runs, Options(None, "holm", 0.95))["comparisons"]
    assert (found["rows"], found["agreement"], found["kappa"]) == (2, 0.5, 0)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    make_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def plan(**changes: Any) -> Plan:
    raw = yaml.safe_load(BASE)
    raw["engines"]["cpu"]["backend"] = "dummy"
    raw["prompts"]["judged"] = {"from_run": "cpu.chat.warm", "template": "{{ completion }}?"}
    raw["runs"].insert(0, {"engine": "cpu", "prompts": "judged", "sampling": "greedy"})
    raw["samplings"]["warm"].update(changes)
    return make_plan(load_config(raw, []), Path("envs"), DigestMemo(Path("memo.json")))


def test_an_engine_that_judges_itself_has_two_batches_in_order(project: Path) -> None:
    found = plan()
    names = [[run.stage.name for run in batch.runs] for batch in found.batches.values()]
    assert names == [
        ["cpu.chat.greedy", "cpu.chat.warm", "cpu.plain.greedy"],
        ["cpu.judged.greedy"],
    ]
    assert next(run.stage.name for run in found.runs.values()) == "cpu.judged.greedy"
    (derived,) = found.derived.values()
    (judging,) = (run for run in found.runs.values() if run.stage.name == "cpu.judged.greedy")
    assert judging.prompts_path == derived.path
    assert derived.prompts_paths == ("data/rows.jsonl",)


def test_what_changes_a_run_changes_those_that_judge_it(project: Path) -> None:
    def addresses(found: Plan) -> dict[str, str]:
        return {run.stage.name: run.stage.address for run in found.runs.values()}

    before, after = addresses(plan()), addresses(plan(seed=5))
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"cpu.chat.warm", "cpu.judged.greedy"}


def share_covered(found: Iterable[tuple[float | None, float | None]], truth: float) -> float:
    """Return the share of intervals (low, high) that hold the true value."""
    return float(np.mean([low is not None and low <= truth <= (high or 1) for low, high in found]))


def test_95_of_100_intervals_of_fleiss_kappa_hold_the_true_one() -> None:
    # A judge is sure of a share of the prompts and guesses among three on the others: by Fleiss's
    # formula that share is kappa.
    sure, dice = 0.6, np.random.default_rng(20261124)
    found = []
    for _ in range(2000):
        answers = dice.integers(0, 3, size=(100, 4))
        certain = dice.random(100) < sure
        answers[certain] = answers[certain, :1]
        counts = (answers[:, :, None] == np.arange(3)).sum(axis=1)
        estimate = fleiss_estimate(counts)
        assert estimate is not None
        found.append((estimate.low, estimate.high))
    # Standard error of the coverage 0.005; percentile intervals of 100 rows cover a little less.
    assert 0.925 < share_covered(found, sure) < 0.965


def test_95_of_100_intervals_of_cohens_kappa_hold_the_true_one() -> None:
    # Two judges who agree on a share of the prompts and toss a coin each on the others.
    agreed, dice = 0.5, np.random.default_rng(20261124)
    found = []
    for _ in range(2000):
        a, b = dice.integers(0, 2, size=(2, 200))
        b = np.where(dice.random(200) < agreed, a, b)
        kappa = cohen([str(x) for x in a], [str(x) for x in b])
        found.append((kappa["kappa_low"], kappa["kappa_high"]))
    assert 0.925 < share_covered(found, agreed) < 0.97
