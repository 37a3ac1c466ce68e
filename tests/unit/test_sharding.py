"""Which answers are reused, and how open requests are cut into shards."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scripts.llm_batch.answers import answer_row, read_journals
from scripts.llm_batch.ledger import REQUESTS
from scripts.llm_batch.sharding import (
    create_table,
    database,
    insert,
    load_answers,
    unite_requests,
    write_reused,
    write_shards,
)
from scripts.llm_batch.tables import ANSWERS

Request = tuple[str, int]


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with database(tmp_path / "scratch") as opened:
        yield opened


def want(connection: duckdb.DuckDBPyConnection, *requests: Request, tokens: int = 10) -> None:
    """Ask for (key, max_tokens) requests."""
    create_table(connection, "requests", REQUESTS)
    rows = [
        {
            "key": key,
            "max_tokens": limit,
            "prefix": key,
            "expected_tokens": tokens,
            "line": json.dumps({"key": key, "max_tokens": limit}),
        }
        for key, limit in requests
    ]
    insert(connection, "requests", pa.RecordBatch.from_pylist(rows, schema=REQUESTS))
    unite_requests(connection)


def answer(key: str, limit: int, length: int, finish: str | None, **more: Any) -> dict[str, Any]:
    return {
        "key": key,
        "max_tokens": limit,
        "text": f"{key}/{limit}",
        "token_ids": list(range(length)),
        "finish_reason": finish,
        **more,
    }


def reused(
    connection: duckdb.DuckDBPyConnection, path: Path, *answers: dict[str, Any]
) -> dict[Request, str]:
    """Return which request is served by which answer's text."""
    rows = [answer_row(item) for item in answers]
    load_answers(connection, [pa.RecordBatch.from_pylist(rows, schema=ANSWERS)])
    count = write_reused(connection, path)
    table = pq.read_table(path).to_pylist()
    assert count == len(table)
    return {(row["key"], row["max_tokens"]): row["text"] for row in table}


@pytest.mark.parametrize(
    ("limit", "old", "serves"),
    [
        (16, answer("a", 16, 16, "length"), True),
        (16, answer("a", 16, 3, "stop"), True),
        (32, answer("a", 16, 3, "stop"), True),
        (32, answer("a", 16, 16, "length"), False),
        (32, answer("a", 16, 9, "length"), True),
        (8, answer("a", 16, 3, "stop"), True),
        (8, answer("a", 16, 9, "stop"), False),
        (8, answer("a", 16, 16, "length"), False),
        (16, answer("b", 16, 3, "stop"), False),
        (16, answer("a", 16, 0, None, error={"type": "prompt_too_long", "message": ""}), True),
        (32, answer("a", 16, 0, None, error={"type": "prompt_too_long", "message": ""}), False),
    ],
    ids=[
        "same limit, cut",
        "same limit, ended",
        "raised limit, ended by itself",
        "raised limit, was cut",
        "raised limit, was cut by the context",
        "lowered limit, shorter",
        "lowered limit, longer",
        "lowered limit, was cut",
        "another request",
        "an error under the same limit",
        "an error under another limit",
    ],
)
def test_an_answer_serves_a_limit_that_would_not_change_it(
    connection: duckdb.DuckDBPyConnection,
    tmp_path: Path,
    limit: int,
    old: dict[str, Any],
    serves: bool,
) -> None:
    want(connection, ("a", limit))
    assert bool(reused(connection, tmp_path / "reused.parquet", old)) is serves
    open_requests = write_shards(connection, tmp_path / "requests", 1)[0].requests
    assert open_requests == (0 if serves else 1)


def test_of_two_answers_the_same_limit_wins_then_the_earliest(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    want(connection, ("a", 16))
    first = answer("a", 16, 3, "stop", text="first")
    chosen = reused(
        connection,
        tmp_path / "reused.parquet",
        answer("a", 8, 3, "stop", text="other limit"),
        first,
        answer("a", 16, 3, "stop", text="second"),
    )
    assert chosen == {("a", 16): "first"}


def test_a_request_of_two_runs_is_asked_once(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    want(connection, ("a", 16), ("a", 16), ("a", 32))
    load_answers(connection, [])
    write_reused(connection, tmp_path / "reused.parquet")
    assert write_shards(connection, tmp_path / "requests", 1)[0].requests == 2


@pytest.mark.parametrize("shards", [1, 2, 3, 7, 50])
def test_every_request_is_in_exactly_one_shard(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path, shards: int
) -> None:
    keys = [f"k{number:03}" for number in range(40)]
    want(connection, *((key, 16) for key in keys))
    load_answers(connection, [])
    write_reused(connection, tmp_path / "reused.parquet")
    counts = write_shards(connection, tmp_path / "requests", shards)
    lines = [
        json.loads(line)["key"]
        for shard in range(shards)
        for line in (tmp_path / f"requests/{shard}.jsonl").read_text().splitlines()
    ]
    assert lines == keys
    assert max(c.expected_tokens for c in counts) <= 400 // shards + 10


def test_shards_are_balanced_by_expected_tokens(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    create_table(connection, "requests", REQUESTS)
    rows = [
        {
            "key": f"k{number:03}",
            "max_tokens": 16,
            "prefix": f"{number:03}",
            "expected_tokens": 1000 if number < 10 else 10,
            "line": "{}",
        }
        for number in range(500)
    ]
    insert(connection, "requests", pa.RecordBatch.from_pylist(rows, schema=REQUESTS))
    unite_requests(connection)
    load_answers(connection, [])
    write_reused(connection, tmp_path / "reused.parquet")
    counts = write_shards(connection, tmp_path / "requests", 2)
    total = sum(count.expected_tokens for count in counts)
    assert max(count.expected_tokens for count in counts) - total / 2 <= 1000
    assert counts[0].requests < counts[1].requests / 10


def test_a_torn_last_line_and_a_broken_line_are_dropped(tmp_path: Path) -> None:
    journal = tmp_path / "journal.jsonl"
    lines = [
        json.dumps({"journal": {"version": 1}}),
        json.dumps(answer("a", 16, 3, "stop")),
        "{broken",
        json.dumps(answer("b", 16, 3, "stop")),
    ]
    torn = json.dumps(answer("c", 16, 3, "stop"))[:-5]
    journal.write_text("\n".join([*lines, torn]))
    batches = list(read_journals([journal]))
    assert [key for batch in batches for key in batch.column("key").to_pylist()] == ["a", "b"]
