"""Answers of a batch joined to the ledger of one run, in the ledger's order.

Answers come in any order from any number of files. DuckDB finds the place of each in the ledger
and sorts them by it, on disk where memory is short; then both pass once, side by side.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from scripts.llm_batch.errors import WorkflowError
from scripts.llm_batch.sharding import STREAM_ROWS
from scripts.llm_batch.tables import COMPLETIONS, LEDGER

PLACED = """
SELECT answers.*, place
FROM (
    SELECT *, false AS reused FROM read_parquet($new)
    UNION ALL SELECT *, true FROM read_parquet($reused)
) answers
JOIN (
    SELECT hash(key, max_tokens) AS request, file_row_number AS place
    FROM read_parquet($ledger, file_row_number = true) WHERE key IS NOT NULL
) ON request = hash(key, max_tokens)
ORDER BY place
"""
"""Joined by 64 bits, which take a fifth of the memory of keys; keys are compared afterwards."""

UNANSWERED = "no answer"
ANSWERED_TWICE = "more than one answer"


@dataclass
class Tally:
    """What is counted while ledger and answers pass by."""

    rows: int = 0
    requested: int = 0
    reused: int = 0
    generated_tokens: int = 0


def merged_batches(
    connection: duckdb.DuckDBPyConnection,
    ledger: Path,
    reused: Path,
    completions: Sequence[Path],
    tally: Tally,
) -> Iterator[pa.RecordBatch]:
    """Yield the completions of a run, in the order of its ledger, and count them in `tally`.

    Raises `WorkflowError`, at the end, unless each request has exactly one answer.
    """
    files = {"new": [str(path) for path in completions], "reused": str(reused)}
    placed = connection.sql(PLACED, params={**files, "ledger": str(ledger)})
    answers = _Answers(placed.to_arrow_reader(STREAM_ROWS))
    problems = _Problems(ledger)
    start = 0
    for batch in pq.ParquetFile(ledger).iter_batches(STREAM_ROWS):
        entries = batch.select(LEDGER.names)
        given, places = _of_same_key(answers.before(start + len(entries)), entries, start)
        problems.check(entries, places)
        tally.rows += pc.sum(pc.equal(entries.column("sample"), 0)).as_py() or 0
        tally.requested += len(entries) - entries.column("key").null_count
        tally.reused += pc.sum(given.column("reused")).as_py() or 0
        tally.generated_tokens += _new_tokens(given)
        start += len(entries)
        if not problems.found:
            yield completions_of(entries, _aligned(given, places, len(entries)))
    problems.raise_any()


class _Answers:
    """A stream of answers, sorted by their places."""

    def __init__(self, reader: pa.RecordBatchReader) -> None:
        self._reader = reader
        self._left = reader.schema.empty_table()

    def before(self, place: int) -> pa.Table:
        """Return the next answers of places below `place`."""
        taken = []
        while True:
            places = self._left.column("place").to_numpy()
            count = int(np.searchsorted(places, place))
            taken.append(self._left.slice(0, count))
            self._left = self._left.slice(count)
            if self._left.num_rows:
                break
            batch = next(self._reader, None)
            if batch is None:
                break
            self._left = pa.Table.from_batches([batch])
        return pa.concat_tables(taken)


def _of_same_key(
    answers: pa.Table, entries: pa.RecordBatch, start: int
) -> tuple[pa.Table, NDArray[np.int64]]:
    """Return the answers that belong to their entries, and their places among `entries`."""
    places = answers.column("place").to_numpy() - start
    asked = entries.select(["key", "max_tokens"]).take(pa.array(places))
    same = pc.and_(
        pc.equal(asked.column("key"), answers.column("key")),
        pc.equal(asked.column("max_tokens"), answers.column("max_tokens")),
    )
    if pc.all(same).as_py() in (True, None):
        return answers, places
    return answers.filter(same), places[same.to_numpy()]


def _aligned(answers: pa.Table, places: NDArray[np.int64], count: int) -> pa.Table:
    """Return one answer for each of `count` entries, all null where there is none."""
    if len(places) == count:
        return answers
    rows = np.full(count, -1)
    rows[places] = np.arange(len(places))
    return answers.take(pa.array(rows, mask=rows < 0))


def completions_of(entries: pa.RecordBatch, answers: pa.Table) -> pa.RecordBatch:
    """Return the completions of ledger rows, given their answers row by row."""
    error_types = pc.coalesce(entries.column("error_type"), _whole(answers, "error_type"))
    messages = pc.coalesce(entries.column("error_message"), _whole(answers, "error_message"))
    text, token_ids = _whole(answers, "text"), _whole(answers, "token_ids")
    finish_reasons = _whole(answers, "finish_reason")
    lengths = pc.list_value_length(token_ids)
    if error_types.null_count < len(error_types):
        # What came before the error is not an answer.
        failed = error_types.is_valid()
        rows = pa.array(np.arange(len(entries)), mask=failed.to_numpy(zero_copy_only=False))
        text, token_ids = text.take(rows), token_ids.take(rows)
        finish_reasons = pc.if_else(failed, "error", finish_reasons)
        lengths = pc.if_else(failed, 0, lengths)
    made = {
        "text": text,
        "token_ids": token_ids,
        "finish_reason": finish_reasons,
        "completion_tokens": lengths,
        "error_type": error_types,
        "error_message": messages,
    }
    own = set(LEDGER.names)
    arrays = []
    for name in COMPLETIONS.names:
        array = made.get(name)
        if array is None:
            array = entries.column(name) if name in own else _whole(answers, name)
        arrays.append(array.cast(COMPLETIONS.field(name).type))
    return pa.RecordBatch.from_arrays(arrays, schema=COMPLETIONS)


def _new_tokens(answers: pa.Table) -> int:
    """Return the output tokens of answers that no earlier batch gave."""
    lengths = pc.list_value_length(answers.column("token_ids"))
    return pc.sum(pc.if_else(answers.column("reused"), 0, lengths)).as_py() or 0


def _whole(table: pa.Table, name: str) -> pa.Array:
    return table.column(name).combine_chunks()


class _Problems:
    """Requests without an answer or with several; all are counted before any is reported."""

    def __init__(self, ledger: Path) -> None:
        self._ledger = ledger
        self._counts: dict[str, int] = {}
        self._first: dict[str, str] = {}

    @property
    def found(self) -> bool:
        """Whether there is any."""
        return bool(self._counts)

    def check(self, entries: pa.RecordBatch, places: NDArray[np.int64]) -> None:
        """Look for problems among the next ledger rows; `places` are those with answers."""
        answers = np.bincount(places, minlength=len(entries))
        asked = entries.column("key").is_valid().to_numpy(zero_copy_only=False)
        self._note(UNANSWERED, entries, asked & (answers == 0))
        self._note(ANSWERED_TWICE, entries, answers > 1)

    def _note(self, what: str, entries: pa.RecordBatch, wrong: NDArray[np.bool_]) -> None:
        rows = np.flatnonzero(wrong)
        if len(rows):
            self._counts[what] = self._counts.get(what, 0) + len(rows)
            self._first.setdefault(what, entries.column("key")[int(rows[0])].as_py())

    def raise_any(self) -> None:
        """Raise `WorkflowError` for what was found."""
        for what, count in self._counts.items():
            raise WorkflowError(
                f"{self._ledger}: {count} requests have {what} (the first: {self._first[what]}); "
                "delete the completions of this batch and run again: its journals are kept"
            )


def check_readable(ledger: Path, tables: Iterable[Path]) -> None:
    """Raise `WorkflowError` if a table is missing."""
    for path in (ledger, *tables):
        if not path.is_file():
            raise WorkflowError(f"{path}: missing; delete its batch's folder and run again")
