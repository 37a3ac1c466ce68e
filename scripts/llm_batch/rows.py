"""Rows of a data file: read in blocks of whole lines, so that several processes can share them."""

from __future__ import annotations

import io
import itertools
import json
import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from scripts.llm_batch.data.formats import BAD_ROW, FORMATS, data_format, json_lines, open_data
from scripts.llm_batch.errors import WorkflowError

BLOCK_BYTES = 4 << 20
"""Some 40 000 short rows, which as Python objects take 50 MB."""

# orjson turns whole numbers beyond 64 bits into floats, and so would change an id or a prompt.
_LONG_NUMBER = re.compile(rb"[0-9]{19}")
# To look for nineteen zeros among digits made zeros takes a tenth of the time of the expression.
_DIGITS_TO_ZEROS = bytes.maketrans(b"123456789", b"0" * 9)
_BOM = b"\xef\xbb\xbf"


class Block(NamedTuple):
    """Whole lines of a file, and the 1-based number of the first."""

    line: int
    data: bytes

    def pieces(self, size: int) -> Iterator[Block]:
        """Yield the lines in smaller blocks, of `size` bytes together or a little more."""
        if len(self.data) <= size:
            yield self
            return
        start, line = 0, self.line
        while start < len(self.data):
            end = self.data.find(b"\n", start + size - 1) + 1 or len(self.data)
            piece = Block(line, self.data[start:end])
            yield piece
            start, line = end, line + piece.data.count(b"\n")


class Row(NamedTuple):
    """One row: its 1-based line, and its fields or why it has none."""

    line: int
    fields: dict[str, Any] | None
    error: str | None = None


class Rows(NamedTuple):
    """The rows of a block: their 1-based lines and fields, and errors by place in these lists.

    A row in error has no field.
    """

    lines: list[int]
    fields: list[dict[str, Any]]
    errors: dict[int, str]


def read_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of a data file of any format as they are read.

    Raises `WorkflowError` if the file cannot be read.
    """
    for block in read_blocks(path):
        rows = parse_block(block)
        for place, (line, fields) in enumerate(zip(rows.lines, rows.fields, strict=True)):
            error = rows.errors.get(place)
            yield Row(line, fields) if error is None else Row(line, None, error)


def read_files(paths: Sequence[Path], size: int = BLOCK_BYTES) -> Iterator[Block]:
    """Yield the lines of several files as if they were one; their numbers go on."""
    number = 1
    for path in paths:
        for block in read_blocks(path, size):
            whole = block.data if block.data.endswith(b"\n") else block.data + b"\n"
            yield Block(number, whole)
            number += whole.count(b"\n")


def read_blocks(path: Path, size: int = BLOCK_BYTES) -> Iterator[Block]:
    """Yield the lines of a file, of `size` bytes together or a little more, without a BOM.

    Of a file that is not JSON Lines, these are lines of JSON made of its rows. Raises
    `WorkflowError` if the file cannot be read.
    """
    number = 1
    try:
        if data_format(path) in FORMATS:
            yield from _made_blocks(path, size)
            return
        with open_data(path) as stream:
            while data := stream.read(size):
                data += stream.readline()
                yield Block(number, data.removeprefix(_BOM) if number == 1 else data)
                number += data.count(b"\n")
    except ValueError as error:
        raise WorkflowError(f"{path}: {' '.join(str(error).split())}") from None
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise WorkflowError(f"{path}: cannot be read: {reason}; is the file complete?") from None


def parse_block(block: Block) -> Rows:
    """Return the rows of a block.

    Blank lines are skipped but counted; carriage returns are ignored. A line that is not a JSON
    object is a row with an error.
    """
    rows = Rows([], [], {})
    long_numbers = b"0" * 19 in block.data.translate(_DIGITS_TO_ZEROS)
    for number, line in enumerate(io.BytesIO(block.data), start=block.line):
        try:
            fields = orjson.loads(line)
        except ValueError:
            fields = None
        if type(fields) is not dict or long_numbers:
            if line.isspace():
                continue
            row = _parse(number, line)
            fields = row.fields or {}
            if row.error is not None:
                rows.errors[len(rows.lines)] = row.error
        rows.lines.append(number)
        rows.fields.append(fields)
    return rows


def _made_blocks(path: Path, size: int) -> Iterator[Block]:
    lines: list[bytes] = []
    number, filled = 1, 0
    for line in itertools.chain(json_lines(path), [b""]):
        if lines and (filled >= size or not line):
            yield Block(number, b"".join(lines))
            number, lines, filled = number + len(lines), [], 0
        lines.append(line)
        filled += len(line)


def _parse(number: int, line: bytes) -> Row:
    try:
        fields = _exact_json(line) if _LONG_NUMBER.search(line) else orjson.loads(line)
    except json.JSONDecodeError as error:
        if "UTF-8" in error.msg:
            return Row(number, None, f"line {number}: not UTF-8; save the file in that encoding")
        # Not colno: the line break at the end would count as another line.
        return Row(number, None, f"line {number}, column {error.pos + 1}: not JSON: {error.msg}")
    except (ValueError, RecursionError) as error:
        return Row(number, None, f"line {number}: not JSON: {error}")
    if isinstance(fields, list) and len(fields) == 2 and fields[0] == BAD_ROW:
        return Row(number, None, f"row {number}: {fields[1]}")
    if not isinstance(fields, dict):
        found = json_type(fields)
        return Row(number, None, f"line {number}: expected a JSON object {{…}}, found {found}")
    return Row(number, fields)


def _exact_json(line: bytes) -> Any:
    orjson.loads(line)  # Stricter than json: no NaN, no half surrogate pairs, only UTF-8.
    return json.loads(line)


def json_type(value: Any) -> str:
    """Return in words what JSON value that is no object `value` is."""
    names = {list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
