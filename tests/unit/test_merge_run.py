"""Answers sorted back to a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scripts.llm_batch import merging
from scripts.llm_batch.addresses import address, canonical_json
from scripts.llm_batch.errors import WorkflowError
from scripts.llm_batch.tables import ANSWERS, COMPLETIONS, LEDGER
from scripts.merge_run import main

IDENTITY: dict[str, Any] = {"engine": {}, "prompts": {}, "sampling": {}}
RUN = f"toy-{address('runs', IDENTITY)}"


def entry(line: int, sample: int, key: str | None, **more: Any) -> dict[str, Any]:
    return {
        "row": f"r{line}",
        "line": line,
        "sample": sample,
        "key": key,
        "max_tokens": 16,
        "seed": 5,
        "prompt": f"prompt {line}",
        "reference": '"x"',
        **more,
    }


def answer(key: str, **more: Any) -> dict[str, Any]:
    return {
        "key": key,
        "max_tokens": 16,
        "text": f"text of {key}",
        "token_ids": [1, 2, 3],
        "finish_reason": "stop",
        "prompt_tokens": 4,
        **more,
    }


def write(path: Path, rows: list[dict[str, Any]], schema: pa.Schema) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)
    return path


def merge(
    tmp_path: Path,
    ledger: list[dict[str, Any]],
    reused: list[dict[str, Any]],
    *shards: list[dict[str, Any]],
) -> Path:
    """Run the program on made tables and return the run's folder."""
    batch = tmp_path / "batches/toy-0123456789ab"
    write(batch / f"ledger/{RUN[-12:]}.parquet", ledger, LEDGER)
    write(batch / "reused.parquet", reused, ANSWERS)
    completions = []
    for number, rows in enumerate(shards):
        completions.append(str(write(batch / f"completions/{number}.parquet", rows, ANSWERS)))
        (batch / "facts").mkdir(exist_ok=True)
        (batch / f"facts/{number}.json").write_text(json.dumps({"shard": number}))
    folder = tmp_path / "runs" / RUN
    arguments = ["--identity", canonical_json(IDENTITY), "--batch", str(batch)]
    arguments += ["--completions", *completions, "--output", str(folder / "manifest.json")]
    assert main(arguments) == 0
    return folder


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().split(b"\n") if line]


def test_completions_come_in_prompt_order_from_reused_answers_and_shards(tmp_path: Path) -> None:
    ledger = [entry(line, sample, f"k{line}{sample}") for line in (1, 2, 3) for sample in (0, 1)]
    keys = [row["key"] for row in ledger]
    folder = merge(
        tmp_path,
        ledger,
        [answer(keys[4])],
        [answer(keys[5]), answer(keys[0])],
        [answer(key) for key in keys[1:4]],
    )
    table = pq.read_table(folder / "completions.parquet")
    assert table.schema.equals(COMPLETIONS)
    assert table.column("text").to_pylist() == [f"text of {key}" for key in keys]
    assert [row["text"] for row in lines(folder / "completions.jsonl")] == [
        f"text of {key}" for key in keys
    ]
    facts = json.loads((folder / "facts.json").read_text())
    assert (facts["rows"], facts["samples"], facts["completions"]) == (3, 2, 6)
    assert (facts["reused"], facts["answered"]) == (1, 5)
    assert facts["tokens"] == {"prompt": 24, "completion": 18}
    assert [shard["shard"] for shard in facts["shards"]] == [0, 1]


def test_one_answer_serves_every_row_that_asks_the_same(tmp_path: Path) -> None:
    folder = merge(tmp_path, [entry(1, 0, "k"), entry(2, 0, "k")], [], [answer("k")])
    assert [row["row"] for row in lines(folder / "completions.jsonl")] == ["r1", "r2"]


def test_errors_of_rows_and_of_engines_are_completions_and_failures(tmp_path: Path) -> None:
    broken = entry(1, 0, None, error_type="prompt_empty", error_message="no text", seed=None)
    too_long = {"error_type": "prompt_too_long", "error_message": "99 tokens", "text": "partial"}
    ledger = [broken, entry(2, 0, "k2"), entry(3, 0, "k3")]
    folder = merge(tmp_path, ledger, [], [answer("k2", **too_long), answer("k3")])
    rows = lines(folder / "completions.jsonl")
    assert [row["error"] for row in rows] == [
        {"type": "prompt_empty", "message": "no text"},
        {"type": "prompt_too_long", "message": "99 tokens"},
        None,
    ]
    assert [row["text"] for row in rows] == [None, None, "text of k3"]
    assert [row["finish_reason"] for row in rows] == ["error", "error", "stop"]
    assert [row["completion_tokens"] for row in rows] == [0, 0, 3]
    assert [row["row"] for row in lines(folder / "failures.jsonl")] == ["r1", "r2"]
    facts = json.loads((folder / "facts.json").read_text())
    assert facts["errors"] == {"prompt_empty": 1, "prompt_too_long": 1}


def test_references_are_decoded_in_the_lines(tmp_path: Path) -> None:
    ledger = [entry(1, 0, "k", reference='["a", 2]', tags='{"kind": "sum"}')]
    row = lines(merge(tmp_path, ledger, [], [answer("k")]) / "completions.jsonl")[0]
    assert row["reference"] == ["a", 2]
    assert row["tags"] == {"kind": "sum"}


HOSTILE = "</script>\u2028\x00\"'\\\ud7ff\U0001f600\u202eעברית\r\n"


def test_hostile_text_survives_unchanged(tmp_path: Path) -> None:
    folder = merge(tmp_path, [entry(1, 0, "k", prompt=HOSTILE)], [], [answer("k", text=HOSTILE)])
    row = lines(folder / "completions.jsonl")[0]
    assert (row["prompt"], row["text"]) == (HOSTILE, HOSTILE)
    assert pq.read_table(folder / "completions.parquet").column("text").to_pylist() == [HOSTILE]


def test_a_missing_answer_is_named(tmp_path: Path) -> None:
    with pytest.raises(WorkflowError, match=r"1 requests have no answer \(the first: k2\)"):
        merge(tmp_path, [entry(1, 0, "k1"), entry(2, 0, "k2")], [], [answer("k1")])


def test_a_duplicate_answer_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(WorkflowError, match="1 requests have more than one answer"):
        merge(tmp_path, [entry(1, 0, "k")], [answer("k")], [answer("k")])


def test_problems_of_all_batches_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merging, "STREAM_ROWS", 4)
    ledger = [entry(line, 0, f"k{line}") for line in range(1, 21)]
    with pytest.raises(WorkflowError, match=r"17 requests have no answer \(the first: k2\)"):
        merge(tmp_path / "none", ledger, [], [answer(f"k{line}") for line in (1, 9, 20)])
    with pytest.raises(WorkflowError, match=r"2 requests have more than one .*first: k7\)"):
        answers = [answer(row["key"]) for row in ledger]
        merge(tmp_path / "two", ledger, [answer("k7"), answer("k18")], answers)
    assert not list(tmp_path.glob("*/runs/*/completions*"))


@pytest.mark.parametrize("rows", [1, 3, 7, 8192])
def test_the_size_of_batches_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    ledger = [
        entry(line, sample, None if line == 4 else f"k{line % 5}{sample}", error_type=None)
        for line in range(1, 12)
        for sample in (0, 1)
    ]
    for row in ledger:
        row["error_type"] = None if row["key"] else "prompt_empty"
    keys = sorted({row["key"] for row in ledger if row["key"]})
    broken = {"error_type": "output_corrupted", "error_message": "m"}
    answers = [answer(key, **(broken if key == "k30" else {})) for key in keys]
    expected = merge(tmp_path / "whole", ledger, [], answers)
    monkeypatch.setattr(merging, "STREAM_ROWS", rows)
    found = merge(tmp_path / "parts", ledger, answers[::3], answers[1::3], answers[2::3])
    for name in ("completions.parquet", "completions.jsonl", "failures.jsonl"):
        assert (found / name).read_bytes() == (expected / name).read_bytes()
    errors = [row["error"] and row["error"]["type"] for row in lines(found / "completions.jsonl")]
    assert [row["key"] for row in ledger] == [
        None if error == "prompt_empty" else row["key"]
        for row, error in zip(ledger, errors, strict=True)
    ]
    assert errors.count("output_corrupted") == 2


def test_keys_of_one_hash_are_not_mixed_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = [entry(line, 0, f"k{line}") for line in range(1, 20)]
    answers = [answer(row["key"]) for row in ledger]
    expected = merge(tmp_path / "one", ledger, [], answers)
    monkeypatch.setattr(merging, "PLACED", merging.PLACED.replace("hash(key, max_tokens)", "7"))
    found = merge(tmp_path / "two", ledger, [], answers)
    name = "completions.parquet"
    assert (found / name).read_bytes() == (expected / name).read_bytes()


def test_answers_of_other_runs_and_limits_are_left_out(tmp_path: Path) -> None:
    others = [answer("k1", max_tokens=99, text="long"), answer("x")]
    folder = merge(tmp_path, [entry(1, 0, "k1")], [answer("y")], [*others, answer("k1")])
    assert [row["text"] for row in lines(folder / "completions.jsonl")] == ["text of k1"]
    assert json.loads((folder / "facts.json").read_text())["reused"] == 0


def test_the_same_answers_make_the_same_bytes(tmp_path: Path) -> None:
    ledger = [entry(line, 0, f"k{line}") for line in range(1, 200)]
    answers = [answer(row["key"]) for row in ledger]
    one = merge(tmp_path / "one", ledger, [], answers)
    two = merge(tmp_path / "two", ledger, answers[:50], answers[50:90][::-1], answers[90:])
    for name in ("completions.parquet", "completions.jsonl", "failures.jsonl"):
        assert (one / name).read_bytes() == (two / name).read_bytes()
