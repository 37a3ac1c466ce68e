"""Lines are written beside other work, and neither side waits for the other when one fails."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from scripts.llm_batch.errors import WorkflowError
from scripts.llm_batch.lines import LinesWriter
from scripts.llm_batch.sharding import database

SCHEMA = pa.schema([("number", pa.int64()), ("texts", pa.list_(pa.string()))])


def batches(count: int, rows: int = 3000) -> Iterator[pa.RecordBatch]:
    for start in range(0, count * rows, rows):
        numbers = range(start, start + rows)
        texts = [[f'"{number}"', None, "é"] for number in numbers]
        yield pa.RecordBatch.from_arrays([pa.array(numbers), pa.array(texts)], schema=SCHEMA)


def test_lines_come_in_the_order_of_the_batches(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with LinesWriter(path, "SELECT number, texts FROM rows", SCHEMA) as lines:
        passed = list(lines.passing(batches(20)))
    assert sum(batch.num_rows for batch in passed) == 60_000
    written = path.read_text(encoding="utf-8").splitlines()
    assert written == [
        f'{{"number":{number},"texts":["\\"{number}\\"",null,"é"]}}' for number in range(60_000)
    ]


def test_no_batch_makes_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with LinesWriter(path, "SELECT number FROM rows", SCHEMA) as lines:
        assert list(lines.passing([])) == []
    assert path.read_bytes() == b""


@pytest.mark.parametrize(
    ("folder", "sql"), [("missing", "SELECT number FROM rows"), (".", "SELECT 1 // 0, x FROM rows")]
)
def test_what_fails_in_the_thread_is_raised_after_all_batches(
    tmp_path: Path, folder: str, sql: str
) -> None:
    passed = 0
    lines = LinesWriter(tmp_path / folder / "rows.jsonl", sql, SCHEMA)
    with pytest.raises(duckdb.Error), lines:
        for _ in lines.passing(batches(20)):
            passed += 1
    assert passed == 20


def test_a_full_disk_is_one_line_that_says_where(tmp_path: Path) -> None:
    lines = LinesWriter(Path("/dev/full"), "SELECT number FROM rows", SCHEMA)
    with pytest.raises(WorkflowError, match="free space and run again") as caught:  # noqa: SIM117
        with database(tmp_path), lines:
            list(lines.passing(batches(20)))
    assert "\n" not in str(caught.value)


def test_what_fails_outside_is_what_is_raised(tmp_path: Path) -> None:
    def failing() -> Iterator[pa.RecordBatch]:
        yield from batches(2)
        raise WorkflowError("no answer")

    lines = LinesWriter(tmp_path / "rows.jsonl", "SELECT number FROM rows", SCHEMA)
    with pytest.raises(WorkflowError, match="no answer"), lines:
        list(lines.passing(failing()))
