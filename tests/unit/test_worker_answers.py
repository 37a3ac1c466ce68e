"""Answers as lines of a journal."""

from __future__ import annotations

import json

import orjson
import pytest

from scripts.worker.answers import answer, encode, finite
from scripts.worker.engine import Finished, RequestError

KEY = "0123456789abcdef" * 2


def finished(text: str = "seven", error: RequestError | None = None) -> Finished:
    return Finished(
        "1", text, [5, 6], "stop", None, 3, rendered_prompt="<q>", logprobs=[], error=error
    )


def test_a_line_begins_with_key_and_limit() -> None:
    line = encode(answer(KEY, 16, finished()))
    assert line.startswith(b'{"key":"' + KEY.encode() + b'","max_tokens":16,')
    assert line.endswith(b'"error":null}\n')
    assert line.count(b"\n") == 1


def test_an_answer_with_an_error_keeps_only_what_was_known_before_it() -> None:
    record = answer(KEY, 16, finished(error=RequestError("output_corrupted", "nan")))
    assert record["error"] == {"type": "output_corrupted", "message": "nan"}
    assert (record["prompt_tokens"], record["rendered_prompt"]) == (3, "<q>")
    absent = ("text", "token_ids", "finish_reason", "logprobs")
    assert [record[name] for name in absent] == [None] * 4


@pytest.mark.parametrize("text", ["a\nb", "\u2028", "ü 漢 🙂", '"\\', "\x00\x1f", ""])
def test_any_text_survives_the_journal(text: str) -> None:
    assert orjson.loads(encode(answer(KEY, 1, finished(text))))["text"] == text


def test_lone_surrogates_become_question_marks() -> None:
    assert orjson.loads(encode({"text": "a\ud800b"}))["text"] == "a?b"


def test_numbers_that_json_lacks_become_null() -> None:
    nan, inf = float("nan"), float("inf")
    record = {"logprobs": [{"logprob": nan}, {"logprob": -inf}], "cumulative_logprob": nan}
    assert json.loads(encode(record)) == {
        "logprobs": [{"logprob": None}, {"logprob": None}],
        "cumulative_logprob": None,
    }
    assert finite((1.5, [inf], {"a": 1})) == [1.5, [None], {"a": 1}]


def test_long_messages_are_cut() -> None:
    assert len(RequestError("row_malformed", "x" * 5000).message) == 1000
