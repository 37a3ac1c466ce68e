"""Which answer serves a request: one table for the two programs that decide it.

`shard_prompts` asks DuckDB for all requests of a batch, `generate` an index of the journals for
the requests of a shard. Where they differed, an answer would be asked again, or another be merged.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

from scripts.llm_batch.answers import read_journals
from scripts.llm_batch.generate.journal import AnswerIndex
from scripts.llm_batch.generate.requests import Requests
from scripts.llm_batch.ledger import REQUESTS
from scripts.llm_batch.retries import read_marks, write_marks
from scripts.llm_batch.sharding import database, load_answers, load_requests, write_reused

Answer = dict[str, Any]


def answer(limit: int, length: int, finish: str | None = "stop", cut: int = 0) -> Answer:
    """An answer of `length` tokens under `limit`, whose prompt lost `cut` tokens."""
    return {
        "key": None,
        "max_tokens": limit,
        "text": "",
        "token_ids": list(range(length)),
        "finish_reason": finish,
        "truncated_prompt_tokens": cut,
        "error": None,
    }


def failure(limit: int, kind: str = "engine_killed") -> Answer:
    error = {"type": kind, "message": "m"}
    return {**answer(limit, 0, None), "token_ids": None, "error": error}


CASES: dict[str, tuple[int, list[Answer], int | None]] = {
    "same limit, cut": (16, [answer(16, 16, "length")], 0),
    "same limit, ended": (16, [answer(16, 3)], 0),
    "raised limit, ended by itself": (32, [answer(16, 3)], 0),
    "raised limit, was cut": (32, [answer(16, 16, "length")], None),
    "raised limit, was cut by the context": (32, [answer(16, 9, "length")], 0),
    "raised limit, ended with the last token": (32, [answer(16, 16, "stop")], 0),
    "lowered limit, shorter": (8, [answer(16, 3)], 0),
    "lowered limit, as long": (3, [answer(16, 3)], 0),
    "lowered limit, longer": (8, [answer(16, 9)], None),
    "lowered limit, was cut": (8, [answer(16, 16, "length")], None),
    "lowered limit, was cut by the context": (8, [answer(16, 5, "length")], 0),
    "another limit, the prompt was cut": (64, [answer(16, 3, cut=2)], None),
    "same limit, the prompt was cut": (16, [answer(16, 3, cut=2)], 0),
    "another request": (16, [{**answer(16, 3), "key": "f" * 32}], None),
    "an error under the same limit": (16, [failure(16)], 0),
    "an error under another limit": (32, [failure(16)], None),
    "an answer after an error": (16, [failure(16), answer(16, 3)], 1),
    "an answer before an error": (16, [answer(16, 3), failure(16)], 0),
    "an answer under another limit after an error": (16, [failure(16), answer(8, 3)], 1),
    "the same limit after another": (16, [answer(8, 3), answer(16, 4)], 1),
    "the first of two": (16, [answer(16, 3), answer(16, 4)], 0),
    "the first of two under other limits": (16, [answer(32, 3), answer(8, 4)], 0),
    "the first of two errors": (16, [failure(16, "output_corrupted"), failure(16)], 0),
    "an error of a kind that is asked again": (4, [failure(4, "prompt_too_long")], 0),
    "nothing": (16, [], None),
}


Case = tuple[int, list[Answer]]
Chosen = list[int | None]


def key(number: int) -> str:
    return f"{number:032x}"


def journal(folder: Path, cases: Sequence[Case]) -> Path:
    """Write the answers of each case under a key of its own; their texts are their numbers."""
    lines: list[dict[str, Any]] = [{"journal": {"version": 1}}]
    for number, (_, answers) in enumerate(cases):
        for place, item in enumerate(answers):
            lines.append({**item, "key": item["key"] or key(number), "text": str(place)})
    path = folder / "journals" / "a.jsonl"
    path.parent.mkdir()
    text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
    path.write_text(text, encoding="utf-8")
    return path


def reused_by_sharding(folder: Path, cases: Sequence[Case], path: Path) -> Chosen:
    rows = [
        {"key": key(n), "max_tokens": limit, "prompt": "{}", "sampling": 0, "expected_tokens": 1}
        for n, (limit, _) in enumerate(cases)
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=REQUESTS), folder / "requests.parquet")
    with database(folder, threads=1) as connection:
        load_requests(connection, [folder / "requests.parquet"])
        load_answers(connection, read_journals([path]), folder)
        write_reused(connection, folder / "reused.parquet")
    found = {row["key"]: row for row in pq.read_table(folder / "reused.parquet").to_pylist()}
    for n, (limit, _) in enumerate(cases):
        assert found.get(key(n), {"max_tokens": limit})["max_tokens"] == limit
    return [int(found[key(n)]["text"]) if key(n) in found else None for n in range(len(cases))]


def found_by_generate(folder: Path, cases: Sequence[Case], path: Path) -> Chosen:
    file = folder / "requests.jsonl"
    lines = [f'{{"key":"{key(n)}","max_tokens":{limit},}}\n' for n, (limit, _) in enumerate(cases)]
    file.write_text("".join(lines), encoding="utf-8")
    index = AnswerIndex(Requests(file))
    for name, void in read_marks([path]).items():
        index.add(name, void)
    return [None if found is None else int(found["text"]) for _, _, found in index.answers()]


def both(cases: Sequence[Case], given_up: str | None = None) -> list[Chosen]:
    """Return the number of the answer that each program takes for each request."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = journal(folder, cases)
        if given_up:
            write_marks(path.parent, {path: frozenset({given_up})})
        return [find(folder, cases, path) for find in (reused_by_sharding, found_by_generate)]


def named(chosen: Chosen) -> dict[str, int | None]:
    return dict(zip(CASES, chosen, strict=True))


def test_both_programs_take_the_same_answer() -> None:
    sharding, generate = both([(limit, answers) for limit, answers, _ in CASES.values()])
    assert named(sharding) == named(generate)
    assert named(sharding) == {name: chosen for name, (_, _, chosen) in CASES.items()}


def test_an_error_that_was_given_up_is_no_answer() -> None:
    cases = [(limit, answers) for limit, answers, _ in CASES.values()]
    sharding, generate = both(cases, "engine_killed")
    expected = {name: chosen for name, (_, _, chosen) in CASES.items()}
    expected["an error under the same limit"] = None
    assert named(sharding) == named(generate) == expected


ANSWERS = st.one_of(
    st.builds(
        answer,
        st.sampled_from([1, 2, 4]),
        st.integers(0, 4),
        st.sampled_from(["stop", "length"]),
        st.sampled_from([0, 0, 1]),
    ),
    st.builds(failure, st.sampled_from([1, 2, 4])),
)


@settings(max_examples=20, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([1, 2, 4]), st.lists(ANSWERS, max_size=6)),
        min_size=1,
        max_size=30,
    ),
    st.booleans(),
)
def test_both_programs_agree_on_any_answers(cases: list[Case], given_up: bool) -> None:
    sharding, generate = both(cases, "engine_killed" if given_up else None)
    assert sharding == generate
