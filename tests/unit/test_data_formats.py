"""Data files of every format give the same rows, and their errors name the right place."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scripts.llm_batch.data.source import unit_of
from scripts.llm_batch.errors import WorkflowError
from scripts.llm_batch.rows import Row, read_blocks, read_files, read_rows

ROWS = [
    {"id": "007", "question": "Zwei\nZeilen, und ein Komma", "answer": "1"},
    {"id": "2", "question": 'with "quotes"', "answer": ""},
    {"id": "3", "question": "日本語", "answer": "3"},
]


def jsonl(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def csv_of(rows: list[dict[str, Any]], delimiter: str = ",") -> bytes:
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return b"\xef\xbb\xbf" + stream.getvalue().encode()


def parquet(rows: list[dict[str, Any]]) -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), stream)
    return stream.getvalue()


FORMATS: dict[str, Callable[[list[dict[str, Any]]], bytes]] = {
    "rows.jsonl": jsonl,
    "rows.jsonl.gz": lambda rows: gzip.compress(jsonl(rows)),
    "rows.json": lambda rows: json.dumps(rows, indent=1).encode(),
    "rows.json.gz": lambda rows: gzip.compress(json.dumps({"version": 1, "data": rows}).encode()),
    "rows.csv": csv_of,
    "rows.csv.gz": lambda rows: gzip.compress(csv_of(rows)),
    "rows.tsv": lambda rows: csv_of(rows, "\t"),
    "rows.parquet": parquet,
}


def write_zstd(path: Path, data: bytes) -> None:
    with pa.CompressedOutputStream(str(path), "zstd") as stream:
        stream.write(data)


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(FORMATS[name](ROWS))
    assert list(read_rows(path)) == [Row(n, fields) for n, fields in enumerate(ROWS, start=1)]
    # In blocks of any size, and with numbers that go on.
    small = [line for block in read_blocks(path, 1) for line in block.data.splitlines()]
    assert [json.loads(line) for line in small] == ROWS
    starts = [block.line for block in read_files([path, path], 1)]
    assert starts == sorted(starts)
    assert starts[-1] <= 6


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv", "rows.json", "rows.txt"])
def test_zstandard_is_read_too(tmp_path: Path, name: str) -> None:
    data = b"one\ntwo\n" if name == "rows.txt" else FORMATS[name](ROWS)
    write_zstd(tmp_path / f"{name}.zst", data)
    (tmp_path / name).write_bytes(data)
    assert list(read_rows(tmp_path / f"{name}.zst")) == list(read_rows(tmp_path / name))


def test_a_line_of_text_is_a_prompt_and_keeps_its_number(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_bytes(b"\xef\xbb\xbfone\r\n\n  two \nbad \xff\nfour")
    rows = list(read_rows(path))
    assert [(row.line, row.fields) for row in rows] == [
        (1, {"prompt": "one"}),
        (3, {"prompt": "  two "}),
        (4, None),
        (5, {"prompt": "four"}),
    ]
    assert rows[2].error == "row 4: not UTF-8; save the file in that encoding"
    assert unit_of([path]) == "line"


def test_values_of_parquet_become_json(tmp_path: Path) -> None:
    row = {
        "text": "a",
        "when": date(2026, 11, 24),
        "price": Decimal("1.50"),
        "list": [{"x": 1}],
        "none": None,
        "picture": b"\xff\xd8",
        "big": 2**62,
    }
    path = tmp_path / "rows.parquet"
    path.write_bytes(parquet([row]))
    (read,) = read_rows(path)
    assert read.fields == {**row, "when": "2026-11-24", "price": "1.50", "picture": None}
    assert unit_of([path]) == "row"


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.csv", b'a,b\n1,"open\n', "line 2: not CSV: unexpected end of data"),
        ("a.csv", b"a,a\n1,2\n", "two columns are called 'a'; rename one"),
        ("a.csv", b"a\n\xff\n", "'utf-8' codec can't decode"),
        ("a.json", b'[{"a": 1},\n]', "line 2, column 1: not JSON: Expecting value"),
        ("a.json", b'{"a": [1], "b": [2]}', r"an object with one list \(a, b\)"),
        ("a.json", b'"text"', "expected a list of objects; one object a line is .jsonl"),
        ("a.parquet", b"PAR1", "not a Parquet file that can be read: "),
        ("a.jsonl.gz", b"no gzip", "cannot be read: "),
        ("a.jsonl.zst", b"no zstd", "cannot be read: "),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line(
    tmp_path: Path, name: str, data: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(WorkflowError, match=message) as caught:
        list(read_rows(tmp_path / name))
    assert str(caught.value).startswith(f"{tmp_path / name}: ")
    assert "\n" not in str(caught.value)


def test_a_row_that_cannot_be_read_is_one_row(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"a,b\n1,2\n1,2,3\n\n4,5\n")
    rows = list(read_rows(tmp_path / "a.csv"))
    assert [row.line for row in rows] == [1, 2, 3]
    assert rows[1].error == "row 2: 3 cells, and the first row names 2"
    (tmp_path / "a.json").write_bytes(b'[{"a": 1}, 2]')
    assert list(read_rows(tmp_path / "a.json"))[1].error == "row 2: expected a JSON object {…}"
