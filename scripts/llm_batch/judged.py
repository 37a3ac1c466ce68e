"""Prompts made from the completions of other runs, for a model that judges them.

One run: a row for each of its completions. Two runs on the same rows: two rows for each pair of
completions, one in either order, so that a judge's liking for a position cancels out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from scripts.llm_batch.addresses import read_json
from scripts.llm_batch.data.source import blocks_of, split_files, split_name
from scripts.llm_batch.errors import WorkflowError
from scripts.llm_batch.judged_fields import FAVOURED, JUDGED_ROW, ORDER
from scripts.llm_batch.rows import parse_block

SOURCE_COLUMNS = ("row", "line", "sample", "prompt", "text", "finish_reason", "error_type")


@dataclass(frozen=True)
class Source:
    """A run whose completions are judged: its folder, and the prompts file it was asked from."""

    run: Path
    prompts: Path


@dataclass
class Counts:
    """How many rows were made, and how many completions cannot be judged.

    They are errors, or the other run has no answer to the same sample of the same row.
    """

    rows: int = 0
    left_out: int = 0


def derive_rows(sources: Sequence[Source], counts: Counts) -> Iterator[dict[str, Any]]:
    """Yield the rows of derived prompts, and count them.

    Each has the fields of its original row (again below `row`), and over them `id`, `judged_row`,
    `sample`, `prompt` (of a chat the last message of the user) and `messages` of a chat. About one
    run: `completion` and `finish_reason`; about two: `first`, `second`, `order`, `favoured`.
    """
    known = _is_derived(sources[0].run)
    others = _completions_by_place(sources[1].run) if len(sources) == 2 else None
    for fields, completion in _with_fields(sources[0]):
        common = _common(fields, completion)
        if known:
            common[JUDGED_ROW] = fields.get(JUDGED_ROW, completion["line"])
        own = completion["text"] if completion["error_type"] is None else None
        if others is None:
            if own is None:
                counts.left_out += 1
                continue
            counts.rows += 1
            yield common | {"completion": own, "finish_reason": completion["finish_reason"]}
            continue
        other = others.get((completion["line"], completion["sample"]))
        if own is None or other is None:
            counts.left_out += 1
            continue
        counts.rows += 2
        yield from _both_orders(common, own, other)


def _both_orders(common: Mapping[str, Any], own: str, other: str) -> Iterator[dict[str, Any]]:
    for order, favoured, first, second in (("ab", "A", own, other), ("ba", "B", other, own)):
        made: dict[str, Any] = {
            ORDER: order,
            FAVOURED: favoured,
            "id": f"{common['id']}/{order}",
            "first": first,
            "second": second,
        }
        yield {**made, **{key: value for key, value in common.items() if key not in made}}


def _common(fields: Mapping[str, Any], completion: Mapping[str, Any]) -> dict[str, Any]:
    own = {
        JUDGED_ROW: completion["line"],
        "id": f"{completion['row']}/{completion['sample']}",
        "sample": completion["sample"],
        **_prompt(completion["prompt"]),
    }
    # Ours come first: only so many short fields of a row reach the evaluation.
    return {**own, "row": dict(fields), **{k: v for k, v in fields.items() if k not in own}}


def _prompt(sent: str | None) -> dict[str, Any]:
    """Return the prompt as text, and the messages of a chat, which completions hold as JSON."""
    try:
        messages = json.loads(sent or "")
    except ValueError:
        return {"prompt": sent}
    if not isinstance(messages, list) or not all(isinstance(one, dict) for one in messages):
        return {"prompt": sent}
    users = [one.get("content") for one in messages if one.get("role") == "user"]
    return {"prompt": users[-1] if users else sent, "messages": messages}


def _with_fields(source: Source) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Yield each completion of a run with the fields of its row; both are in the file's order."""
    rows = _rows(source)
    number, fields = next(rows, (0, {}))
    for completion in _completions(source.run):
        while 0 < number < completion["line"]:
            number, fields = next(rows, (0, {}))
        if number != completion["line"]:
            raise WorkflowError(
                f"{source.prompts}: has no line {completion['line']}, which {source.run} answered; "
                "it was changed, run the workflow again"
            )
        yield fields, completion


def _rows(source: Source) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield the number and the fields of each row that a run was asked from."""
    identity = _run_identity(source.run)["prompts"]
    split = split_name(identity.get("split")) if "dataset" in identity else None
    for block in blocks_of(split_files(source.prompts, split)):
        rows = parse_block(block)
        yield from zip(rows.lines, rows.fields, strict=True)


def _is_derived(run: Path) -> bool:
    """Whether the run itself judges: then its rows say what they are about."""
    return "from_runs" in _run_identity(run)["prompts"]


def _run_identity(run: Path) -> Mapping[str, Any]:
    identity: Mapping[str, Any] = read_json(run / "identity.json")["identity"]
    return identity


def _completions(run: Path) -> Iterator[Mapping[str, Any]]:
    path = run / "completions.parquet"
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(columns=list(SOURCE_COLUMNS)):
                yield from batch.to_pylist()
    except OSError as error:
        raise WorkflowError(f"{path}: cannot be read: {error}") from None


def _completions_by_place(run: Path) -> dict[tuple[int, int], str]:
    return {
        (one["line"], one["sample"]): one["text"]
        for one in _completions(run)
        if one["error_type"] is None
    }
