"""A metric in the user's file: hashed by its bytes, and one bad row costs only itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from scripts.evaluate_run import evaluate_run
from scripts.llm_batch.addresses import address, file_sha256
from scripts.llm_batch.errors import WorkflowError
from scripts.llm_batch.evaluation.metric_files import file_problem
from scripts.llm_batch.evaluation.metrics.own import OwnMetric
from tests.unit.test_evaluate_run import completion, document, write_run

SCORE = """
def score(completion, reference, row):
    if completion == "boom":
        raise ValueError("cannot read\\n this")
    if completion == "die":
        import os
        os._exit(3)
    if completion == "sleep":
        import time
        time.sleep(60)
    if completion == "text":
        return "good"
    return completion == reference, f"{row['id']}/{row['sample']}/{row['tags']['level']}"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(SCORE)
    return path


def evaluate(root: Path, texts: list[str], file: Path, **settings: Any) -> Path:
    samples = {f"r{place}": [text] for place, text in enumerate(texts)}
    return evaluate_samples(root, samples, file, **settings)


def evaluate_samples(
    root: Path, samples: dict[str, list[str]], file: Path, **settings: Any
) -> Path:
    records = [
        completion(row, sample, text, "yes", tags='{"level": 4}')
        for row, texts in samples.items()
        for sample, text in enumerate(texts)
    ]
    run = write_run(root / "runs/demo-0123456789ab", records)
    specification = {
        "type": "python",
        "file_sha256": file_sha256(file),
        "function": "score",
        "binary": True,
        "needs_reference": True,
        "timeout_s": 60,
        "errors": "wrong",
        **settings,
    }
    identity = {"run": "0123456789ab", "metrics": {"mine": specification}}
    folder = root / "evaluations" / f"demo-{address('evaluations', identity)}"
    evaluate_run(
        run,
        "demo",
        identity,
        folder / "scores.parquet",
        folder / "metrics.json",
        {"mine": str(file)},
    )
    return folder


def test_a_row_that_fails_has_no_score_is_counted_and_the_first_is_told(
    tmp_path: Path, file: Path
) -> None:
    texts = ["yes", "boom", "no", "die", "text", "sleep", "yes"]
    found = document(evaluate(tmp_path, texts, file, timeout_s=3))
    record = found["metrics"]["mine"]
    assert record["errors"] == {"reference_missing": 0, "failed": 4}
    assert record["first_failure"] == "row 'r1', sample 0: ValueError: cannot read this"
    assert record["scored"] == 3
    accuracy = next(value for value in found["values"] if value["statistic"] == "accuracy")
    assert (accuracy["value"], accuracy["rows"]) == (pytest.approx(2 / 3), 3)
    assert "path" not in record["settings"]


@pytest.mark.parametrize("votes", [True, False])
def test_samples_vote_only_where_the_function_gives_answers(tmp_path: Path, votes: bool) -> None:
    file = tmp_path / "mine.py"
    value = "(True, completion)" if votes else "True"
    file.write_text(f"def score(completion, reference, row):\n    return {value}\n")
    texts = {"r1": ["a", "b"], "r2": ["c", "c"]}

    found = document(evaluate_samples(tmp_path, texts, file))

    values = {value["statistic"]: value["value"] for value in found["values"] if value["metric"]}
    assert (values["accuracy"], values["pass@k"]) == (1, 1)
    assert values.get("majority@n") == (1 if votes else None)
    reasons = [one["reason"] for one in found["absent"] if one["statistic"] == "majority@n"]
    assert [reason.startswith("mine gave no answer") for reason in reasons] == [True] * (not votes)


def test_its_place_is_not_written_anywhere(tmp_path: Path, file: Path) -> None:
    folder = evaluate(tmp_path, ["yes"], file)
    assert all(
        str(file).encode() not in path.read_bytes() for path in folder.rglob("*") if path.is_file()
    )


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import nothing_of_the_kind\n", "mine.py:1: ModuleNotFoundError: No module named"),
        ("x = 1\ny = x / 0\n", "mine.py:2: ZeroDivisionError: division by zero"),
        ("def score(:\n", "mine.py:1: SyntaxError: "),
        ("score = 3\n", "mine.py: has no function 'score'; name it with 'function'"),
        ("raise SystemExit(3)\n", "mine.py:1: SystemExit: 3"),
    ],
)
def test_a_file_that_cannot_be_imported_is_one_line_with_its_place(
    tmp_path: Path, source: str, message: str
) -> None:
    (tmp_path / "mine.py").write_text(source)
    with pytest.raises(WorkflowError) as caught:
        evaluate(tmp_path, ["yes"], tmp_path / "mine.py")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_changed_since_the_plan_is_refused(tmp_path: Path, file: Path) -> None:
    with pytest.raises(WorkflowError, match="changed since the workflow was planned"):
        evaluate(tmp_path, ["yes"], file, file_sha256="0" * 64)


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("def score(a, b, c): ...\n", None),
        ("from mine_too import score\n", None),
        ("from mine_too import *\n", None),
        ("score = lambda a, b, c: 1\n", None),
        ("def other(): ...\n", "defines no function 'score'"),
        ("def score(:\n", ":1: "),
    ],
)
def test_a_file_is_read_but_not_run_when_the_config_is_checked(
    tmp_path: Path, source: str, problem: str | None
) -> None:
    (tmp_path / "mine.py").write_text(f"{source}\nopen({str(tmp_path / 'ran')!r}, 'w')\n")
    found = file_problem(tmp_path / "mine.py", "score")
    assert found is None if problem is None else problem in (found or "")
    assert not (tmp_path / "ran").exists()


def test_references_keep_their_json() -> None:
    accepted = OwnMetric("mine.py").accept({"a": [1, None]})
    assert json.loads(accepted or "") == {"a": [1, None]}
