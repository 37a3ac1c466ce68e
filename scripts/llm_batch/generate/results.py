"""What `generate` leaves behind: the answers of a shard as a table.

Nothing before that needs Arrow, so it is imported while the engine starts, see `get_ready`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from scripts.llm_batch.addresses import atomic_path
from scripts.llm_batch.answers import answer_batch
from scripts.llm_batch.errors import WorkflowError
from scripts.llm_batch.generate.facts import Totals
from scripts.llm_batch.generate.journal import AnswerIndex
from scripts.llm_batch.tables import ANSWERS

CHUNK_ROWS = 10_000


def get_ready() -> None:
    """Have what takes time once be done: at its first array Arrow imports pandas, 0.25 s."""
    pa.array([])


def write_completions(index: AnswerIndex, path: Path) -> Totals:
    """Write the answers in the order of the requests; the same answers give the same bytes.

    `max_tokens` is the request's, also where the answer was given under another limit.
    """
    totals = Totals()
    with (
        atomic_path(path) as temporary,
        pq.ParquetWriter(temporary, ANSWERS, compression="zstd") as writer,
    ):
        for answers in _chunks(index, totals):
            writer.write_batch(answer_batch(answers))
    return totals


def _chunks(index: AnswerIndex, totals: Totals) -> Iterator[list[dict[str, Any]]]:
    chunk: list[dict[str, Any]] = []
    for position, max_tokens, answer in index.answers():
        if answer is None:
            raise WorkflowError(f"request {position} has no answer; run the workflow again")
        totals.add(answer)
        chunk.append({**answer, "max_tokens": max_tokens})
        if len(chunk) >= CHUNK_ROWS:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
