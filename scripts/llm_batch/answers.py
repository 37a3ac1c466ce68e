"""The answers an engine has given so far: its journals, read as one table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from scripts.llm_batch.journals import NumberedLine, decoded, whole_lines
from scripts.llm_batch.retries import read_marks
from scripts.llm_batch.tables import ANSWERS

CHUNK_ROWS = 20_000
"""Answers held as Python objects at a time: some 20 MB for answers of 200 tokens."""

_KEY = b'{"key":"'


def engine_journals(engines: Path, address: str) -> list[Path]:
    """Return the journals of the engine at `address`, whatever it was named, in a fixed order.

    `engines` is `results/engines`.
    """
    return sorted(engines.glob(f"*-{address}/journals/*.jsonl"), key=lambda path: path.name)


class Wanted:
    """The keys that a batch asks for, to pass over the answers to others without decoding them.

    Held are eight digits of each: of ten million keys one in 400 others is taken for wanted.
    """

    def __init__(self, heads: bytes) -> None:
        """`heads` are the first eight digits of the keys, one after another."""
        self._heads = np.unique(np.frombuffer(heads, dtype=np.uint64))

    def among(self, lines: Sequence[NumberedLine]) -> list[NumberedLine]:
        """Return the lines of a journal that may be wanted."""
        begin, end = len(_KEY), len(_KEY) + 8
        heads = b"".join([line[begin:end].ljust(8) for _, line in lines])
        found = np.isin(np.frombuffer(heads, dtype=np.uint64), self._heads).tolist()
        return [
            numbered
            for numbered, wanted in zip(lines, found, strict=True)
            if wanted or not numbered[1].startswith(_KEY)
        ]


def read_journals(paths: Iterable[Path], wanted: Wanted | None = None) -> Iterator[pa.RecordBatch]:
    """Yield the answers of `paths` as record batches of the ANSWERS schema, in file order.

    Torn and broken lines are dropped, see `journals`. Errors that are to be asked again are left
    out, see `retries`, and most answers that are not `wanted`.
    """
    for path, void in read_marks(paths).items():
        lines = whole_lines(path)
        while chunk := list(islice(lines, CHUNK_ROWS)):
            answers = decoded(path, chunk if wanted is None else wanted.among(chunk))
            batch = answer_batch([a for a in answers if _error(a).get("type") not in void])
            if batch.num_rows:
                yield batch


def answer_batch(answers: Sequence[dict[str, Any]]) -> pa.RecordBatch:
    """Return journal lines as rows of the ANSWERS table."""
    columns: dict[str, list[Any]] = {
        name: [answer.get(name) for answer in answers] for name in ANSWERS.names
    }
    for name in ("stop_reason", "logprobs", "prompt_logprobs"):
        columns[name] = [None if value is None else _json(value) for value in columns[name]]
    columns["error_type"] = [_error(answer).get("type") for answer in answers]
    columns["error_message"] = [_error(answer).get("message") for answer in answers]
    arrays = [pa.array(columns[field.name], type=field.type) for field in ANSWERS]
    return pa.RecordBatch.from_arrays(arrays, schema=ANSWERS)


def _error(answer: dict[str, Any]) -> dict[str, Any]:
    return answer.get("error") or {}


def _json(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS).decode()
