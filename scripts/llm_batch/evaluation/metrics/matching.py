"""The answer equals the reference, as text or as a number, or the completion contains it."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from scripts.llm_batch.evaluation.metrics.base import (
    Judgement,
    Take,
    metric_type,
    reference_texts,
    search,
)
from scripts.llm_batch.evaluation.metrics.numeric import canonical_number, find_number, is_close


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
        found = search(self.extract, self.take, text)
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
        found = search(self.extract, self.take, text)
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
