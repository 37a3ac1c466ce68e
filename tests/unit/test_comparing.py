"""Runs on the same rows are compared row by row, seeds are pooled, gates say what was shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from statsmodels.stats.multitest import multipletests

from scripts.llm_batch.evaluation.comparing import Options, Scored, compare
from scripts.llm_batch.evaluation.gates import judge_gates
from scripts.llm_batch.report.comparisons import rounded

ALL = Options(None, "holm", 0.95)


def scored(
    folder: Path,
    name: str,
    scores: list[list[float | None]],
    data: str = "d",
    rows: list[str] | None = None,
    **sampling: Any,
) -> Scored:
    """Write scores.parquet with a list of samples for each row."""
    names = rows or [f"r{place}" for place in range(len(scores))]
    table = {
        "row": [row for row, own in zip(names, scores, strict=True) for _ in own],
        "sample": [sample for own in scores for sample in range(len(own))],
        "m": pa.array([value for own in scores for value in own], pa.float64()),
        "m.extracted": pa.array([None for own in scores for _ in own], pa.string()),
    }
    path = folder / f"{name}.parquet"
    pq.write_table(pa.table(table), path)
    identity = {
        "engine": {"model": "x"},
        "prompts": {"data": data, "template": name},
        "sampling": {"params": {"temperature": 1}, "n": len(scores[0]), **sampling},
    }
    return Scored(name, identity, {"m": "accuracy"}, path)


def test_a_p_value_is_never_rounded_to_nothing() -> None:
    found = rounded({"comparisons": [{"p": 1.23456789e-40, "difference": 1e-17}], "p": "a word"})
    assert found == {"comparisons": [{"p": 1.23457e-40, "difference": 0.0}], "p": "a word"}


def single(values: str) -> list[list[float | None]]:
    return [[float(value)] for value in values]


def test_rows_are_paired_by_name_whatever_their_order(tmp_path: Path) -> None:
    a = scored(tmp_path, "a", single("0011"), rows=["w", "x", "y", "z"])
    b = scored(tmp_path, "b", single("0110"), rows=["z", "y", "x", "w"])
    (found,) = compare([a, b], ALL)["comparisons"]
    assert (found["a"], found["b"], found["rows"]) == ("a", "b", 4)
    # By name: w 0 and 0, x 0 and 1, y 1 and 1, z 1 and 0.
    assert (found["value_a"], found["value_b"], found["difference"]) == (0.5, 0.5, 0.0)
    assert found["p"] == 1


def test_ids_that_repeat_are_paired_in_their_order(tmp_path: Path) -> None:
    a = scored(tmp_path, "a", [[1, 1], [0, 0]], rows=["same", "same"])
    b = scored(tmp_path, "b", [[1, 0], [1, 1]], rows=["same", "same"])
    (found,) = compare([a, b], ALL)["comparisons"]
    assert (found["rows"], found["value_a"], found["value_b"]) == (2, 0.5, 0.75)


def test_only_rows_that_both_have_count(tmp_path: Path) -> None:
    a = scored(tmp_path, "a", [[1], [None], [0], [1]])
    b = scored(tmp_path, "b", [[1], [1], [1]])
    (found,) = compare([a, b], ALL)["comparisons"]
    assert (found["rows"], found["difference"]) == (2, 0.5)


def test_runs_on_other_rows_are_not_compared(tmp_path: Path) -> None:
    document = compare(
        [scored(tmp_path, "a", single("01")), scored(tmp_path, "b", single("01"), data="e")], ALL
    )
    assert document["comparisons"] == []
    assert document["absent"] == [
        {"a": "a", "b": "b", "reason": "their prompts are not of the same rows"}
    ]


@pytest.mark.parametrize(
    ("correction", "method"), [("holm", "holm"), ("benjamini_hochberg", "fdr_bh")]
)
def test_p_values_are_corrected_as_statsmodels_does(
    tmp_path: Path, correction: str, method: str
) -> None:
    generator = np.random.default_rng(2)
    runs = [
        scored(tmp_path, name, [[float(x)] for x in generator.random(80) < share])
        for name, share in (("a", 0.3), ("b", 0.5), ("c", 0.8))
    ]
    found = compare(runs, Options(None, correction, 0.95))["comparisons"]
    assert [(one["a"], one["b"], one["family"]) for one in found] == [
        ("a", "b", 3),
        ("a", "c", 3),
        ("b", "c", 3),
    ]
    wanted = multipletests([one["p"] for one in found], method=method)[1]
    assert [one["p_corrected"] for one in found] == pytest.approx(wanted.tolist())
    assert [one["significant"] for one in found] == (wanted < 0.05).tolist()


def test_with_a_baseline_every_run_is_compared_with_it_alone(tmp_path: Path) -> None:
    runs = [scored(tmp_path, name, single("0101")) for name in "abc"]
    found = compare(runs, Options("b", "none", 0.95))["comparisons"]
    assert [(one["a"], one["b"]) for one in found] == [("b", "a"), ("b", "c")]


def test_runs_that_differ_in_their_seed_only_are_one_setting(tmp_path: Path) -> None:
    def run(name: str, values: str, seed: int, temperature: float = 1) -> Scored:
        found = scored(tmp_path, name, single(values), seed=seed)
        identity = {
            **found.identity,
            "prompts": {"data": "d"},
            "sampling": {"params": {"temperature": temperature}, "n": 1, "seed": seed},
        }
        return Scored(name, identity, found.statistics, found.scores)

    runs = [run("a1", "0011", 1), run("b", "1111", 1, 0.5), run("a2", "0111", 2)]
    document = compare(runs, ALL)
    assert document["settings"] == [
        {"name": "a1 (2 seeds)", "runs": ["a1", "a2"]},
        {"name": "b", "runs": ["b"]},
    ]
    (seeds,) = document["seeds"]
    assert (seeds["seeds"], seeds["value"], seeds["rows"]) == (2, 0.625, 4)
    assert (seeds["lowest"], seeds["highest"]) == (0.5, 0.75)
    assert seeds["between_seed_sd"] == pytest.approx(np.std([0.5, 0.75], ddof=1))
    (found,) = document["comparisons"]
    assert (found["a"], found["b"], found["difference"]) == ("a1 (2 seeds)", "b", 0.375)


def gate(**keys: Any) -> dict[str, Any]:
    return {"metric": "m", "margin": 0.0, "lower_is_better": False, "level": 0.95, **keys}


def halves(share: float, rows: int = 400, seed: int = 0) -> list[list[float | None]]:
    draw = np.random.default_rng(seed).random((rows, 4)) < share
    return [[float(value) for value in row] for row in draw]


@pytest.mark.parametrize(
    ("share", "margin", "rows", "passed", "word"),
    [
        (0.80, 0.05, 400, True, "difference"),
        (0.60, 0.05, 400, False, "refuted"),
        (0.80, 0.05, 40, False, "not shown"),
    ],
)
def test_a_gate_says_whether_it_was_shown_refuted_or_neither(
    tmp_path: Path, share: float, margin: float, rows: int, passed: bool, word: str
) -> None:
    base = scored(tmp_path, "a", halves(0.8, rows))
    run = scored(tmp_path, "b", halves(share, rows, seed=6))
    (found,) = judge_gates([gate(run="b", baseline="a", margin=margin)], [base, run])
    assert found["passed"] is passed
    assert word in found["message"]
    assert ("rows like these would show it" in found["message"]) == (word == "not shown")


def test_where_lower_is_better_the_sign_turns(tmp_path: Path) -> None:
    runs = [scored(tmp_path, "a", halves(0.8)), scored(tmp_path, "b", halves(0.6, seed=1))]
    worse, better = judge_gates(
        [
            gate(run="a", baseline="b", margin=0.05, lower_is_better=True),
            gate(run="b", baseline="a", margin=0.05, lower_is_better=True),
        ],
        runs,
    )
    assert (worse["passed"], better["passed"]) == (False, True)
    assert worse["difference"] > 0 > better["difference"]


@pytest.mark.parametrize(
    ("limit", "passed", "word"),
    [
        ({"at_least": 0.7}, True, "at worst"),
        ({"at_least": 0.9}, False, "refuted"),
        ({"at_least": 0.79}, False, "not shown"),
        ({"at_most": 0.9}, True, "at worst"),
        ({"at_most": 0.7}, False, "refuted"),
    ],
)
def test_a_limit_is_passed_by_the_bound_and_not_by_the_mean(
    tmp_path: Path, limit: dict[str, float], passed: bool, word: str
) -> None:
    (found,) = judge_gates([gate(run="a", **limit)], [scored(tmp_path, "a", halves(0.8))])
    assert found["passed"] is passed
    assert word in found["message"]


def test_runs_without_a_common_row_pass_no_gate(tmp_path: Path) -> None:
    runs = [
        scored(tmp_path, "a", single("1"), rows=["x"]),
        scored(tmp_path, "b", single("1"), rows=["y"]),
    ]
    (found,) = judge_gates([gate(run="b", baseline="a")], runs)
    assert found["passed"] is False
    assert "no scored row in common" in found["message"]


def test_one_gate_in_twenty_passes_by_chance_if_the_run_is_just_too_bad(tmp_path: Path) -> None:
    generator = np.random.default_rng(9)
    passes = 0
    simulations = 300
    for _ in range(simulations):
        base = (generator.random(300) < 0.8).astype(float)
        # Exactly the margin worse: 0.05.
        own = np.where(base > 0, generator.random(300) < 0.9375, 0.0).astype(float)
        runs = [
            scored(tmp_path, "a", [[float(x)] for x in base]),
            scored(tmp_path, "b", [[float(x)] for x in own]),
        ]
        (found,) = judge_gates([gate(run="b", baseline="a", margin=0.05)], runs)
        passes += found["passed"]
    assert passes / simulations <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / simulations)


def test_more_pairs_than_anybody_reads_are_left_out_with_the_cure(tmp_path: Path) -> None:
    first = scored(tmp_path, "a", [[0.0], [1.0], [1.0]])
    runs = [
        Scored(name, {**first.identity, "engine": {"model": name}}, first.statistics, first.scores)
        for name in (f"r{place}" for place in range(101))
    ]
    document = compare(runs, ALL)
    assert document["comparisons"] == []
    assert document["too_many"] == (
        "101 settings make 5050 pairs, more than 5000; name one run that the others are compared "
        "with (comparisons: {baseline: NAME})"
    )
    with_one = compare(runs, Options("r0", "holm", 0.95))
    assert len(with_one["comparisons"]) == 100
    assert "too_many" not in with_one
