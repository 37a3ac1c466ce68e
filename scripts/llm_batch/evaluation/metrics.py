"""Metrics: how one completion is compared with the reference of its row.

A metric type is a class with two methods, `accept` (what the reference means to it) and `judge`
(score one completion), entered in the registry by `@metric_type(NAME)`; its settings stand in
`METRIC_TYPES` (`scripts.llm_batch.metric_types`) under the same name and are the class's fields.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

from scripts.llm_batch.errors import ConfigError
from scripts.llm_batch.evaluation.metric_types import METRIC_TYPES, RESERVED_NAMES
from scripts.llm_batch.evaluation.numeric import canonical_number, find_number, is_close

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


@dataclass(frozen=True)
class NamedMetric:
    """A metric as the config names it, with every setting filled in."""

    name: str
    type: str
    settings: Mapping[str, Any]
    metric: Metric

    @property
    def skips_errors(self) -> bool:
        """Whether a completion that ended in an error has no score (else its score is 0)."""
        return bool(self.settings["errors"] == "skip")


_Class = TypeVar("_Class", bound=Callable[..., Metric])
_REGISTRY: dict[str, Callable[..., Metric]] = {}


def metric_type(name: str) -> Callable[[_Class], _Class]:
    """Register a class as the metric type `name`; it is called with its settings by keyword."""

    def register(cls: _Class) -> _Class:
        _REGISTRY[name] = cls
        return cls

    return register


def registered_types() -> frozenset[str]:
    """Return the names of the metric types that have code."""
    return frozenset(_REGISTRY)


def build_metric(name: str, specification: Mapping[str, Any]) -> NamedMetric:
    """Make the metric that a config calls `name` from its `type` and settings.

    Raises `ConfigError` for an unknown type or setting, a value of the wrong kind, a regular
    expression that does not compile, and names that would replace a column of scores.parquet.
    """
    where = f"metrics.{name}"
    if name in RESERVED_NAMES:
        raise ConfigError(f"{where}: this name is a column of scores.parquet; choose another")
    kind = specification.get("type")
    if not isinstance(kind, str) or kind not in METRIC_TYPES:
        known = ", ".join(sorted(METRIC_TYPES))
        raise ConfigError(f"{where}.type: no metric type {kind!r}; use one of: {known}")
    settings = _complete_settings(where, kind, specification)
    own = {key: value for key, value in settings.items() if key != "errors"}
    if own.get("extract") is not None:
        own["extract"] = compile_pattern(f"{where}.extract", own["extract"])
    return NamedMetric(name, kind, settings, _REGISTRY[kind](**own))


def compile_pattern(where: str, pattern: str) -> re.Pattern[str]:
    """Compile a user's regular expression; `ConfigError` names `where` and the position."""
    try:
        return re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise ConfigError(
            f"{where}: {pattern!r} is not a Python regular expression ({error}); "
            "in YAML, write it between single quotes"
        ) from None


def _complete_settings(where: str, kind: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return all settings of a type: those given, checked, and the defaults of the others."""
    known = METRIC_TYPES[kind].settings
    for key in given:
        if key != "type" and key not in known:
            allowed = ", ".join(sorted(known))
            raise ConfigError(f"{where}.{key}: {kind} has no such setting; it takes: {allowed}")
    for key, setting in known.items():
        if setting.required and given.get(key) is None:
            raise ConfigError(f"{where}.{key}: {kind} needs this setting ({setting.description})")
        problem = None if key not in given else setting.problem(given[key])
        if problem:
            raise ConfigError(f"{where}.{key}: found {given[key]!r}, expected {problem}")
    return {key: given.get(key, setting.default) for key, setting in known.items()}


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


def _search(pattern: re.Pattern[str] | None, take: Take, text: str) -> str | None:
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


def _without_punctuation(text: str) -> str:
    kept = (
        character
        for character in text
        # Symbols of ASCII (+ $ < ^ …) change a meaning; only true punctuation goes.
        if not unicodedata.category(character).startswith("P")
    )
    return " ".join("".join(kept).split())


@metric_type("exact_match")
@metric_type("regex_match")
@dataclass(frozen=True)
class TextMatch:
    """The answer equals an accepted answer after both were normalised in the same way.

    Texts are compared in Unicode normal form C, so that a composed and a decomposed letter agree.
    """

    extract: re.Pattern[str] | None = None
    take: Take = "first"
    strip: bool = True
    ignore_case: bool = False
    ignore_punctuation: bool = False
    binary: bool = True
    votes: bool = True

    def normalise(self, text: str) -> str:
        """Return the form in which answers and references are compared."""
        text = unicodedata.normalize("NFC", text)
        if self.ignore_case:
            text = unicodedata.normalize("NFC", text.casefold())
        if self.ignore_punctuation:
            text = _without_punctuation(text)
        return text.strip() if self.strip else text

    def accept(self, reference: Any) -> frozenset[str] | None:
        """Return the normalised accepted answers."""
        return frozenset(map(self.normalise, reference_texts(reference))) or None

    def judge(self, text: str, accepted: frozenset[str]) -> Judgement:
        """Return 1 if the answer in `text` is accepted."""
        found = _search(self.extract, self.take, text)
        if found is None:
            return Judgement(0.0, None)
        answer = self.normalise(found)
        return Judgement(float(answer in accepted), answer)


@metric_type("numeric_match")
@dataclass(frozen=True)
class NumericMatch:
    """A number in the text equals an accepted number within the tolerance, as exact decimals.

    A reference that is a text gives its last number ("so she pays #### 1,234" is 1234).
    """

    extract: re.Pattern[str] | None = None
    take: Take = "last"
    tolerance: float = 0
    relative_tolerance: float = 0
    binary: bool = True
    votes: bool = True

    def accept(self, reference: Any) -> tuple[Decimal, ...] | None:
        """Return the accepted numbers; true and false are not numbers."""
        items = reference if isinstance(reference, list) else [reference]
        texts = reference_texts([item for item in items if not isinstance(item, bool)])
        numbers = (find_number(text) for text in texts)
        return tuple(number for number in numbers if number is not None) or None

    def judge(self, text: str, accepted: tuple[Decimal, ...]) -> Judgement:
        """Return 1 if the number in `text` is close enough to an accepted one."""
        found = _search(self.extract, self.take, text)
        number = None if found is None else find_number(found, self.take)
        if number is None:
            return Judgement(0.0, None)
        # repr of a float is the decimal that the config was written with.
        absolute, relative = Decimal(repr(self.tolerance)), Decimal(repr(self.relative_tolerance))
        close = any(is_close(number, wanted, absolute, relative) for wanted in accepted)
        return Judgement(float(close), canonical_number(number))


@metric_type("contains")
@dataclass(frozen=True)
class Contains:
    """The text contains an accepted answer; which one is the answer taken from it.

    Samples do not vote: a text without an accepted answer names no answer at all.
    """

    ignore_case: bool = False
    whole_words: bool = False
    binary: bool = True
    votes: bool = False

    def accept(self, reference: Any) -> tuple[tuple[str, str], ...] | None:
        """Return (as written, as compared) of each accepted answer that is not empty."""
        texts = [text for text in reference_texts(reference) if text.strip()]
        return tuple((text, self._fold(text)) for text in texts) or None

    def judge(self, text: str, accepted: tuple[tuple[str, str], ...]) -> Judgement:
        """Return 1 if an accepted answer lies in `text`; the first one found is the answer."""
        folded = self._fold(text)
        for written, wanted in accepted:
            if wanted in folded and (not self.whole_words or _as_words(wanted, folded)):
                return Judgement(1.0, written)
        return Judgement(0.0, None)

    def _fold(self, text: str) -> str:
        text = unicodedata.normalize("NFC", text)
        return unicodedata.normalize("NFC", text.casefold()) if self.ignore_case else text


def _as_words(wanted: str, text: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(wanted)}(?!\w)", text) is not None
