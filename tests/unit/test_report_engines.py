"""Throughput and start-up of engines: honest sums, or unknown."""

from __future__ import annotations

import pytest

from scripts.llm_batch.report.engines import rate, total


@pytest.mark.parametrize(
    ("values", "expected"), [([1.0, 2.0], 3.0), ([1.0, None], None), ([], None), ([0.0], 0.0)]
)
def test_a_sum_with_anything_unknown_is_unknown(
    values: list[float | None], expected: float | None
) -> None:
    assert total(values) == expected


@pytest.mark.parametrize(
    ("amount", "seconds", "expected"),
    [(10, 2.0, 5.0), (None, 2.0, None), (10, None, None), (10, 0.0, None)],
)
def test_a_rate_without_time_is_unknown(
    amount: float | None, seconds: float | None, expected: float | None
) -> None:
    assert rate(amount, seconds) == expected
