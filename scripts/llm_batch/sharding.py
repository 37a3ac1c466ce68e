"""Requests of a batch: doubles merged, answered ones subtracted, the rest cut into shards.

DuckDB does the joins and the sorting, on disk where memory is short.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from scripts.llm_batch.addresses import atomic_path
from scripts.llm_batch.answers import Wanted
from scripts.llm_batch.errors import WorkflowError
from scripts.llm_batch.ledger import REQUESTS, SamplingText, request_lines
from scripts.llm_batch.parquet import write_table
from scripts.llm_batch.tables import ANSWERS

MEMORY_LIMIT = "1GB"
"""DuckDB goes to disk beyond this; the rest of the process stays below as much again."""

_NO_ROOM = ("No space left on device", "Disk quota exceeded")
"""What DuckDB wraps in a page of JSON."""

STREAM_ROWS = 8_192
"""Rows in memory at a time, besides DuckDB's own: of texts of 100 kB 800 MB."""


class ShardCount(NamedTuple):
    """How much one shard holds."""

    requests: int
    expected_tokens: int


@contextmanager
def database(scratch: Path, threads: int | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield a DuckDB connection that spills to `scratch` and keeps the order of rows.

    Raises `WorkflowError` where a disk or the memory has no room for what is done with it.
    """
    settings: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": MEMORY_LIMIT,
        "temp_directory": str(scratch),
    }
    if threads is not None:
        settings["threads"] = threads
    connection = duckdb.connect(":memory:", config=settings)
    try:
        yield connection
    except (duckdb.IOException, duckdb.OutOfMemoryException) as error:
        text = " ".join(str(error).split())
        reason = next((known for known in _NO_ROOM if known in text), text)
        raise WorkflowError(
            f"{scratch.parent}: cannot be written: {reason}; free space and run again"
        ) from None
    finally:
        connection.close()


def first_row(connection: duckdb.DuckDBPyConnection, sql: str) -> tuple[Any, ...]:
    """Return the first row of a query, and finish the query."""
    rows: list[tuple[Any, ...]] = connection.execute(sql).fetchall()
    return rows[0]


def view_parquet(
    connection: duckdb.DuckDBPyConnection, name: str, files: Sequence[Path], schema: pa.Schema
) -> None:
    """Make view `name` of Parquet files; an empty table with the columns of `schema` of none."""
    if files:
        connection.read_parquet([str(file) for file in files]).create_view(name)
        return
    connection.register("empty", schema.empty_table())
    connection.execute(f"CREATE TABLE {name} AS SELECT * FROM empty")
    connection.unregister("empty")


def load_requests(connection: duckdb.DuckDBPyConnection, files: Sequence[Path]) -> None:
    """Make view `requests` of files of REQUESTS; the same request may be there several times."""
    view_parquet(connection, "requests", files, REQUESTS)


def wanted_answers(connection: duckdb.DuckDBPyConnection) -> Wanted:
    """Return the keys of all requests, to read journals with; all are of 32 digits."""
    heads = connection.sql("SELECT left(key, 8) FROM requests").to_arrow_reader(STREAM_ROWS)
    return Wanted(b"".join(_text(batch.column(0)) for batch in heads))


def load_answers(
    connection: duckdb.DuckDBPyConnection, batches: Iterable[pa.RecordBatch], scratch: Path
) -> None:
    """Make view `answers` of the answers so far, numbered from the earliest as `arrival`."""
    path = scratch / "answers.parquet"
    write_table(path, batches, ANSWERS)
    connection.read_parquet(str(path), file_row_number=True).create_view("journaled")
    connection.execute(
        "CREATE VIEW answers AS "
        "SELECT * EXCLUDE (file_row_number), file_row_number AS arrival FROM journaled"
    )


CHOSEN = """
CREATE TABLE chosen AS
SELECT w.key, w.max_tokens, a.arrival
FROM (SELECT DISTINCT key, max_tokens FROM requests SEMI JOIN answers USING (key)) w
JOIN answers a ON w.key = a.key
WHERE a.max_tokens = w.max_tokens
   OR (a.error_type IS NULL AND len(a.token_ids) <= w.max_tokens
       AND (a.finish_reason = 'stop' OR len(a.token_ids) < a.max_tokens)
       AND coalesce(a.truncated_prompt_tokens, 0) = 0)
QUALIFY row_number() OVER (
    PARTITION BY w.key, w.max_tokens
    ORDER BY a.error_type IS NOT NULL, a.max_tokens != w.max_tokens, a.arrival
) = 1
"""
"""The rule of `generate.journal.AnswerIndex`, for all requests of a batch at a time.

An answer serves another limit if it stopped by itself within it, or at the end of the context;
unless the prompt was cut, which leaves room for `max_tokens`. Of several answers to one request
one without an error comes first, then the same limit, then the earliest: an answer that was merged
once is merged again.
"""

REUSED = """
SELECT c.key, c.max_tokens, a.* EXCLUDE (key, max_tokens, arrival)
FROM chosen c JOIN answers a USING (arrival)
ORDER BY c.key, c.max_tokens
"""


def write_reused(connection: duckdb.DuckDBPyConnection, path: Path) -> int:
    """Write the answers that need no engine, remember them as `chosen`; return their number."""
    connection.execute(CHOSEN)
    return write_table(path, connection.sql(REUSED).to_arrow_reader(STREAM_ROWS), ANSWERS)


OPEN = "requests ANTI JOIN chosen USING (key, max_tokens)"

PIECES = 256
"""A shard gets so many pieces from all over the sorted requests. How long answers become is not
known, but alike prompts have alike answers: a shard of neighbours only was busy four times as long
as the others where a tenth of the prompts, all beginning alike, had answers ten times as long; with
64 pieces 4.4 % of four shards' time was lost at the end, with 256 a quarter of that
(tests/peers/tail.py). A piece is long enough for prompts that share a beginning to meet in it."""

PIECE_REQUESTS = 16

# Twice the same hash only moves a cut by one request.
EXPECTED = f"""
SELECT coalesce(sum(expected_tokens), 0), count(*)
FROM (SELECT DISTINCT hash(key, max_tokens), expected_tokens FROM {OPEN})
"""

ORDERED = f"SELECT * FROM {OPEN} ORDER BY {{adapter}} prompt, key, max_tokens"
"""Requests that share the beginning of a prompt meet, and doubles are neighbours.

An adapter has a KV cache of its own, and an engine holds few at a time: its requests stay together.
"""


def write_shards(
    connection: duckdb.DuckDBPyConnection,
    folder: Path,
    shards: int,
    samplings: Sequence[SamplingText],
) -> list[ShardCount]:
    """Cut the open requests into `shards` files of equal expected tokens.

    Sorted, they are cut into pieces, and each piece goes to the shard that has least so far.
    `samplings` are the texts of all samplings of the batch, by number.
    """
    folder.mkdir(parents=True, exist_ok=True)
    total, requests = map(int, first_row(connection, EXPECTED))
    pieces = shards * min(PIECES, max(1, requests // (shards * PIECE_REQUESTS)))
    ordered_sql = ORDERED.format(adapter=_adapter_order(samplings))
    ordered = _Requests(connection.sql(ordered_sql).to_arrow_reader(STREAM_ROWS))
    counts = [ShardCount(0, 0)] * shards
    least = [(0, shard) for shard in range(shards)]
    with ExitStack() as stack:
        paths = [
            stack.enter_context(atomic_path(folder / f"{shard}.jsonl")) for shard in range(shards)
        ]
        for piece in range(pieces):
            until = total * (piece + 1) // pieces if piece + 1 < pieces else None
            _, shard = heapq.heappop(least)
            # Opened again for each piece: a process may not have 10 000 files open.
            with paths[shard].open("ab") as stream:
                counts[shard] = _write_piece(ordered, until, stream, samplings, counts[shard])
            heapq.heappush(least, (counts[shard].expected_tokens, shard))
    return counts


def _adapter_order(samplings: Sequence[SamplingText]) -> str:
    """Return the SQL that sorts by adapter, by the number of the sampling; empty without any."""
    names = [text.adapter or "" for text in samplings]
    if not any(names):
        return ""
    places = {name: place for place, name in enumerate(sorted(set(names)))}
    return f"list_extract({[places[name] for name in names]}, sampling + 1),"


def _write_piece(
    requests: _Requests,
    until: int | None,
    stream: BinaryIO,
    samplings: Sequence[SamplingText],
    before: ShardCount,
) -> ShardCount:
    """Append the requests that begin below `until` expected tokens; return the shard's counts."""
    count, expected = before
    for batch in requests.before(until):
        stream.write(_text(request_lines(batch, samplings)))
        count += batch.num_rows
        expected += pc.sum(batch.column("expected_tokens")).as_py() or 0
    return ShardCount(count, expected)


def _text(lines: pa.StringArray) -> memoryview:
    """Return the bytes of all lines: in Arrow's memory they follow each other already."""
    _, offsets, data = lines.buffers()
    ends = np.frombuffer(offsets, dtype=np.int32)
    if data is None:
        return memoryview(b"")
    return memoryview(data)[ends[lines.offset] : ends[lines.offset + len(lines)]]


class _Requests:
    """A stream of sorted requests, each once, that is cut by the sum of their expected tokens."""

    def __init__(self, batches: Iterable[pa.RecordBatch]) -> None:
        self._batches = _distinct(batches)
        self._rest: pa.RecordBatch | None = None
        self._sum = 0

    def before(self, until: int | None) -> Iterator[pa.RecordBatch]:
        """Yield the next requests that begin below `until` expected tokens, all for None."""
        while (batch := self._rest or next(self._batches, None)) is not None:
            expected = batch.column("expected_tokens").to_numpy()
            ends = self._sum + np.cumsum(expected)
            count = len(ends)
            if until is not None:
                count = int(np.searchsorted(ends - expected, until))
            self._rest = batch.slice(count) if count < len(ends) else None
            if count:
                self._sum = int(ends[count - 1])
                yield batch.slice(0, count)
            if self._rest is not None:
                return


def _distinct(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Drop requests that are equal to the one before."""
    last: tuple[Any, Any] | None = None
    for batch in batches:
        keys, limits = batch.column("key"), batch.column("max_tokens")
        if not batch.num_rows:
            continue
        same = pc.and_(
            pc.equal(keys.slice(1), keys.slice(0, len(keys) - 1)),
            pc.equal(limits.slice(1), limits.slice(0, len(keys) - 1)),
        ).to_numpy(zero_copy_only=False)
        first = (keys[0].as_py(), limits[0].as_py())
        keep = np.r_[first != last, ~same]
        last = (keys[-1].as_py(), limits[-1].as_py())
        yield batch if keep.all() else batch.filter(pa.array(keep))
