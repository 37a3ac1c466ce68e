"""Numbers as people read them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from scripts.llm_batch.report import numbers


@pytest.mark.parametrize(
    "write", [numbers.count, numbers.percent, numbers.decimal, numbers.seconds, numbers.data_size]
)
def test_an_unknown_number_is_a_dash_and_never_a_zero(write: Callable[[float | None], str]) -> None:
    assert write(None) == "–"
    assert "0" in write(0)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.4213, "0.42 s"), (12.34, "12.3 s"), (245, "4 min 05 s"), (7380, "2 h 03 min")],
)
def test_durations_have_the_unit_that_fits(value: float, text: str) -> None:
    assert numbers.seconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.01234, "0.0123"), (5.678, "5.68"), (99.96, "100"), (1680.4, "1\u202f680")],
)
def test_rates_keep_three_significant_digits_and_whole_numbers_whole(
    value: float, text: str
) -> None:
    assert numbers.significant(value) == text


def test_a_span_of_one_day_names_the_day_once() -> None:
    times = ["2026-01-02T03:04:05+00:00", "2026-01-02T04:04:05+01:00", "2026-01-02T05:00:00+00:00"]

    assert numbers.time_span(times) == "2026-01-02 03:04:05 to 05:00:00 UTC"
    assert numbers.time_span([]) == "–"
