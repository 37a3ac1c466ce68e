"""Which answers are reused, and how open requests are cut into shards."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scripts.llm_batch.answers import Wanted, answer_batch, read_journals
from scripts.llm_batch.ledger import REQUESTS, SamplingText
from scripts.llm_batch.sharding import (
    ShardCount,
    database,
    load_answers,
    load_requests,
    wanted_answers,
    write_reused,
    write_shards,
)

Request = tuple[str, int]


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with database(tmp_path / "scratch") as opened:
        yield opened


def want(
    connection: duckdb.DuckDBPyConnection, folder: Path, *requests: Request, tokens: int = 10
) -> None:
    """Ask for (key, max_tokens) requests, from two files."""
    rows = [
        {
            "key": key,
            "max_tokens": limit,
            "prompt": f'{{"text":"{key}"}}',
            "sampling": 0,
            "seed": None,
            "expected_tokens": tokens,
        }
        for key, limit in requests
    ]
    write_requests(connection, folder, rows[::2], rows[1::2])


def write_requests(
    connection: duckdb.DuckDBPyConnection, folder: Path, *files: list[dict[str, Any]]
) -> None:
    paths = []
    for number, rows in enumerate(files):
        paths.append(folder / f"{number}.requests.parquet")
        pq.write_table(pa.Table.from_pylist(rows, schema=REQUESTS), paths[-1])
    load_requests(connection, paths)


def cut(
    connection: duckdb.DuckDBPyConnection, folder: Path, shards: int
) -> tuple[list[ShardCount], list[list[dict[str, Any]]]]:
    """Return the counts of shards, and the requests of each."""
    text = SamplingText(',"sampling":{"temperature":0', '},"expected_tokens":')
    counts = write_shards(connection, folder / "requests", shards, [text])
    files = [folder / f"requests/{shard}.jsonl" for shard in range(shards)]
    requests = [[json.loads(line) for line in file.read_text().splitlines()] for file in files]
    assert [count.requests for count in counts] == [len(lines) for lines in requests]
    return counts, requests


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
    load_answers(connection, [answer_batch(answers)], path.parent)
    count = write_reused(connection, path)
    table = pq.read_table(path).to_pylist()
    assert count == len(table)
    return {(row["key"], row["max_tokens"]): row["text"] for row in table}


def test_a_request_that_is_answered_is_in_no_shard(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    want(connection, tmp_path, ("a", 16), ("b", 16), ("b", 32))
    old = [answer("a", 16, 3, "stop"), answer("b", 16, 16, "length")]
    chosen = reused(connection, tmp_path / "reused.parquet", *old)
    assert chosen == {("a", 16): "a/16", ("b", 16): "b/16"}
    ((request,),) = cut(connection, tmp_path, 1)[1]
    assert (request["key"], request["max_tokens"]) == ("b", 32)


def test_a_request_of_two_runs_is_asked_once(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    want(connection, tmp_path, ("a", 16), ("a", 16), ("a", 32))
    load_answers(connection, [], tmp_path)
    write_reused(connection, tmp_path / "reused.parquet")
    assert cut(connection, tmp_path, 1)[0][0].requests == 2


@pytest.mark.parametrize("shards", [1, 2, 3, 7, 50])
def test_every_request_is_in_exactly_one_shard(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path, shards: int
) -> None:
    keys = [f"k{number:03}" for number in range(40)]
    want(connection, tmp_path, *((key, 16) for key in keys))
    load_answers(connection, [], tmp_path)
    write_reused(connection, tmp_path / "reused.parquet")
    counts, requests = cut(connection, tmp_path, shards)
    assert [request["key"] for shard in requests for request in shard] == keys
    assert max(c.expected_tokens for c in counts) <= 400 // shards + 10


def test_shards_are_balanced_by_expected_tokens(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    rows = [
        {
            "key": f"k{number:03}",
            "max_tokens": 16,
            "prompt": f'"{number:03}"',
            "sampling": 0,
            "expected_tokens": 1000 if number < 10 else 10,
        }
        for number in range(500)
    ]
    write_requests(connection, tmp_path, rows)
    load_answers(connection, [], tmp_path)
    write_reused(connection, tmp_path / "reused.parquet")
    counts, _ = cut(connection, tmp_path, 2)
    total = sum(count.expected_tokens for count in counts)
    assert max(count.expected_tokens for count in counts) - total / 2 <= 1000


def test_every_shard_gets_a_part_of_prompts_that_begin_alike(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    """Alike prompts have alike answers, and nobody knows how long those become."""
    rows = [
        {
            "key": f"k{number:05}",
            "max_tokens": 16,
            "prompt": f'"{"essay" if number < 800 else "question"} {number:05}"',
            "sampling": 0,
            "expected_tokens": 10,
        }
        for number in range(8000)
    ]
    write_requests(connection, tmp_path, rows)
    load_answers(connection, [], tmp_path)
    write_reused(connection, tmp_path / "reused.parquet")
    counts, requests = cut(connection, tmp_path, 4)
    assert {count.requests for count in counts} == {2000}
    essays = [sum("essay" in str(r["prompt"]) for r in shard) for shard in requests]
    assert max(essays) - min(essays) <= 16 + 1
    # Neighbours stay together: samples of one prompt, and prompts with a common beginning.
    keys = [int(request["key"][1:]) for request in requests[0]]
    following = sum(b == a + 1 for a, b in itertools.pairwise(keys))
    assert following >= 2000 - 2000 / 16 - 1
    assert keys == sorted(keys)


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


def test_answers_that_nobody_wants_are_passed_over(tmp_path: Path) -> None:
    journal = tmp_path / "journal.jsonl"
    keys = [f"{number:08x}{'0' * 24}" for number in range(50)]
    lines = [orjson.dumps(answer(key, 16, 3, "stop")) for key in keys]
    spaced = [json.dumps(answer("f" * 32, 16, 3, "stop")).encode(), b"short"]
    journal.write_bytes(b"\n".join([b'{"journal": {}}', *lines, *spaced, b""]))
    wanted = [keys[7], keys[31], "e" * 32]
    found = read_journals([journal], Wanted("".join(key[:8] for key in wanted).encode()))
    # Lines that others have written are decoded, and left to the join.
    assert [key for batch in found for key in batch.column("key").to_pylist()] == [
        keys[7],
        keys[31],
        "f" * 32,
    ]


def test_the_keys_of_all_requests_are_wanted(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    keys = [f"{number * 99:032x}" for number in range(20_000)]
    want(connection, tmp_path, *((f"{key[::-1]}", 16) for key in keys))
    lines = [(number, f'{{"key":"{key[::-1]}",'.encode()) for number, key in enumerate(keys)]
    assert wanted_answers(connection).among(lines) == lines
