"""Data files of other formats as lines of JSON, made on the fly: one object a row.

Parquet, CSV, TSV, JSON and plain text, each also compressed with gzip or zstd.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import IO, Any, cast

import orjson

COMPRESSED = (".gz", ".zst")

BAD_ROW = "\u0000bad row"
"""Begins a JSON list that stands for a row that could not be read; its message comes second."""

LINE_FORMATS = (".jsonl", ".txt")
"""Formats in which a row is a line, so that errors name lines; in others they name rows."""

BATCH_ROWS = 4096


def data_format(path: Path) -> str:
    """Return the format by the file's name, without the compression: `.csv` for `a.csv.gz`."""
    suffix = path.suffix.lower()
    return Path(path.stem).suffix.lower() if suffix in COMPRESSED else suffix


def open_data(path: Path) -> IO[bytes]:
    """Open a data file for reading, decompressed by its name."""
    if path.suffix == ".gz":
        return cast(IO[bytes], gzip.open(path, "rb"))
    if path.suffix == ".zst":
        import pyarrow as pa

        return cast(IO[bytes], io.BufferedReader(pa.CompressedInputStream(str(path), "zstd")))
    return path.open("rb")


def json_lines(path: Path) -> Iterator[bytes]:
    """Yield a line of JSON for each row of a file that is not JSON Lines.

    Raises OSError or ValueError (its message says what is wrong) if the file cannot be read.
    """
    yield from FORMATS[data_format(path)](path)


def _parquet(path: Path) -> Iterator[bytes]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        source: Any = path if path.suffix not in COMPRESSED else io.BytesIO(open_data(path).read())
        file = pq.ParquetFile(source)
        for batch in file.iter_batches(batch_size=BATCH_ROWS):
            for row in batch.to_pylist():
                yield _dumps(row)
    except pa.ArrowException as error:
        raise ValueError(f"not a Parquet file that can be read: {error}") from None


def _csv(path: Path) -> Iterator[bytes]:
    """Cells are text, whatever they look like: 007 stays 007. The first row names the columns."""
    delimiter = "\t" if data_format(path) == ".tsv" else ","
    csv.field_size_limit(1 << 30)
    with open_data(path) as binary:
        stream = io.TextIOWrapper(binary, encoding="utf-8-sig", newline="")
        reader = csv.reader(stream, delimiter=delimiter, strict=True)
        names = next(reader, None)
        if not names:
            return
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"two columns are called '{twice}'; rename one")
        try:
            for cells in reader:
                if len(cells) == len(names):
                    yield _dumps(dict(zip(names, cells, strict=True)))
                elif cells:
                    yield bad_row(f"{len(cells)} cells, and the first row names {len(names)}")
        except csv.Error as error:
            raise ValueError(f"line {reader.line_num}: not CSV: {error}") from None


def _json(path: Path) -> Iterator[bytes]:
    """Take a list of objects, or an object that holds exactly one list."""
    with open_data(path) as stream:
        data = stream.read().removeprefix(b"\xef\xbb\xbf")
    try:
        value = json.loads(data)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"line {error.lineno}, column {error.colno}: not JSON: {error.msg}"
        ) from None
    if isinstance(value, Mapping):
        lists = [key for key, item in value.items() if isinstance(item, list)]
        if len(lists) != 1:
            found = ", ".join(lists) or "none"
            raise ValueError(f"expected a list of objects, or an object with one list ({found})")
        value = value[lists[0]]
    if not isinstance(value, list):
        raise ValueError("expected a list of objects; one object a line is .jsonl")
    for row in value:
        yield _dumps(row) if isinstance(row, dict) else bad_row("expected a JSON object {…}")


def _text(path: Path) -> Iterator[bytes]:
    """Each line is a prompt; blank ones stay blank, so that numbers are those of lines."""
    with open_data(path) as stream:
        for number, line in enumerate(stream, start=1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError:
                yield bad_row("not UTF-8; save the file in that encoding")
                continue
            yield _dumps({"prompt": text}) if text.strip() else b"\n"


FORMATS: Mapping[str, Callable[[Path], Iterator[bytes]]] = {
    ".parquet": _parquet,
    ".csv": _csv,
    ".tsv": _csv,
    ".json": _json,
    ".txt": _text,
}


def bad_row(message: str) -> bytes:
    """Return the line that stands for a row with an error."""
    return orjson.dumps([BAD_ROW, message]) + b"\n"


def _dumps(row: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(row, default=_plain) + b"\n"
    except TypeError:
        # Whole numbers of more than 64 bits, and keys that are not text.
        text = json.dumps(row, default=_plain, ensure_ascii=False)
        return text.encode("utf-8", "surrogatepass") + b"\n"


def _plain(value: Any) -> Any:
    """Return what JSON has in place of a value: text of a decimal number; no bytes of pictures."""
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            return None
    return str(value)
