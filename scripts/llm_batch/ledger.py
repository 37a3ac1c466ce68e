"""From rendered prompts to the ledger of a run and the requests it needs.

A ledger holds one row for each completion that a run expects, in prompt order, with the key of the
request that will answer it, or the error that was found before any engine was asked.

Rows come in blocks, column by column: `digest_rows` needs nothing but the block, `RowNumbering`
sees all blocks in order, and `number_rows` and `Requester.expand` again need nothing but the block.
So several processes can work on one file, see `expansion`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from scripts.llm_batch.numbering import Identities, NamesAndLines, Numbers
from scripts.llm_batch.occurrences import Hashes, text_hashes
from scripts.llm_batch.prompts import RenderedRows
from scripts.llm_batch.requests import (
    KEY_DIGITS,
    SamplingKey,
    prompt_digest,
    request_key,
    sample_seed,
    unseeded_digests,
)
from scripts.llm_batch.tables import LEDGER

CHARACTERS_PER_TOKEN = 4
"""A rule of thumb for English; used to balance shards, never to decide what fits."""

REQUESTS = pa.schema(
    [
        ("key", pa.string()),
        ("max_tokens", pa.int32()),
        ("prompt", pa.string()),
        ("sampling", pa.int16()),
        ("seed", pa.int64()),
        ("expected_tokens", pa.int64()),
    ]
)
"""Requests on their way into shards; `prompt` is JSON, `sampling` the number of its text."""


_ROWS = pa.schema(
    [
        *(LEDGER.field(name) for name in ("row", "line", "prompt", "reference", "tags")),
        *(LEDGER.field(name) for name in ("error_type", "error_message")),
        ("sent", pa.string()),
    ]
)


class DigestedRows(NamedTuple):
    """Rows in file order.

    `table` has the columns of `_ROWS`, where `row` is a row's own id or its line number, and `sent`
    the JSON of its prompt; `digests` are the sha256 of what is sent, empty for a row in error;
    `names` are hashes of column `row`, None where all are line numbers.
    """

    table: pa.RecordBatch
    digests: list[str]
    names: Hashes | None


def digest_rows(lines: Sequence[int], rendered: RenderedRows, named: bool = True) -> DigestedRows:
    """Return rows with the digests of their prompts; `named` if they may have ids of their own."""
    # What is sent decides the answer: text or messages, and arguments of the chat template.
    sent = [
        None if prompt is None else orjson.dumps(prompt, option=orjson.OPT_SORT_KEYS)
        for prompt in rendered.prompts
    ]
    digests = ["" if text is None else prompt_digest(text) for text in sent]
    names = [
        str(line) if own is None else own for line, own in zip(lines, rendered.ids, strict=True)
    ]
    columns = (
        *(names, lines, rendered.contents, rendered.references, rendered.tags),
        *(rendered.error_types, rendered.error_messages, sent),
    )
    arrays = [
        pa.array(column, type=field.type) for column, field in zip(columns, _ROWS, strict=True)
    ]
    table = pa.RecordBatch.from_arrays(arrays, schema=_ROWS)
    return DigestedRows(table, digests, text_hashes(names) if named else None)


def join_rows(pieces: Sequence[DigestedRows]) -> DigestedRows:
    """Return the rows of all pieces, at least one."""
    hashes = [piece.names for piece in pieces if piece.names is not None]
    return DigestedRows(
        pa.concat_batches([piece.table for piece in pieces]),
        [digest for piece in pieces for digest in piece.digests],
        np.concatenate(hashes) if hashes else None,
    )


def identities(rows: DigestedRows, seeded: bool = True) -> Identities:
    """Return the identities of rows; their prompts matter only to `seeded` requests."""
    digits = "".join([digest[:16] for digest in rows.digests]) if seeded else ""
    places = None
    if "" in rows.digests:
        places = np.flatnonzero([digest != "" for digest in rows.digests])
    return Identities(
        rows=len(rows.digests),
        names=rows.names,
        digests=np.frombuffer(bytes.fromhex(digits), dtype=">u8").astype(np.uint64),
        places=places,
    )


def own_names(rows: DigestedRows) -> NamesAndLines:
    """Return the names of rows, as they are before any is found to be repeated, and their lines."""
    return rows.table.column("row").to_pylist(), rows.table.column("line").to_pylist()


@dataclass(frozen=True, slots=True)
class NumberedRows:
    """Rows of a block, ready to be expanded; `table` has the columns of `_ROWS`."""

    table: pa.RecordBatch
    digests: Sequence[str]
    occurrences: Sequence[int]

    def parts(self, size: int) -> Iterator[NumberedRows]:
        """Yield the rows in parts of at most `size`."""
        for start in range(0, len(self.digests), size):
            part = slice(start, start + size)
            table = self.table.slice(start, size)
            yield NumberedRows(table, self.digests[part], self.occurrences[part])


def number_rows(rows: DigestedRows, numbers: Numbers) -> NumberedRows:
    """Return the rows that count, with their names and occurrences."""
    table = rows.table.slice(0, numbers.kept)
    if numbers.renamed:
        names = table.column("row").to_pylist()
        for place, name in numbers.renamed.items():
            names[place] = name
        table = table.set_column(0, _ROWS.field("row"), pa.array(names, pa.string()))
    occurrences = [0] * numbers.kept
    for place, count in numbers.occurrences.items():
        occurrences[place] = count
    return NumberedRows(table, rows.digests[: numbers.kept], occurrences)


class Expanded(NamedTuple):
    """Record batches of one block: ledger rows and the requests they refer to."""

    ledger: pa.RecordBatch
    requests: pa.RecordBatch


class SamplingText(NamedTuple):
    """JSON that the requests of one run have in common, before and after their seeds.

    `adapter` names the LoRA adapter they use, None without one.
    """

    before: str
    after: str
    adapter: str | None = None


class Requester:
    """Expands rows under one sampling; `number` is its place among all samplings of the batch.

    `adapter` is the address of a LoRA adapter. It decides an answer, so it is part of the key; it
    plays no part in seeds, so that adapters are compared on the same draws.
    """

    def __init__(
        self, sampling: SamplingKey, on_too_long: str, number: int = 0, adapter: str | None = None
    ) -> None:
        self._sampling = sampling
        self._number = number
        # What is done with a prompt that is too long decides its answer: it is part of the key.
        self._suffix = "" if on_too_long == "error" else f":{on_too_long}"
        self._suffix += "" if adapter is None else f"+{adapter}"
        params = orjson.dumps(dict(sampling.params)).decode()
        rule = orjson.dumps(on_too_long).decode()
        named = "" if adapter is None else f'"adapter":{orjson.dumps(adapter).decode()},'
        self.text = SamplingText(
            f',"sampling":{params[:-1]}',
            f'}},{named}"on_too_long":{rule},"expected_tokens":',
            adapter,
        )

    @property
    def texts(self) -> list[SamplingText]:
        """The texts of all samplings that its requests have: one."""
        return [self.text]

    @property
    def samples(self) -> int:
        """Completions of one row."""
        return self._sampling.n

    @property
    def seeded(self) -> bool:
        """Whether requests have seeds."""
        return self._sampling.seed is not None

    def expand(self, rows: NumberedRows) -> Expanded:
        """Return ledger rows and requests of `rows`; the samples of a row follow each other."""
        n, count = self._sampling.n, len(rows.digests)
        table = rows.table
        if n > 1:
            table = table.take(pa.array(np.repeat(np.arange(count), n)))
        keys, seeds = self._keys_and_seeds(rows)
        limit = self._sampling.max_tokens
        columns = {
            **{name: table.column(name) for name in table.schema.names},
            "sample": np.tile(np.arange(n), count),
            "key": keys,
            "max_tokens": np.full(len(table), limit),
            "seed": seeds,
        }
        ledger = _batch(columns, LEDGER)
        characters = pc.utf8_length(table.column("prompt")).to_numpy(zero_copy_only=False)
        columns |= {
            "prompt": table.column("sent"),
            "sampling": np.full(len(table), self._number),
            "expected_tokens": characters // CHARACTERS_PER_TOKEN + limit,
        }
        requests = _batch(columns, REQUESTS)
        if keys.null_count:
            requests = requests.filter(keys.is_valid())
        return Expanded(ledger, requests)

    def _keys_and_seeds(self, rows: NumberedRows) -> tuple[pa.Array, pa.Array]:
        sampling, n = self._sampling, self._sampling.n
        digests = rows.digests
        if self._suffix:
            digests = [digest and digest + self._suffix for digest in digests]
        if not self.seeded:
            return self._unseeded_keys(digests), pa.nulls(len(digests) * n, pa.int64())
        keys: list[str | None] = []
        seeds: list[int | None] = []
        for digest, asked, occurrence in zip(rows.digests, digests, rows.occurrences, strict=True):
            for sample in range(n):
                seed = sample_seed(sampling, digest, occurrence, sample) if digest else None
                keys.append(request_key(sampling, asked, seed) if digest else None)
                seeds.append(seed)
        return pa.array(keys, pa.string()), pa.array(seeds, pa.int64())

    def _unseeded_keys(self, digests: Sequence[str]) -> pa.Array:
        keys = key_column(unseeded_digests(self._sampling, digests))
        if "" in digests:
            keys = pc.if_else(pa.array([digest != "" for digest in digests]), keys, None)
        if self._sampling.n > 1:
            keys = keys.take(pa.array(np.repeat(np.arange(len(digests)), self._sampling.n)))
        return keys


def key_column(digests: bytes) -> pa.StringArray:
    """Return the keys of requests whose digests, of 32 bytes each, follow one another."""
    begun = np.frombuffer(digests, dtype=np.uint8).reshape(-1, 32)[:, : KEY_DIGITS // 2]
    offsets = np.arange(len(begun) + 1, dtype=np.int32) * KEY_DIGITS
    data = pa.py_buffer(begun.tobytes().hex().encode())
    return pa.StringArray.from_buffers(len(begun), pa.py_buffer(offsets), data)


def _batch(
    columns: Mapping[str, pa.Array | NDArray[np.int64]], schema: pa.Schema
) -> pa.RecordBatch:
    arrays = [pa.array(columns[field.name], type=field.type) for field in schema]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def request_lines(requests: pa.RecordBatch, samplings: Sequence[SamplingText]) -> pa.StringArray:
    """Return the line of each request as the worker reads it, with its line break.

    `samplings` are the texts of all samplings of the batch, by number.
    """
    before, after = (
        pa.array(texts).take(requests.column("sampling"))
        for texts in zip(*((text.before, text.after) for text in samplings), strict=True)
    )
    seed = pc.binary_join_element_wise(',"seed":', requests.column("seed").cast(pa.string()), "")
    return pc.binary_join_element_wise(
        '{"key":"',
        requests.column("key"),
        '","max_tokens":',
        requests.column("max_tokens").cast(pa.string()),
        ',"prompt":',
        requests.column("prompt"),
        before,
        seed.fill_null(""),
        after,
        requests.column("expected_tokens").cast(pa.string()),
        "}\n",
        "",
    )
