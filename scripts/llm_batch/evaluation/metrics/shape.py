"""What a completion is like, without a reference: valid JSON, and how long it is."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from scripts.llm_batch.evaluation.diversity import split_words
from scripts.llm_batch.evaluation.metrics.base import Judgement, Take, metric_type, search

ANY = True
"""Stands for a reference where none is needed."""

FENCE = re.compile(r"```[^\n`]*\n(.*?)\n?```", re.DOTALL)


@metric_type("json_schema")
@dataclass(frozen=True)
class JsonSchema:
    """The answer is JSON (RFC 8259: no NaN, no double keys) that the schema accepts."""

    schema: Mapping[str, Any] | None = field(default=None, hash=False)
    extract: re.Pattern[str] | None = None
    take: Take = "last"
    binary: bool = True
    votes: bool = True

    def accept(self, reference: Any) -> bool:
        """Return something: any row will do."""
        return ANY

    def judge(self, text: str, accepted: bool) -> Judgement:
        """Return 1 if the answer is valid; the answer is its JSON in one form."""
        found = search(self.extract, self.take, text)
        if found is not None and self.extract is None:
            fences = FENCE.findall(found)
            found = fences[0] if len(fences) == 1 else found
        try:
            value = json.loads(found or "", parse_constant=_refuse, object_pairs_hook=_unique)
        except (ValueError, RecursionError):
            return Judgement(0.0, None)
        valid = True if self.schema is None else self._validator.is_valid(value)
        return Judgement(float(valid), json.dumps(value, sort_keys=True, ensure_ascii=False))

    @functools.cached_property
    def _validator(self) -> Any:
        import jsonschema

        return jsonschema.Draft202012Validator(self.schema or {})


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a key is there twice")
    return dict(pairs)


@metric_type("length")
@dataclass(frozen=True)
class Length:
    """The number of words, characters or lines that are not empty."""

    unit: str = "words"
    binary: bool = False
    votes: bool = False

    def accept(self, reference: Any) -> bool:
        """Return something: any row will do."""
        return ANY

    def judge(self, text: str, accepted: bool) -> Judgement:
        """Return the count."""
        if self.unit == "characters":
            return Judgement(float(len(text)), None)
        if self.unit == "lines":
            return Judgement(float(sum(bool(line.strip()) for line in text.splitlines())), None)
        return Judgement(float(len(split_words([text]).codes)), None)
