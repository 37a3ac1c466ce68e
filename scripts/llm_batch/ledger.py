"""From rendered prompts to the ledger of a run and the requests it needs.

A ledger holds one row for each completion that a run expects, in prompt order, with the key of the
request that will answer it, or the error that was found before any engine was asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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


@dataclass(frozen=True, slots=True)
class PromptRow:
    """A row of a prompts file, rendered, with an id that no other row of the file has.

    `sent` is the JSON of the prompt, empty for a row in error; `digest` its sha256; `occurrence`
    how many rows before it send the same.
    """

    row: str
    line: int
    sent: bytes
    digest: str
    occurrence: int
    rendered: Rendered


class Expanded(NamedTuple):
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
            return PromptRow(row, line, b"", "", 0, rendered)
        # What is sent decides the answer: text or messages, and arguments of the chat template.
        sent = orjson.dumps(rendered.prompt, option=orjson.OPT_SORT_KEYS)
        digest = prompt_digest(sent)
        return PromptRow(row, line, sent, digest, self._occurrence(digest), rendered)

    def _occurrence(self, digest: str) -> int:
        short = int(digest[:16], 16)
        if short not in self._seen:
            self._seen.add(short)
            return 0
        self._repeats[short] = self._repeats.get(short, 0) + 1
        return self._repeats[short]


class Requester:
    """Expands rows under one sampling; what all its requests share is written once."""

    def __init__(self, sampling: SamplingKey, on_too_long: str) -> None:
        self._sampling = sampling
        # What is done with a prompt that is too long decides its answer: it is part of the key.
        self._suffix = "" if on_too_long == "error" else f":{on_too_long}"
        params = orjson.dumps(dict(sampling.params)).decode()
        seeded = "" if sampling.seed is None else ',"seed":{seed}'
        self._params = params[:-1].replace("{", "{{").replace("}", "}}") + seeded + "}}"
        self._tail = f',"on_too_long":{orjson.dumps(on_too_long).decode()}'

    def expand(self, rows: Sequence[PromptRow]) -> Expanded:
        """Return ledger rows and requests of `rows`."""
        ledger: list[tuple[Any, ...]] = []
        requests: list[tuple[Any, ...]] = []
        limit = self._sampling.max_tokens
        for row in rows:
            rendered = row.rendered
            shared = (rendered.content, rendered.reference, rendered.tags)
            error = (rendered.error_type, rendered.error_message)
            for sample in range(self._sampling.n):
                key = seed = None
                if rendered.prompt is not None:
                    seed = sample_seed(self._sampling, row.digest, row.occurrence, sample)
                    key = request_key(self._sampling, row.digest + self._suffix, seed)
                    requests.append(self._request(row, key, seed))
                ledger.append((row.row, row.line, sample, key, limit, seed, *shared, *error))
        return Expanded(_batch(ledger, LEDGER), _batch(requests, REQUESTS))

    def _request(self, row: PromptRow, key: str, seed: int | None) -> tuple[Any, ...]:
        content, limit = row.rendered.content, self._sampling.max_tokens
        expected = len(content) // CHARACTERS_PER_TOKEN + limit
        line = (
            f'{{"key":"{key}","max_tokens":{limit},"prompt":{row.sent.decode()},'
            f'"sampling":{self._params.format(seed=seed)}{self._tail},'
            f'"expected_tokens":{expected}}}'
        )
        return key, limit, content[:PREFIX_CHARACTERS], expected, line


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
