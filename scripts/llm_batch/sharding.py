"""Requests of a batch: doubles merged, answered ones subtracted, the rest cut into shards.

DuckDB does the joins and the sorting, on disk where memory is short.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from scripts.llm_batch.addresses import atomic_path
from scripts.llm_batch.ledger import REQUESTS
from scripts.llm_batch.tables import ANSWERS

MEMORY_LIMIT = "1GB"
"""DuckDB goes to disk beyond this; the rest of the process stays below as much again."""

RECORD_ROWS = 65_536


class ShardCount(NamedTuple):
    """How much one shard holds."""

    requests: int
    expected_tokens: int


@contextmanager
def database(scratch: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield a DuckDB connection that spills to `scratch` and keeps the order of rows."""
    settings = {"memory_limit": MEMORY_LIMIT, "temp_directory": str(scratch)}
    connection = duckdb.connect(":memory:", config=settings)
    try:
        yield connection
    finally:
        connection.close()


def first_row(connection: duckdb.DuckDBPyConnection, sql: str) -> tuple[Any, ...]:
    """Return the first row of a query, and finish the query."""
    rows: list[tuple[Any, ...]] = connection.execute(sql).fetchall()
    return rows[0]


def create_table(connection: duckdb.DuckDBPyConnection, name: str, schema: pa.Schema) -> None:
    """Create an empty table with the columns of `schema`."""
    empty = schema.empty_table()
    connection.register("empty", empty)
    connection.execute(f"CREATE TABLE {name} AS SELECT * FROM empty")
    connection.unregister("empty")


def insert(connection: duckdb.DuckDBPyConnection, name: str, batch: pa.RecordBatch) -> None:
    """Append a record batch to table `name`."""
    connection.register("incoming", pa.Table.from_batches([batch]))
    connection.execute(f"INSERT INTO {name} SELECT * FROM incoming")
    connection.unregister("incoming")


def unite_requests(connection: duckdb.DuckDBPyConnection) -> None:
    """Make table `wanted`: each request of table `requests` once."""
    connection.execute(
        "CREATE TABLE wanted AS "
        "SELECT key, max_tokens, any_value(prefix) AS prefix, "
        "any_value(expected_tokens) AS expected_tokens, any_value(line) AS line "
        "FROM requests GROUP BY key, max_tokens"
    )
    connection.execute("DROP TABLE requests")


def load_answers(
    connection: duckdb.DuckDBPyConnection, batches: Iterable[pa.RecordBatch]
) -> None:
    """Make table `answers` of those in `batches` whose key is wanted, the earliest first."""
    create_table(connection, "answers", ANSWERS)
    connection.execute("CREATE SEQUENCE arrival")
    connection.execute("ALTER TABLE answers ADD COLUMN arrival BIGINT")
    for batch in batches:
        connection.register("incoming", pa.Table.from_batches([batch]))
        connection.execute(
            "INSERT INTO answers SELECT incoming.*, nextval('arrival') FROM incoming "
            "WHERE key IN (SELECT key FROM wanted)"
        )
        connection.unregister("incoming")


REUSABLE = """
SELECT w.key, w.max_tokens, a.* EXCLUDE (key, max_tokens, arrival)
FROM wanted w JOIN answers a ON w.key = a.key
WHERE a.max_tokens = w.max_tokens
   OR (a.error_type IS NULL AND len(a.token_ids) <= w.max_tokens
       AND (a.finish_reason = 'stop' OR len(a.token_ids) < a.max_tokens))
QUALIFY row_number() OVER (
    PARTITION BY w.key, w.max_tokens
    ORDER BY a.max_tokens != w.max_tokens, a.max_tokens, a.arrival
) = 1
ORDER BY w.key, w.max_tokens
"""
"""An answer serves another limit if it stopped by itself within it, or at the end of the context.

Of several answers to one request the same limit comes first, then the earliest: an answer that
was merged once is merged again.
"""


def write_reused(connection: duckdb.DuckDBPyConnection, path: Path) -> int:
    """Write the answers that need no engine; subtract them from `wanted`; return their number."""
    connection.execute(f"CREATE TABLE reused AS {REUSABLE}")
    ordered = connection.sql("SELECT * FROM reused ORDER BY key, max_tokens")
    count = write_table(path, ordered.to_arrow_reader(RECORD_ROWS), ANSWERS)
    connection.execute(
        "DELETE FROM wanted WHERE (key, max_tokens) IN (SELECT (key, max_tokens) FROM reused)"
    )
    return count


def write_shards(
    connection: duckdb.DuckDBPyConnection, folder: Path, shards: int
) -> list[ShardCount]:
    """Cut the open requests into `shards` files of equal expected tokens, neighbours together."""
    folder.mkdir(parents=True, exist_ok=True)
    connection.execute(
        "CREATE TABLE placed AS SELECT line, expected_tokens, "
        "row_number() OVER ordered AS position, "
        "sum(expected_tokens) OVER ordered AS until "
        "FROM wanted WINDOW ordered AS (ORDER BY prefix, key, max_tokens "
        "ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)"
    )
    total = int(first_row(connection, "SELECT coalesce(sum(expected_tokens), 0) FROM placed")[0])
    counts = []
    for shard in range(shards):
        low, high = total * shard // shards, total * (shard + 1) // shards
        query = connection.execute(
            "SELECT line, expected_tokens FROM placed "
            "WHERE until - expected_tokens >= ? AND until - expected_tokens < ? ORDER BY position",
            [low, high],
        )
        counts.append(_write_shard(query, folder / f"{shard}.jsonl"))
    return counts


def _write_shard(query: duckdb.DuckDBPyConnection, path: Path) -> ShardCount:
    requests = expected = 0
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        while rows := query.fetchmany(RECORD_ROWS):
            stream.write("".join(f"{line}\n" for line, _ in rows))
            requests += len(rows)
            expected += sum(tokens for _, tokens in rows)
    return ShardCount(requests, expected)


def write_table(path: Path, batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> int:
    """Write record batches as Parquet, atomically and with the same bytes each time."""
    rows = 0
    with atomic_path(path) as temporary, pq.ParquetWriter(temporary, schema, **PARQUET) as writer:
        for batch in batches:
            writer.write_batch(batch.cast(schema), row_group_size=RECORD_ROWS)
            rows += batch.num_rows
    return rows


PARQUET = {"compression": "zstd", "compression_level": 3}

