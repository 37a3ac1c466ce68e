"""evaluate_run from completions.parquet to metrics.json and scores.parquet."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scripts.evaluate_run import main, parse_identity
from scripts.llm_batch.addresses import address
from scripts.llm_batch.errors import ConfigError, WorkflowError
from scripts.llm_batch.evaluation.document import DEFINITIONS, Subject, metrics_document
from scripts.llm_batch.evaluation.metrics import Judgement, NamedMetric
from scripts.llm_batch.evaluation.scoring import COLUMNS, read_completions, score
from scripts.llm_batch.tables import COMPLETIONS

Record = dict[str, Any]

NUMBER = {"type": "numeric_match", "errors": "wrong"}


def completion(row: str, sample: int, text: str | None, reference: Any, **other: Any) -> Record:
    """One row of completions.parquet; text None is an error."""
    record: dict[str, Any] = dict.fromkeys(COMPLETIONS.names)
    record |= {
        "row": row,
        "line": int(row.strip("abcdefghijklmnopqrstuvwxyz") or 1),
        "sample": sample,
        "prompt": "?",
        "reference": None if reference is None else json.dumps(reference),
        "text": text,
        "finish_reason": "error" if text is None else "stop",
        "truncated_prompt_tokens": 0,
        "completion_tokens": 0 if text is None else len(text.split()),
        "error_type": "prompt_too_long" if text is None else None,
        "error_message": "too long" if text is None else None,
    }
    return record | other


def write_run(folder: Path, records: Sequence[dict[str, Any]]) -> Path:
    folder.mkdir(parents=True)
    pq.write_table(
        pa.Table.from_pylist(list(records), schema=COMPLETIONS), folder / "completions.parquet"
    )
    return folder


def evaluate(root: Path, run: Path, metrics: dict[str, Any]) -> Path:
    identity = {"run": "0123456789ab", "metrics": metrics}
    folder = root / "evaluations" / f"demo-{address('evaluations', identity)}"
    outputs = [
        "--scores",
        str(folder / "scores.parquet"),
        "--metrics",
        str(folder / "metrics.json"),
    ]
    given = ["--run", str(run), "--identity", json.dumps(identity), "--name", "demo"]
    assert main([*given, *outputs]) == 0
    return folder


def document(folder: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    return loaded


def figures(folder: Path) -> dict[tuple[str | None, str, int | None], dict[str, Any]]:
    values = document(folder)["values"]
    found = {(value["metric"], value["statistic"], value["k"]): value for value in values}
    assert len(found) == len(values)
    return found


SAMPLED = [
    completion("r1", 0, "it is 4", 4),
    completion("r1", 1, "4", 4, finish_reason="length"),
    completion("r1", 2, "5", 4),
    completion("r1", 3, "none", 4),
    completion("r2", 0, "1 2 3", 3),
    completion("r2", 1, "3", 3),
    completion("r2", 2, "3", 3),
    completion("r2", 3, "3", 3),
    completion("r3", 0, "7", 8),
    completion("r3", 1, "8", 8),
    completion("r3", 2, None, 8),
    completion("r3", 3, None, 8),
    completion("r4", 0, "9", None),
    completion("r4", 1, "9", None),
    completion("r4", 2, "9", None),
    completion("r4", 3, "9", None),
]


@pytest.fixture
def sampled(tmp_path: Path) -> Path:
    return write_run(tmp_path / "runs" / "demo-0123456789ab", SAMPLED)


def test_statistics_of_a_small_run_are_those_counted_by_hand(tmp_path: Path, sampled: Path) -> None:
    found = figures(evaluate(tmp_path, sampled, {"number": NUMBER}))
    values = {key: value["value"] for key, value in found.items()}
    assert values["number", "accuracy", None] == pytest.approx((2 / 4 + 1 + 1 / 4) / 3)
    assert values["number", "pass@k", 1] == pytest.approx(values["number", "accuracy", None])
    assert values["number", "pass@k", 2] == pytest.approx((1 - 1 / 6 + 1 + 1 - 3 / 6) / 3)
    assert values["number", "pass@k", 4] == 1.0
    # r1: 4 4 5 -; r2: 3 3 3 3; r3: 7 8 tie.
    assert values["number", "majority@n", 4] == pytest.approx((1 + 1 + 0.5) / 3)
    # it is 4, 4, 5, none | 1 2 3, 3, 3, 3 | 7, 8 | 9, 9, 9, 9
    assert values[None, "unique_answers", None] == pytest.approx((1 + 2 / 4 + 1 + 1 / 4) / 4)
    assert values[None, "distinct-1", None] == pytest.approx((5 / 6 + 3 / 6 + 1 + 1 / 4) / 4)
    assert values[None, "truncated", None] == pytest.approx(1 / 16)
    accuracy = found["number", "accuracy", None]
    assert (accuracy["rows"], accuracy["samples"], accuracy["completions"]) == (3, 4, 12)
    for value in found.values():
        assert (value["interval"] is None) == (value["low"] is None) == (value["high"] is None)
        if value["interval"] is not None:
            assert value["low"] <= value["value"] <= value["high"]


def test_counts_say_what_had_no_score_and_why(tmp_path: Path, sampled: Path) -> None:
    metrics = document(evaluate(tmp_path, sampled, {"number": NUMBER}))
    assert metrics["run"] == "demo"
    assert metrics["address"] == "0123456789ab"
    assert metrics["finish_reasons"] == {"error": 2, "length": 1, "stop": 13}
    assert metrics["errors"] == {"prompt_too_long": 2}
    record = metrics["metrics"]["number"]
    assert record["scored"] == 12
    assert record["errors"] == {"reference_missing": 4, "failed": 0}
    assert record["no_answer"] == 1
    assert record["settings"]["errors"] == "wrong"
    assert metrics["lengths"]["completions"] == 14
    assert (metrics["lengths"]["min"], metrics["lengths"]["max"]) == (1, 3)


def test_errors_can_be_left_out_instead_of_counted_as_wrong(tmp_path: Path, sampled: Path) -> None:
    folder = evaluate(tmp_path, sampled, {"number": {**NUMBER, "errors": "skip"}})
    found = figures(folder)
    assert found["number", "accuracy", None]["value"] == pytest.approx((2 / 4 + 1 + 1 / 2) / 3)
    # r3 has two scored samples only, so nothing can be said of four.
    assert found["number", "pass@k", 4]["rows"] == 2
    assert found["number", "pass@k", 4]["completions"] == 8
    scores = pq.read_table(folder / "scores.parquet")["number"].to_pylist()
    assert scores[8:12] == [0.0, 1.0, None, None]


def test_scores_are_null_without_a_reference_and_zero_for_an_error(
    tmp_path: Path, sampled: Path
) -> None:
    table = pq.read_table(evaluate(tmp_path, sampled, {"number": NUMBER}) / "scores.parquet")
    assert table.column_names == ["row", "sample", "number", "number.extracted"]
    assert table["row"].to_pylist() == [record["row"] for record in SAMPLED]
    assert table["number"].to_pylist() == [1, 1, 0, 0, 1, 1, 1, 1, 0, 1, 0, 0] + [None] * 4
    extracted = ["4", "4", "5", None, "3", "3", "3", "3", "7", "8", None, None] + [None] * 4
    assert table["number.extracted"].to_pylist() == extracted


def test_the_same_run_gives_the_same_bytes(tmp_path: Path, sampled: Path) -> None:
    metrics = {"number": NUMBER, "word": {"type": "contains"}}
    first = evaluate(tmp_path / "first", sampled, metrics)
    second = evaluate(tmp_path / "second", sampled, dict(reversed(metrics.items())))
    for name in ("scores.parquet", "metrics.json", "identity.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    assert sorted(path.name for path in first.iterdir()) == [
        "identity.json",
        "manifest.json",
        "metrics.json",
        "scores.parquet",
    ]


def test_one_sample_a_row_has_wilson_intervals_and_no_vote(tmp_path: Path) -> None:
    records = [completion(f"r{i}", 0, str(i % 3), 0) for i in range(1, 31)]
    folder = evaluate(tmp_path, write_run(tmp_path / "run", records), {"number": NUMBER})
    found = figures(folder)
    accuracy = found["number", "accuracy", None]
    assert (accuracy["value"], accuracy["interval"]) == (pytest.approx(1 / 3), "wilson")
    assert not [key for key in found if key[1] == "majority@n"]
    assert (None, "corpus-distinct-1", None) in found
    absent = {value["statistic"]: value["reason"] for value in document(folder)["absent"]}
    assert absent["distinct-1"] == absent["unique_answers"] == "no row has two samples"
    assert absent["corpus-distinct-2"] == "no completion has 2 words"


def test_a_run_without_references_or_metrics_has_the_other_figures(tmp_path: Path) -> None:
    records = [completion("r1", i, "a b", None) for i in range(2)]
    run = write_run(tmp_path / "run", records)
    assert (None, "distinct-1", None) in figures(evaluate(tmp_path, run, {}))
    absent = document(evaluate(tmp_path, run, {"number": NUMBER}))["absent"]
    reason = "no completion has a score"
    assert {"metric": "number", "statistic": "accuracy", "reason": reason} in absent


@pytest.mark.parametrize("count", [0, 3])
def test_a_run_of_nothing_but_errors_is_evaluated(tmp_path: Path, count: int) -> None:
    records = [completion(f"r{i}", 0, None, 1) for i in range(count)]
    folder = evaluate(tmp_path, write_run(tmp_path / "run", records), {"number": NUMBER})
    metrics = document(folder)
    assert metrics["lengths"]["mean"] is None
    assert [value["value"] for value in metrics["values"] if value["metric"]] == [0.0] * (
        2 if count else 0
    )


def test_rows_with_the_same_id_on_two_lines_are_two_rows(tmp_path: Path) -> None:
    records = [completion("twin", 0, "1", 1, line=line) for line in (1, 2)]
    folder = evaluate(tmp_path, write_run(tmp_path / "run", records), {"number": NUMBER})
    assert figures(folder)["number", "accuracy", None]["rows"] == 2


def test_contains_says_why_it_has_no_vote(tmp_path: Path, sampled: Path) -> None:
    folder = evaluate(tmp_path, sampled, {"word": {"type": "contains"}})
    absent = [value for value in document(folder)["absent"] if value["metric"] == "word"]
    assert [value["statistic"] for value in absent] == ["majority@n"]


def test_every_statistic_is_defined_in_the_document(tmp_path: Path, sampled: Path) -> None:
    metrics = document(evaluate(tmp_path, sampled, {"number": NUMBER}))
    for value in metrics["values"] + metrics["absent"]:
        name = value["statistic"]
        assert name in DEFINITIONS or f"{name.rstrip('123')}n" in DEFINITIONS


def test_a_metric_that_is_not_binary_has_a_mean_only(sampled: Path) -> None:
    class Length:
        binary = False
        votes = False

        def accept(self, reference: Any) -> Any:
            return reference

        def judge(self, text: str, accepted: Any) -> Judgement:
            assert accepted is not None
            return Judgement(float(len(text)), None)

    completions = read_completions(sampled / "completions.parquet")
    metric = NamedMetric("length", "length", {"errors": "skip"}, Length())
    found = metrics_document(
        Subject("demo", "0"), completions, [(metric, score(completions, metric))]
    )
    values = [value for value in found["values"] if value["metric"] == "length"]
    assert [value["statistic"] for value in values] == ["mean_score"]
    assert values[0]["value"] == pytest.approx(((7 + 1 + 1 + 4) / 4 + (5 + 3) / 4 + 1) / 3)


def test_a_wrong_regular_expression_fails_before_anything_is_written(
    tmp_path: Path, sampled: Path
) -> None:
    with pytest.raises(ConfigError, match=r"metrics\.number\.extract"):
        evaluate(tmp_path, sampled, {"number": {**NUMBER, "extract": "("}})
    assert not (tmp_path / "evaluations").exists()


def test_a_missing_run_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(WorkflowError, match=r"completions\.parquet: missing"):
        evaluate(tmp_path, tmp_path / "nothing", {})


def test_a_file_that_is_no_table_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "completions.parquet").write_text("no")
    with pytest.raises(WorkflowError, match="not a table of completions") as caught:
        evaluate(tmp_path, tmp_path, {})
    assert "\n" not in str(caught.value)


def test_a_table_without_a_column_is_one_line_that_names_it(tmp_path: Path) -> None:
    pq.write_table(pa.table({"row": ["1"]}), tmp_path / "completions.parquet")
    with pytest.raises(WorkflowError, match="no column 'line'"):
        evaluate(tmp_path, tmp_path, {})


def test_a_folder_of_another_address_is_refused(tmp_path: Path, sampled: Path) -> None:
    identity = json.dumps({"run": "0123456789ab", "metrics": {}})
    folder = tmp_path / "demo-ffffffffffff"
    outputs = ["--scores", str(folder / "s.parquet"), "--metrics", str(folder / "m.json")]
    with pytest.raises(WorkflowError, match="do not belong together"):
        main(["--run", str(sampled), "--identity", identity, "--name", "demo", *outputs])


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", '{"run": "a"}', '{"run": "a", "metrics": {"m": 1}}']
)
def test_a_wrong_identity_is_one_line(text: str) -> None:
    with pytest.raises(WorkflowError, match="--identity: "):
        parse_identity(text)


def test_only_columns_of_the_completions_table_are_read() -> None:
    assert set(COLUMNS) <= set(COMPLETIONS.names)
