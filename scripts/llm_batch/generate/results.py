"""What `generate` leaves behind: the answers as a table, and the facts of the shard."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from scripts.llm_batch.addresses import atomic_path
from scripts.llm_batch.answers import answer_batch
from scripts.llm_batch.errors import WorkflowError
from scripts.llm_batch.generate.journal import AnswerIndex
from scripts.llm_batch.tables import ANSWERS

CHUNK_ROWS = 10_000


@dataclass
class Totals:
    """Counts over the answers of a shard."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    errors: Counter[str] = field(default_factory=Counter)

    def add(self, answer: dict[str, Any]) -> None:
        """Count one answer."""
        if answer.get("error") is not None:
            self.errors[answer["error"]["type"]] += 1
            return
        self.prompt_tokens += answer["prompt_tokens"] or 0
        self.completion_tokens += len(answer["token_ids"])


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
