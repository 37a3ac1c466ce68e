"""Rows become ledger entries and requests."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.llm_batch.ledger import (
    NumberedRows,
    Requester,
    digest_rows,
    identities,
    number_rows,
    own_names,
    request_lines,
)
from scripts.llm_batch.numbering import RowNumbering
from scripts.llm_batch.prompts import Rendered, RenderedRows
from scripts.llm_batch.requests import sampling_key

GREEDY = {"params": {"temperature": 0, "max_tokens": 16, "stop": ["}", '"{x}']}, "n": 1}
WARM = {"params": {"temperature": 0.7, "max_tokens": 16}, "n": 3, "seed": 5}


def text(content: str, name: str | None = None) -> Rendered:
    return Rendered({"text": content}, content, name, '"ref"', None)


def columns(rendered: Sequence[Rendered]) -> RenderedRows:
    return RenderedRows(*zip(*rendered, strict=True)) if rendered else RenderedRows(*[[]] * 7)


def numbered(*rendered: Rendered, block: int = 100) -> NumberedRows:
    """Return rows as they are numbered in blocks of `block` rows."""
    numbering = RowNumbering()
    blocks = []
    for start in range(0, len(rendered), block):
        part = rendered[start : start + block]
        rows = digest_rows(range(start + 1, start + 1 + len(part)), columns(part))
        numbers = numbering.number(identities(rows), partial(own_names, rows))
        blocks.append(number_rows(rows, numbers))
    return join(blocks)


def join(blocks: Iterable[NumberedRows]) -> NumberedRows:
    tables: list[pa.RecordBatch] = []
    digests: list[str] = []
    occurrences: list[int] = []
    for rows in blocks:
        tables.append(rows.table)
        digests += rows.digests
        occurrences += rows.occurrences
    (table,) = pa.Table.from_batches(tables).combine_chunks().to_batches()
    return NumberedRows(table, digests, occurrences)


def names(rows: NumberedRows) -> list[str]:
    listed: list[str] = rows.table.column("row").to_pylist()
    return listed


def expand(
    rows: NumberedRows, sampling: dict[str, Any], on_too_long: str = "error"
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return ledger rows and the requests as the worker reads them."""
    requester = Requester(sampling_key(sampling), on_too_long)
    expanded = requester.expand(rows)
    lines = request_lines(expanded.requests, [requester.text]).to_pylist()
    return expanded.ledger.to_pylist(), [json.loads(line) for line in lines]


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
    assert names(rows) == ["x", "x#2", "3", "x#4"]


def test_a_new_name_is_never_the_id_of_another_row() -> None:
    rows = numbered(*(text("a", name) for name in ("x#3", "x", "x", "x#3", "x#3#3")))
    assert names(rows) == ["x#3", "x", "x#3#3", "x#3#4", "x#3#3#5"]


@given(
    rows=st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from([None, "x", "y", "x#2", "3", "x#2#5"])),
        min_size=1,
        max_size=12,
    ),
    block=st.integers(1, 12),
)
def test_blocks_of_any_size_give_the_same_rows(
    rows: list[tuple[str, str | None]], block: int
) -> None:
    broken = Rendered(None, "", None, None, None, "prompt_empty", "the prompt is empty")
    rendered = [broken if word == "c" else text(word, name) for word, name in rows]
    together, apart = numbered(*rendered), numbered(*rendered, block=block)
    assert apart.table.equals(together.table)
    assert (apart.digests, apart.occurrences) == (together.digests, together.occurrences)
    assert len(set(names(together))) == len(rows)


@pytest.mark.parametrize("block", [1, 3, 100])
def test_rows_beyond_the_limit_do_not_count(block: int) -> None:
    numbering = RowNumbering(limit=4)
    kept: list[int] = []
    for start in range(0, 7, block):
        part = [text("a") for _ in range(start, min(start + block, 7))]
        rows = digest_rows(range(start, start + len(part)), columns(part))
        numbers = numbering.number(identities(rows), partial(own_names, rows))
        kept += number_rows(rows, numbers).occurrences
        assert numbering.full == (len(kept) == 4)
    assert kept == [0, 1, 2, 3]


def test_parts_keep_every_row_in_order() -> None:
    rows = numbered(*(text(str(number), str(number)) for number in range(7)))
    parts = list(rows.parts(3))
    assert [len(part.digests) for part in parts] == [3, 3, 1]
    assert join(parts).table.equals(rows.table)
    assert join(parts).digests == rows.digests
