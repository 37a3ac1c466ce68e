"""Every table of a report as data: what `tables/` holds, each as CSV and as Parquet, and its index.

The index is a data package (specs.frictionlessdata.io), so that other programs read the tables with
their types. A table is there even if it has no line.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from scripts.llm_batch.addresses import (
    atomic_path,
    canonical_json,
    write_json_atomic,
    write_text_atomic,
)

INDEX = "datapackage.json"

Line = Mapping[str, Any]

_FIELD_TYPES = {"bool": "boolean", "int64": "integer", "double": "number", "string": "string"}


@dataclass(frozen=True)
class Table:
    """A table: a name for its files, what a line of it is, and its lines in order."""

    name: str
    meaning: str
    columns: tuple[str, ...]
    lines: tuple[Line, ...]

    @property
    def files(self) -> tuple[str, str]:
        """The names of its two files."""
        return f"{self.name}.csv", f"{self.name}.parquet"


def make_table(name: str, meaning: str, columns: Iterable[str], lines: Iterable[Line]) -> Table:
    """Return a table of these lines."""
    return Table(name, meaning, tuple(columns), tuple(lines))


def write_tables(folder: Path, title: str, tables: Sequence[Table]) -> list[Path]:
    """Write each table twice, and the index; return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for table in tables:
        plain, packed = (folder / name for name in table.files)
        write_text_atomic(plain, csv_text(table))
        with atomic_path(packed) as temporary:
            pq.write_table(arrow_table(table), temporary, compression="zstd")
        written += [plain, packed]
    index = folder / INDEX
    write_json_atomic(index, data_package(title, tables))
    return [*written, index]


def csv_text(table: Table) -> str:
    """Return a table as CSV; unknown values are empty, lists are JSON."""
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(table.columns)
    for line in table.lines:
        writer.writerow(["" if v is None else _text(v) for v in map(line.get, table.columns)])
    return stream.getvalue()


def _text(value: Any) -> str:
    return value if isinstance(value, str) else canonical_json(value)


def arrow_table(table: Table) -> pa.Table:
    """Return a table with a type for each column: truth, whole number, number, or text."""
    columns = {}
    for name in table.columns:
        values = [line.get(name) for line in table.lines]
        kind = _column_type(values)
        if kind == pa.string():
            values = [None if value is None else _text(value) for value in values]
        columns[name] = pa.array(values, type=kind)
    return pa.table(columns)


def _column_type(values: Sequence[Any]) -> pa.DataType:
    known = [value for value in values if value is not None]
    if known and all(isinstance(value, bool) for value in known):
        return pa.bool_()
    if not known or any(isinstance(v, bool) or not isinstance(v, (int, float)) for v in known):
        return pa.string()
    whole = all(isinstance(value, int) and abs(value) < 1 << 63 for value in known)
    return pa.int64() if whole else pa.float64()


def data_package(title: str, tables: Sequence[Table]) -> dict[str, Any]:
    """Return the index: what each table is, its files, its columns and their types."""
    return {
        "profile": "tabular-data-package",
        "name": "report-tables",
        "title": title,
        "resources": [_resource(table) for table in tables],
    }


def _resource(table: Table) -> dict[str, Any]:
    plain, packed = table.files
    return {
        "profile": "tabular-data-resource",
        "name": table.name,
        "description": table.meaning,
        "path": plain,
        "format": "csv",
        "encoding": "utf-8",
        "parquet": packed,
        "rows": len(table.lines),
        "schema": {"fields": list(_fields(table)), "missingValues": [""]},
    }


def _fields(table: Table) -> Iterator[dict[str, str]]:
    for field in arrow_table(table).schema:
        yield {"name": field.name, "type": _FIELD_TYPES[str(field.type)]}
