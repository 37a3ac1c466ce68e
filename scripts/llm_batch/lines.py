"""JSON lines of record batches, written by DuckDB in a thread while other work goes on."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType

import duckdb
import pyarrow as pa

WAITING = 4
"""Batches between the two threads: enough that neither waits for the other's every turn."""


class LinesWriter:
    """Writes the rows that it is given as JSON lines, in their order.

    `sql` selects from `rows`, `schema` is theirs. Within its `with` block `passing` lets batches
    through; at the end of the block the file at `path` is complete. What fails in the thread is
    raised there.
    """

    def __init__(self, path: Path, sql: str, schema: pa.Schema) -> None:
        self._path = path
        self._sql = sql
        self._schema = schema
        self._batches: queue.Queue[pa.RecordBatch | None] = queue.Queue(WAITING)
        self._taken = False
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._work, name="lines")

    def __enter__(self) -> LinesWriter:
        self._thread.start()
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._batches.put(None)
        self._thread.join()
        if self._failure is not None and error is None:
            raise self._failure

    def passing(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Yield `batches`, and have each of them written."""
        for batch in batches:
            self._batches.put(batch)
            yield batch

    def _take(self) -> Iterator[pa.RecordBatch]:
        yield from iter(self._batches.get, None)
        self._taken = True

    def _work(self) -> None:
        taken = self._take()
        try:
            # One thread keeps the order, and the other processor has the table to write.
            with duckdb.connect(":memory:", config={"threads": 1}) as connection:
                reader = pa.RecordBatchReader.from_batches(self._schema, taken)
                connection.register("rows", reader)
                connection.execute(
                    f"COPY ({self._sql}) TO '{self._path}' (FORMAT json, USE_TMP_FILE false)"
                )
        except Exception as error:
            # Its frames hold the connection, and that holds what leads back to them.
            self._failure = error.with_traceback(None)
            # The other side must not wait for room in the queue.
            while not self._taken and self._batches.get() is not None:
                continue
