"""Multiple choice: which letter a completion chooses."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from scripts.llm_batch.evaluation.metrics.base import Judgement, Take, metric_type, search


@metric_type("multiple_choice")
@dataclass(frozen=True)
class MultipleChoice:
    """The letter that stands after 'answer is', in a box, at the end or start, or in brackets.

    These places are tried in this order; in the first that has any letter, `take` chooses. A bare
    letter within a sentence is no choice: "A good question" chooses nothing.
    """

    choices: str = "ABCD"
    extract: re.Pattern[str] | None = None
    take: Take = "last"
    binary: bool = True
    votes: bool = True

    def accept(self, reference: Any) -> frozenset[str] | None:
        """Return the letters that are right: written, or as places that count from 0."""
        items = reference if isinstance(reference, list) else [reference]
        return frozenset(letter for item in items if (letter := self._letter(item))) or None

    def _letter(self, item: Any) -> str | None:
        if isinstance(item, int) and not isinstance(item, bool):
            return self.choices[item].upper() if 0 <= item < len(self.choices) else None
        if isinstance(item, str):
            return self._found(item.strip())
        return None

    def judge(self, text: str, accepted: frozenset[str]) -> Judgement:
        """Return 1 if the chosen letter is right."""
        found = search(self.extract, self.take, text)
        letter = None if found is None else self._found(found.strip())
        return Judgement(float(letter in accepted), letter)

    def _found(self, text: str) -> str | None:
        for pattern in self._places():
            letters = [match.group(1).upper() for match in pattern.finditer(text)]
            if letters:
                return letters[0 if self.take == "first" else -1]
        return None

    def _places(self) -> list[re.Pattern[str]]:
        letter = f"([{re.escape(self.choices.upper())}])"
        small = f"([{re.escape(self.choices.upper() + self.choices.lower())}])"
        mark = r"[\s*_(\[{$\"']*(?:\\text(?:bf)?\{|\\mathrm\{)?"
        return [
            re.compile(rf"\\boxed\{{{mark}{small}\W"),
            re.compile(
                rf"(?i:answer|choice|option)(?i:\s+is|\s*[:=])\s*(?i:option\s*)?"
                rf"{mark}{letter}(?!\w)"
            ),
            re.compile(rf"^[*_(\[\"']*{small}[*_)\].,:;\"']*$", re.MULTILINE),
            re.compile(rf"^[*_(\[]*{letter}[)\].:]"),
            re.compile(rf"[(\[]{letter}[)\]]"),
        ]
