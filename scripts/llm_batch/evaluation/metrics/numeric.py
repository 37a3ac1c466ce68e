"""Numbers as people and models write them, read as exact decimals.

Understood: signs (also U+2212 and its kin), thousands separators (`1,234,567`; no-break and thin
spaces), decimals (`.5`, `2.50`), exponents (`1e-3`), a currency sign before the number, every
Unicode decimal digit. Not understood: fractions (`1/2` is two numbers), decimal commas (`3,5` is
two numbers), number words, percentages (`5%` is 5).
"""

from __future__ import annotations

import re
from decimal import Context, Decimal, InvalidOperation
from typing import Literal

_MINUS_SIGNS = "-\u2212\u2010\u2011\u2012\u2013\ufe63\uff0d"
_GROUP_SEPARATORS = ",\u00a0\u2009\u202f"
_SEPARATORS_REMOVED = str.maketrans(
    {
        **dict.fromkeys(_GROUP_SEPARATORS + "$€£¥", ""),
        **dict.fromkeys(_MINUS_SIGNS, "-"),
        "\uff0b": "+",
    }
)

# A minus after a word, a digit or a closing bracket subtracts or joins ("3-5", "GPT-4").
_NUMBER = re.compile(
    rf"""
    (?=[{_MINUS_SIGNS}+\uff0b.\d])  # fails at once where no number can start
    (?:(?<![\w.)\]])[{_MINUS_SIGNS}+\uff0b][$€£¥]?(?=\.?\d))?
    (?:
        (?<!\d)\d{{1,3}}(?:[{_GROUP_SEPARATORS}]\d{{3}})+(?!\d)(?:\.\d+)?
      | \d+(?:\.\d+)?
      | (?<![\d.])\.\d+
    )
    (?:[eE][{_MINUS_SIGNS}+]?\d+(?!\w))?
    """,
    re.VERBOSE,
)

# Exact enough for any answer; without traps an overflow is an infinity and never equal by chance.
_ARITHMETIC = Context(prec=60, traps=[])
# "1e999999999" written in full would be a gigabyte.
_LONGEST_WRITTEN_IN_FULL = 60


def find_number(text: str, take: Literal["first", "last"] = "last") -> Decimal | None:
    """Return the first or last number in `text`, or None when there is none."""
    found: str | None = None
    for match in _NUMBER.finditer(text):
        found = match.group()
        if take == "first":
            break
    if found is None:
        return None
    try:
        return Decimal(found.translate(_SEPARATORS_REMOVED))
    except InvalidOperation:  # an exponent beyond what a decimal can hold
        return None


def is_close(value: Decimal, reference: Decimal, absolute: Decimal, relative: Decimal) -> bool:
    """Say whether |value - reference| <= max(absolute, relative * |reference|)."""
    if value == reference:
        return True
    difference = _ARITHMETIC.abs(_ARITHMETIC.subtract(value, reference))
    allowed = max(absolute, _ARITHMETIC.multiply(relative, _ARITHMETIC.abs(reference)))
    return difference.is_finite() and difference <= allowed


def canonical_number(value: Decimal) -> str:
    """Return the one text of a finite decimal: equal numbers have equal texts (`-0.0` is `0`)."""
    if value == 0:
        return "0"
    sign, digits, exponent = value.as_tuple()
    assert isinstance(exponent, int)
    text = "".join(map(str, digits))
    stripped = text.rstrip("0")
    exponent += len(text) - len(stripped)
    exact = Decimal(f"{'-' if sign else ''}{stripped}E{exponent}")
    written_in_full = max(len(stripped), len(stripped) + exponent, -exponent)
    return format(exact, "f" if written_in_full <= _LONGEST_WRITTEN_IN_FULL else "E")
