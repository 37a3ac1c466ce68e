"""Mathematical equivalence of a completion and its reference, by math-verify."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scripts.llm_batch.evaluation.metrics.base import (
    Failure,
    Item,
    Judgement,
    Take,
    metric_type,
    reference_texts,
    search,
)
from scripts.llm_batch.evaluation.metrics.processes import Judge, judge_in_processes


@metric_type("math_equivalence")
@dataclass(frozen=True)
class MathEquivalence:
    """Expressions are read by latex2sympy2 and compared by SymPy, which an answer can keep busy
    for ever: so this happens in other processes.
    """

    extract: re.Pattern[str] | None = None
    take: Take = "last"
    float_rounding: int = 6
    strict: bool = True
    timeout_s: float = 10
    binary: bool = True
    votes: bool = True

    def accept(self, reference: Any) -> tuple[str, ...] | None:
        """Return the reference texts that are not empty."""
        return tuple(text for text in reference_texts(reference) if text.strip()) or None

    def judge_many(self, items: Sequence[Item]) -> Iterator[Judgement | Failure]:
        """Return 1 for completions that equal a reference; their answer is SymPy's form."""
        factory = functools.partial(_math_judge, int(self.float_rounding), self.strict)
        found = [search(self.extract, self.take, item.text) for item in items]
        asked = [
            Item(text, item.accepted, {})
            for text, item in zip(found, items, strict=True)
            if text is not None
        ]
        judged = judge_in_processes(factory, asked, self.timeout_s)
        return (Judgement(0.0, None) if text is None else next(judged) for text in found)


def _math_judge(float_rounding: int, strict: bool) -> Judge:
    from math_verify import parse, verify

    # The time limit is ours: theirs is an alarm, which arithmetic on huge numbers does not hear.
    unlimited: Any = None

    @functools.cache
    def read(text: str) -> Any:
        return parse(text, parsing_timeout=unlimited)

    def gold(text: str) -> Any:
        marked = text if "$" in text or "\\boxed" in text else f"\\boxed{{{text}}}"
        expression = read(marked) or read(text)
        if not expression:
            raise ValueError(f"the reference {text[:60]!r} is no mathematical expression")
        return expression

    def judge(text: str, accepted: Any, row: Mapping[str, Any]) -> Judgement:
        wanted = [gold(reference) for reference in accepted]
        found = parse(text, parsing_timeout=unlimited)
        if not found:
            return Judgement(0.0, None)
        same = any(
            verify(one, found, float_rounding, strict=strict, timeout_seconds=None)
            for one in wanted
        )
        return Judgement(float(same), str(found[0]))

    return judge
