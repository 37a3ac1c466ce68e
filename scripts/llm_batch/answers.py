"""The answers an engine has given so far: its journals, read as one table."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa

from scripts.llm_batch.retries import read_marks
from scripts.llm_batch.tables import ANSWERS

log = logging.getLogger(__name__)

CHUNK_ROWS = 20_000
"""Answers held as Python objects at a time: some 20 MB for answers of 200 tokens."""


def engine_journals(engines: Path, address: str) -> list[Path]:
    """Return the journals of the engine at `address`, whatever it was named, in a fixed order.

    `engines` is `results/engines`.
    """
    return sorted(engines.glob(f"*-{address}/journals/*.jsonl"), key=lambda path: path.name)


def read_journals(paths: Iterable[Path]) -> Iterator[pa.RecordBatch]:
    """Yield the answers of `paths` as record batches of the ANSWERS schema, in file order.

    A torn last line, left by a killed worker, is dropped; a broken line within a file is reported
    and dropped too: its request is open again, so nothing wrong can come of it. Errors that are
    to be asked again are left out, see `retries`.
    """
    rows: list[dict[str, Any]] = []
    for path, void in read_marks(paths).items():
        for answer in read_journal(path):
            row = answer_row(answer)
            if row["error_type"] in void:
                continue
            rows.append(row)
            if len(rows) >= CHUNK_ROWS:
                yield pa.RecordBatch.from_pylist(rows, schema=ANSWERS)
                rows = []
    if rows:
        yield pa.RecordBatch.from_pylist(rows, schema=ANSWERS)


def read_journal(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the answers of one journal as they were written."""
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                record = orjson.loads(line)
            except orjson.JSONDecodeError:
                log.warning("%s:%d: broken line; its request counts as open", path, number)
                continue
            if "key" in record:
                yield record


def answer_row(answer: dict[str, Any]) -> dict[str, Any]:
    """Return a journal line as a row of the ANSWERS table."""
    row = {name: answer.get(name) for name in ANSWERS.names}
    for name in ("stop_reason", "logprobs", "prompt_logprobs"):
        if row[name] is not None:
            row[name] = orjson.dumps(row[name], option=orjson.OPT_NON_STR_KEYS).decode()
    error = answer.get("error") or {}
    row["error_type"] = error.get("type")
    row["error_message"] = error.get("message")
    return row
