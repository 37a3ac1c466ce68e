"""Rows become ledger entries and requests."""

from __future__ import annotations

import json
from typing import Any

from scripts.llm_batch.ledger import PromptRow, Requester, RowNumbering, chunks
from scripts.llm_batch.prompts import Rendered
from scripts.llm_batch.requests import sampling_key

GREEDY = {"params": {"temperature": 0, "max_tokens": 16, "stop": ["}", '"{x}']}, "n": 1}
WARM = {"params": {"temperature": 0.7, "max_tokens": 16}, "n": 3, "seed": 5}


def text(content: str, name: str | None = None) -> Rendered:
    return Rendered({"text": content}, content, name, '"ref"', None)


def numbered(*rendered: Rendered) -> list[PromptRow]:
    numbering = RowNumbering()
    return [numbering.number(line, row) for line, row in enumerate(rendered, start=1)]


def expand(
    rows: list[PromptRow], sampling: dict[str, Any], on_too_long: str = "error"
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return ledger rows and the requests as the worker reads them."""
    expanded = Requester(sampling_key(sampling), on_too_long).expand(rows)
    requests = [json.loads(row["line"]) for row in expanded.requests.to_pylist()]
    return expanded.ledger.to_pylist(), requests


def test_a_request_holds_the_prompt_and_the_sampling_as_configured() -> None:
    ledger, requests = expand(numbered(text("Hello {there}")), GREEDY)
    assert requests == [
        {
            "key": ledger[0]["key"],
            "max_tokens": 16,
            "prompt": {"text": "Hello {there}"},
            "sampling": GREEDY["params"],
            "on_too_long": "error",
            "expected_tokens": 19,
        }
    ]
    assert ledger[0]["seed"] is None


def test_each_sample_is_a_request_with_the_seed_of_the_ledger() -> None:
    ledger, requests = expand(numbered(text("a"), text("b")), WARM)
    assert [entry["sample"] for entry in ledger] == [0, 1, 2, 0, 1, 2]
    assert [request["sampling"]["seed"] for request in requests] == [
        entry["seed"] for entry in ledger
    ]
    assert len({entry["key"] for entry in ledger}) == 6


def test_the_same_prompt_twice_is_one_greedy_request_but_independent_samples() -> None:
    rows = numbered(text("a"), text("a"))
    greedy, _ = expand(rows, GREEDY)
    warm, _ = expand(rows, WARM)
    assert greedy[0]["key"] == greedy[1]["key"]
    assert len({entry["key"] for entry in warm}) == 6


def test_row_order_does_not_change_keys() -> None:
    forward, _ = expand(numbered(text("a"), text("b"), text("c")), WARM)
    backward, _ = expand(numbered(text("c"), text("b"), text("a")), WARM)
    assert {entry["key"] for entry in forward} == {entry["key"] for entry in backward}


def test_text_and_messages_of_the_same_characters_are_different_requests() -> None:
    messages = [{"role": "user", "content": "a"}]
    content = json.dumps(messages)
    chat = Rendered({"messages": messages, "chat_template_kwargs": {}}, content, None, None, None)
    other = chat._replace(
        prompt={"messages": messages, "chat_template_kwargs": {"enable_thinking": False}}
    )
    keys = [expand(numbered(row), GREEDY)[0][0]["key"] for row in (text(content), chat, other)]
    assert len(set(keys)) == 3


def test_what_happens_to_long_prompts_is_part_of_the_key() -> None:
    rows = numbered(text("a"))
    kept, requests = expand(rows, GREEDY, "truncate_left")
    assert requests[0]["on_too_long"] == "truncate_left"
    assert kept[0]["key"] != expand(rows, GREEDY)[0][0]["key"]


def test_a_row_in_error_has_entries_but_no_requests() -> None:
    broken = Rendered(None, "", None, None, None, "prompt_empty", "line 1: the prompt is empty")
    ledger, requests = expand(numbered(broken), WARM)
    assert requests == []
    assert [(entry["key"], entry["error_type"]) for entry in ledger] == [(None, "prompt_empty")] * 3


def test_a_repeated_id_gets_its_line_number() -> None:
    rows = numbered(text("a", "x"), text("b", "x"), text("c"), text("d", "x"))
    assert [row.row for row in rows] == ["x", "x#2", "3", "x#4"]


def test_chunks_keep_every_row_in_order() -> None:
    rows = numbered(*(text(str(number)) for number in range(7)))
    assert [len(chunk) for chunk in chunks(iter(rows), 3)] == [3, 3, 1]
    assert [row for chunk in chunks(iter(rows), 3) for row in chunk] == rows
