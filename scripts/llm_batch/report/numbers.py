"""Numbers as people read them: unknown is a dash, thousands are set apart, shares are percent."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

UNKNOWN = "–"
NARROW_SPACE = "\u202f"


def count(value: float | None) -> str:
    """Return a whole number with its thousands set apart."""
    return UNKNOWN if value is None else f"{value:,.0f}".replace(",", NARROW_SPACE)


def plural(number: float | None, noun: str, many: str = "") -> str:
    """Return the noun in the form that fits a number."""
    return noun if number == 1 else many or f"{noun}s"


def percent(value: float | None, digits: int = 1) -> str:
    """Return a share as percent, without the sign."""
    return UNKNOWN if value is None else f"{100 * value:.{digits}f}"


def points(difference: float) -> str:
    """Return a difference of shares in percentage points, with its sign."""
    return f"{100 * difference:+.2f}"


def decimal(value: float | None, digits: int = 3) -> str:
    """Return a number with a fixed number of digits after the point."""
    return UNKNOWN if value is None else f"{value:.{digits}f}"


def significant(value: float | None, digits: int = 3) -> str:
    """Return a number to so many significant digits, thousands set apart."""
    if value is None:
        return UNKNOWN
    if abs(value) >= 10 ** (digits - 1):
        return count(value)
    return f"{value:.{digits}g}"


def seconds(value: float | None) -> str:
    """Return a duration: 0.42 s, 12.3 s, 4 min 05 s, 2 h 03 min."""
    if value is None:
        return UNKNOWN
    if value < 60:
        return f"{value:.2f} s" if value < 10 else f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def data_size(value: float | None) -> str:
    """Return a number of bytes in a decimal unit."""
    if value is None:
        return UNKNOWN
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} TB"


def time_span(times: Sequence[str]) -> str:
    """Return the first and the last of some ISO 8601 times in UTC, the date once if it is one."""
    if not times:
        return UNKNOWN
    first, last = (
        datetime.fromisoformat(text).astimezone(UTC) for text in (min(times), max(times))
    )
    end = f"{last:%H:%M:%S}" if first.date() == last.date() else f"{last:%Y-%m-%d %H:%M:%S}"
    return f"{first:%Y-%m-%d %H:%M:%S} to {end} UTC"


def setting(value: Any) -> str:
    """Return a setting as it would stand in a config."""
    if value is None:
        return UNKNOWN
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
