"""Finding the answers to a shard's requests in any number of journals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from scripts.llm_batch.errors import WorkflowError
from scripts.llm_batch.generate.journal import (
    ERROR,
    NONE,
    OTHER_LIMIT,
    SAME_LIMIT,
    AnswerIndex,
    find_journals,
    rank_answer,
)
from scripts.llm_batch.generate.requests import Requests, read_head, write_parts


def key(number: int) -> str:
    return f"{number:032x}"


def answer(number: int, max_tokens: int = 16, text: str = "t", **changes: Any) -> dict[str, Any]:
    return {
        "key": key(number),
        "max_tokens": max_tokens,
        "text": text,
        "token_ids": [1, 2],
        "finish_reason": "stop",
        "truncated_prompt_tokens": 0,
        "error": None,
        **changes,
    }


def failure(number: int, max_tokens: int = 16) -> dict[str, Any]:
    error = {"type": "engine_killed", "message": "m"}
    return answer(number, max_tokens, token_ids=None, finish_reason=None, error=error)


def write(path: Path, records: list[Any], end: str = "") -> Path:
    lines = [json.dumps(record, separators=(",", ":")) + "\n" for record in records]
    path.write_text("".join(lines) + end)
    return path


def requests(folder: Path, *heads: tuple[int, int]) -> Requests:
    records = [
        {"key": key(number), "max_tokens": limit, "sampling": {"temperature": number % 2}}
        for number, limit in heads
    ]
    return Requests(write(folder / "requests.jsonl", records))


def found(index: AnswerIndex) -> list[str | None]:
    return [None if item is None else item["text"] for _, _, item in index.answers()]


def test_answers_are_found_in_any_journal_and_given_in_order(tmp_path: Path) -> None:
    index = AnswerIndex(requests(tmp_path, (1, 16), (2, 16), (3, 16)))
    header = {"journal": {"version": 1}}
    assert index.add(write(tmp_path / "a", [header, answer(3, text="c"), answer(9)])) == 1
    assert index.add(write(tmp_path / "b", [header, answer(1, text="a")])) == 1
    assert found(index) == ["a", None, "c"]
    assert index.open_positions() == [1]
    assert index.count() == 2


def test_a_torn_last_line_is_dropped_and_a_broken_one_skipped(tmp_path: Path) -> None:
    index = AnswerIndex(requests(tmp_path, (1, 16), (2, 16), (3, 16)))
    torn = json.dumps(answer(2), separators=(",", ":"))
    path = write(tmp_path / "a", [answer(1)], end='{"key":"broken\n\0\0\0\n[1]\n')
    path.write_bytes(path.read_bytes() + json.dumps(answer(3)).encode() + b"\n" + torn.encode())
    index.add(path)
    assert found(index) == ["t", None, "t"]


@pytest.mark.parametrize("size", [0, 1, 20, 60, 200])
def test_a_journal_cut_anywhere_is_read(tmp_path: Path, size: int) -> None:
    whole = write(tmp_path / "a", [answer(1), answer(2)]).read_bytes()
    (tmp_path / "a").write_bytes(whole[:size])
    index = AnswerIndex(requests(tmp_path, (1, 16), (2, 16)))
    index.add(tmp_path / "a")
    assert index.count() == whole[:size].count(b"\n")


def test_one_key_may_be_asked_with_several_limits(tmp_path: Path) -> None:
    index = AnswerIndex(requests(tmp_path, (1, 1), (1, 16), (1, 64)))
    index.add(write(tmp_path / "a", [answer(1, 16)]))
    assert found(index) == [None, "t", "t"]
    assert [limit for _, limit, _ in index.answers()] == [1, 16, 64]


@pytest.mark.parametrize(
    ("record", "limit", "rank"),
    [
        (answer(1, 16), 16, SAME_LIMIT),
        (answer(1, 16), 64, OTHER_LIMIT),
        (answer(1, 16), 2, OTHER_LIMIT),
        (answer(1, 16), 1, NONE),
        # Cut by the limit: a larger one gives more.
        (answer(1, 2, finish_reason="length"), 64, NONE),
        # Cut by the end of the context: a larger limit gives the same.
        (answer(1, 16, finish_reason="length"), 64, OTHER_LIMIT),
        (answer(1, 2), 64, OTHER_LIMIT),
        # What was cut off the prompt depends on the limit.
        (answer(1, 16, truncated_prompt_tokens=3), 64, NONE),
        (answer(1, 16, truncated_prompt_tokens=3), 16, SAME_LIMIT),
        (failure(1, 16), 16, ERROR),
        (failure(1, 16), 64, NONE),
    ],
)
def test_which_answers_serve_another_limit(record: dict[str, Any], limit: int, rank: int) -> None:
    assert rank_answer(record, limit) == rank


def test_an_answer_comes_before_an_error_and_the_first_before_the_second(tmp_path: Path) -> None:
    index = AnswerIndex(requests(tmp_path, (1, 16), (2, 16), (3, 16)))
    index.add(write(tmp_path / "a", [failure(1), answer(2, text="first"), answer(3, 64, "other")]))
    index.add(write(tmp_path / "b", [answer(1, text="late"), answer(2), answer(3, text="same")]))
    assert found(index) == ["late", "first", "same"]


def test_old_errors_can_be_asked_again(tmp_path: Path) -> None:
    path = write(tmp_path / "a", [failure(1), answer(2)])
    index = AnswerIndex(requests(tmp_path, (1, 16), (2, 16)))
    index.add(path, frozenset({"engine_killed"}))
    assert index.open_positions() == [0]
    index.add(path, frozenset({"output_corrupted"}))
    assert index.open_positions() == []


def test_journals_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.jsonl", "c.txt"):
        (tmp_path / name).write_text("")
    assert [path.name for path in find_journals(tmp_path)] == ["a.jsonl", "b.jsonl"]


def test_heads_are_read_with_and_without_the_short_cut() -> None:
    line = json.dumps(answer(5, 17), separators=(",", ":")).encode()
    spaced = json.dumps(answer(5, 17)).encode()
    assert read_head(line) == read_head(spaced) == (key(5).encode(), 17)
    with pytest.raises(ValueError, match="no key"):
        read_head(b"{}")


def test_a_file_that_holds_no_requests_is_named_with_its_line(tmp_path: Path) -> None:
    path = write(tmp_path / "r.jsonl", [answer(1), [2]])
    with pytest.raises(WorkflowError, match=r"r\.jsonl:2: not a request"):
        Requests(path)
    with pytest.raises(WorkflowError, match="cannot be read: No such file"):
        Requests(tmp_path / "none")


def test_greedy_requests_are_answered_apart_on_a_cpu(tmp_path: Path) -> None:
    shard = requests(tmp_path, (1, 16), (2, 16), (3, 16), (4, 16))
    apart = write_parts(shard.lines(lambda position: position != 3), tmp_path, apart=True)
    assert [list(part.positions) for part in apart] == [[1], [0, 2]]
    together = write_parts(shard.lines(lambda _: True), tmp_path, apart=False)
    assert [list(part.positions) for part in together] == [[0, 1, 2, 3]]
    assert together[0].path.read_bytes() == shard.path.read_bytes()
