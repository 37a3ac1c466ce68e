"""What a metric is, and the registry of metric types.

A metric type is a class with two methods, `accept` (what the reference means to it) and `judge`
(score one completion), entered in the registry by `@metric_type(NAME)`; its settings stand in
`METRIC_TYPES` (`scripts.llm_batch.evaluation.metric_types`) under the same name and are the
class's fields. Types that score many completions at a time, in other processes, have `judge_many`
instead of `judge`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal, NamedTuple, Protocol, TypeVar, runtime_checkable

from scripts.llm_batch.evaluation.metric_types import needs_reference

Take = Literal["first", "last"]


class Judgement(NamedTuple):
    """Score of a completion, and the answer taken from it (None: it holds no answer)."""

    score: float
    answer: str | None


class Metric(Protocol):
    """Compares completions with references; immutable, so one object serves a whole run."""

    @property
    def binary(self) -> bool:
        """Whether every score is 0 or 1, so that pass@k and accuracy have a meaning."""

    @property
    def votes(self) -> bool:
        """Whether equal answers have equal scores, so that samples can vote on the answer."""

    def accept(self, reference: Any) -> Any | None:
        """Return what `judge` compares with, or None if the reference is of no use here.

        `reference` is a decoded JSON value whose numbers with a point are `Decimal`.
        """

    def judge(self, text: str, accepted: Any) -> Judgement:
        """Score one completion against what `accept` returned."""


class Failure(NamedTuple):
    """A completion that could not be scored, and why in one line."""

    message: str


class Item(NamedTuple):
    """A completion to score: its text, what `accept` returned, and its row (empty if unused)."""

    text: str
    accepted: Any
    row: Mapping[str, Any]


@runtime_checkable
class ManyMetric(Protocol):
    """A metric whose work is done in other processes, which a completion may kill."""

    @property
    def binary(self) -> bool:
        """Whether every score is 0 or 1."""

    @property
    def votes(self) -> bool:
        """Whether equal answers have equal scores."""

    def accept(self, reference: Any) -> Any | None:
        """Return what completions are compared with, or None if the reference is of no use."""

    def judge_many(self, items: Sequence[Item]) -> Iterator[Judgement | Failure]:
        """Score completions, in their order."""


@dataclass(frozen=True)
class NamedMetric:
    """A metric as the config names it, with every setting filled in."""

    name: str
    type: str
    settings: Mapping[str, Any]
    metric: Metric | ManyMetric

    @property
    def skips_errors(self) -> bool:
        """Whether a completion that ended in an error has no score (else its score is 0)."""
        return bool(self.settings["errors"] == "skip")

    @property
    def needs_reference(self) -> bool:
        """Whether a row without a reference has no score."""
        return needs_reference(self.type, self.settings)


_Class = TypeVar("_Class", bound=Callable[..., Metric | ManyMetric])
_REGISTRY: dict[str, Callable[..., Metric | ManyMetric]] = {}


def metric_type(name: str) -> Callable[[_Class], _Class]:
    """Register a class as the metric type `name`; it is called with its settings by keyword."""

    def register(cls: _Class) -> _Class:
        _REGISTRY[name] = cls
        return cls

    return register


def metric_class(name: str) -> Callable[..., Metric | ManyMetric]:
    """Return the class of a metric type."""
    return _REGISTRY[name]


def registered_types() -> frozenset[str]:
    """Return the names of the metric types that have code."""
    return frozenset(_REGISTRY)


def reference_texts(reference: Any) -> tuple[str, ...]:
    """Return the accepted answers of a reference as texts: one, or each item of a list.

    Numbers read as their JSON text (`1.50` stays `1.50`), true and false likewise; null, objects,
    nested lists and numbers that are not finite are left out.
    """
    items = reference if isinstance(reference, list) else [reference]
    return tuple(text for item in items if (text := _scalar_text(item)) is not None)


def _scalar_text(value: Any) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, Decimal)):
        return str(value)
    return value if isinstance(value, str) else None


def search(pattern: re.Pattern[str] | None, take: Take, text: str) -> str | None:
    """Return what `pattern` takes from `text`: the first group that took part, or the match."""
    if pattern is None:
        return text
    found: re.Match[str] | None = None
    for match in pattern.finditer(text):
        found = match
        if take == "first":
            break
    if found is None:
        return None
    return next((group for group in found.groups() if group is not None), found.group())
