"""Parquet files whose bytes depend on their rows alone, not on how the rows arrived."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from scripts.llm_batch.addresses import atomic_path

GROUP_ROWS = 65_536
GROUP_BYTES = 64 << 20
"""A row group ends at so many rows, or at so many bytes of text: log probabilities can be long."""

UNIT_ROWS = 2_048
"""Row groups end at multiples of this."""

REPETITIVE = ["sample", "max_tokens", "finish_reason", "stop_reason", "tags", "error_type"]
"""Columns worth a dictionary; for others to try one costs time and bytes."""


class TableWriter:
    """Collects record batches into row groups and writes them."""

    def __init__(self, writer: pq.ParquetWriter) -> None:
        self.rows = 0
        self._writer = writer
        self._incoming: list[pa.RecordBatch] = []
        self._incoming_rows = 0
        self._group: list[pa.Table] = []
        self._group_rows = self._group_bytes = 0

    def write(self, batch: pa.RecordBatch) -> None:
        """Append rows; their columns may be in any order."""
        self.rows += batch.num_rows
        self._incoming.append(batch.select(self._writer.schema.names).cast(self._writer.schema))
        self._incoming_rows += batch.num_rows
        if self._incoming_rows >= UNIT_ROWS:
            self._cut(self._incoming_rows // UNIT_ROWS * UNIT_ROWS)

    def finish(self) -> None:
        """Write what is left."""
        if self._incoming_rows:
            self._cut(self._incoming_rows)
        self._flush()

    def _cut(self, rows: int) -> None:
        table = pa.Table.from_batches(self._incoming)
        rest = table.slice(rows)
        self._incoming, self._incoming_rows = rest.to_batches(), rest.num_rows
        for start in range(0, rows, UNIT_ROWS):
            unit = table.slice(start, min(UNIT_ROWS, rows - start))
            self._group.append(unit)
            self._group_rows += unit.num_rows
            self._group_bytes += text_bytes(unit)
            if self._group_rows >= GROUP_ROWS or self._group_bytes >= GROUP_BYTES:
                self._flush()

    def _flush(self) -> None:
        if self._group:
            # One piece: the pages of a file follow the pieces of a table.
            table = pa.concat_tables(self._group).combine_chunks()
            self._writer.write_table(table, row_group_size=table.num_rows)
        self._group, self._group_rows, self._group_bytes = [], 0, 0


def text_bytes(table: pa.Table) -> int:
    """Return the bytes of all texts in a table."""
    return sum(
        pc.sum(pc.binary_length(column)).as_py() or 0
        for column in table.columns
        if pa.types.is_string(column.type)
    )


@contextmanager
def table_writer(path: Path, schema: pa.Schema) -> Iterator[TableWriter]:
    """Yield a writer of a Parquet file that appears at `path` when it is complete."""
    with (
        atomic_path(path) as temporary,
        pq.ParquetWriter(
            temporary,
            schema,
            compression="zstd",
            compression_level=1,
            use_dictionary=[name for name in REPETITIVE if name in schema.names],
        ) as file,
    ):
        writer = TableWriter(file)
        yield writer
        writer.finish()


def write_table(path: Path, batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> int:
    """Write record batches to a Parquet file, atomically; return the number of rows."""
    with table_writer(path, schema) as writer:
        for batch in batches:
            writer.write(batch)
    return writer.rows
