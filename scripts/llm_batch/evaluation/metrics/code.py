"""Code that runs: the completion's Python passes the tests of its row."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

from scripts.llm_batch.errors import WorkflowError
from scripts.llm_batch.evaluation.metrics.base import (
    Failure,
    Item,
    Judgement,
    Take,
    metric_type,
    search,
)
from scripts.llm_batch.evaluation.metrics.sandbox import Limits, isolation, run_program
from scripts.llm_batch.evaluation.metrics.shape import FENCE


class Tests(NamedTuple):
    """Code before the answer and code after it; the latter raises if the answer is wrong."""

    before: str
    after: str


@metric_type("code")
@dataclass(frozen=True)
class Code:
    """The program `before + answer + after` ends without an error.

    A reference is the tests as text, or `{"before": …, "after": …}`. See `sandbox` for what the
    process is kept from, and what not. A program that is stopped by a limit has failed.
    """

    allow_code: bool = False
    allow_network: bool = False
    extract: re.Pattern[str] | None = None
    take: Take = "last"
    timeout_s: float = 10
    memory_mb: int = 1024
    binary: bool = True
    votes: bool = False

    def accept(self, reference: Any) -> Tests | None:
        """Return the tests, None if there are none."""
        if isinstance(reference, str) and reference.strip():
            return Tests("", reference)
        if isinstance(reference, Mapping) and isinstance(reference.get("after"), str):
            return Tests(str(reference.get("before", "")), reference["after"])
        return None

    def judge_many(self, items: Sequence[Item]) -> Iterator[Judgement | Failure]:
        """Return 1 for completions that pass their tests."""
        if not self.allow_code:
            raise WorkflowError(
                "a metric of type code runs code that a model wrote; set its allow_code: true"
            )
        limits = Limits(self.timeout_s, int(self.memory_mb))
        prefix = isolation(self.allow_network)
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            yield from pool.map(lambda item: self._judge(item, prefix, limits), items)

    def _judge(self, item: Item, prefix: Sequence[str], limits: Limits) -> Judgement | Failure:
        answer = search(self.extract, self.take, item.text)
        if answer is None:
            return Judgement(0.0, None)
        if self.extract is None:
            fences = FENCE.findall(answer)
            answer = (fences[0] if self.take == "first" else fences[-1]) if fences else answer
        source = "\n".join(
            part for part in (item.accepted.before, answer, item.accepted.after) if part
        )
        return Judgement(float(run_program(source, prefix, limits)), answer)
