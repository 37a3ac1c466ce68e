"""From a prompts file to the ledger of a run and the requests it needs.

A ledger holds one row for each completion that a run expects, in prompt order, with the key of the
request that will answer it, or the error that was found before any engine was asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson
import pyarrow as pa

from scripts.llm_batch.prompts import Rendered
from scripts.llm_batch.requests import SamplingKey, prompt_digest, request_key, sample_seed
from scripts.llm_batch.tables import LEDGER

CHUNK_ROWS = 20_000
"""Rows held as Python objects before they become a record batch."""

CHARACTERS_PER_TOKEN = 4
"""A rule of thumb for English; used to balance shards, never to decide what fits."""

PREFIX_CHARACTERS = 256
"""Requests are sorted by so much of their prompt, so that prompts sharing a prefix meet."""

REQUESTS = pa.schema(
    [
        ("key", pa.string()),
        ("max_tokens", pa.int32()),
        ("prefix", pa.string()),
        ("expected_tokens", pa.int64()),
        ("line", pa.string()),
    ]
)
"""Requests on their way into shards; `line` is the JSON that the worker will read."""


@dataclass(frozen=True)
class PromptRow:
    """A row of a prompts file, rendered, with an id that no other row of the file has."""

    row: str
    line: int
    digest: str
    occurrence: int
    rendered: Rendered


class Batches(NamedTuple):
    """Record batches of one chunk: ledger rows and the requests they refer to."""

    ledger: pa.RecordBatch
    requests: pa.RecordBatch


class RowNumbering:
    """Gives rows unique ids and counts how often the same prompt came before, in file order."""

    def __init__(self) -> None:
        self._ids: set[str] = set()
        self._seen: set[int] = set()
        self._repeats: dict[int, int] = {}

    def number(self, line: int, rendered: Rendered) -> PromptRow:
        """Return `rendered` with its id, `<id>#<line>` where an earlier row has the same id."""
        row = rendered.id if rendered.id is not None else str(line)
        if row in self._ids:
            row = f"{row}#{line}"
        self._ids.add(row)
        if rendered.prompt is None:
            return PromptRow(row, line, "", 0, rendered)
        # What is sent decides the answer: text or messages, and arguments of the chat template.
        digest = prompt_digest(orjson.dumps(rendered.prompt, option=orjson.OPT_SORT_KEYS))
        return PromptRow(row, line, digest, self._occurrence(digest), rendered)

    def _occurrence(self, digest: str) -> int:
        short = int(digest[:16], 16)
        if short not in self._seen:
            self._seen.add(short)
            return 0
        self._repeats[short] = self._repeats.get(short, 0) + 1
        return self._repeats[short]


def expand(
    rows: Sequence[PromptRow], sampling: SamplingKey, on_too_long: str
) -> Batches:
    """Return ledger rows and requests of `rows` under one sampling."""
    ledger: list[tuple[Any, ...]] = []
    requests: list[tuple[Any, ...]] = []
    for row in rows:
        for sample in range(sampling.n):
            entry, request = _expand_sample(row, sampling, sample, on_too_long)
            ledger.append(entry)
            if request is not None:
                requests.append(request)
    return Batches(_batch(ledger, LEDGER), _batch(requests, REQUESTS))


def _expand_sample(
    row: PromptRow, sampling: SamplingKey, sample: int, on_too_long: str
) -> tuple[tuple[Any, ...], tuple[Any, ...] | None]:
    rendered = row.rendered
    common = (rendered.content, rendered.reference, rendered.tags)
    if rendered.prompt is None:
        error = (rendered.error_type, rendered.error_message)
        entry = (row.row, row.line, sample, None, sampling.max_tokens, None, *common, *error)
        return entry, None
    seed = sample_seed(sampling, row.digest, row.occurrence, sample)
    # What is done with a prompt that is too long decides its answer, so it is part of the key.
    digest = row.digest if on_too_long == "error" else f"{row.digest}:{on_too_long}"
    key = request_key(sampling, digest, seed)
    entry = (row.row, row.line, sample, key, sampling.max_tokens, seed, *common, None, None)
    expected = len(rendered.content) // CHARACTERS_PER_TOKEN + sampling.max_tokens
    line = request_line(key, rendered.prompt, sampling, seed, on_too_long, expected)
    request = (key, sampling.max_tokens, rendered.content[:PREFIX_CHARACTERS], expected, line)
    return entry, request


def request_line(
    key: str,
    prompt: Mapping[str, Any],
    sampling: SamplingKey,
    seed: int | None,
    on_too_long: str,
    expected_tokens: int,
) -> str:
    """Return the JSON of one request, as the worker reads it."""
    params = dict(sampling.params) if seed is None else {**sampling.params, "seed": seed}
    record = {
        "key": key,
        "max_tokens": sampling.max_tokens,
        "prompt": prompt,
        "sampling": params,
        "on_too_long": on_too_long,
        "expected_tokens": expected_tokens,
    }
    return orjson.dumps(record).decode()


def _batch(rows: list[tuple[Any, ...]], schema: pa.Schema) -> pa.RecordBatch:
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(schema)
    arrays = [
        pa.array(column, type=field.type) for column, field in zip(columns, schema, strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def chunks(rows: Iterator[PromptRow], size: int = CHUNK_ROWS) -> Iterator[list[PromptRow]]:
    """Yield `rows` in lists of at most `size`."""
    chunk: list[PromptRow] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) >= size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
