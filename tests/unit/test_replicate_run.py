"""Two answers to the same request, compared."""

from __future__ import annotations

import pytest

from scripts.replicate_run import Pair, compare, first_difference


@pytest.mark.parametrize(
    ("first", "second", "place"),
    [([1, 2, 3], [1, 9, 3], 1), ([1, 2], [1, 2, 3], 2), ([], [5], 0), ([7], [8], 0)],
)
def test_the_first_difference_is_the_first_token_that_differs(
    first: list[int], second: list[int], place: int
) -> None:
    assert first_difference(first, second) == place
    assert first_difference(second, first) == place


def test_identical_answers_are_counted_with_an_interval() -> None:
    same = [Pair(f"k{i}", [1, 2], [1, 2]) for i in range(97)]
    other = [Pair("a", [1, 2], [1, 3]), Pair("b", [1, 2], [4, 2]), Pair("c", [1], [1, 2])]
    record = compare([*same, *other])
    assert (record["compared"], record["identical"], record["share"]) == (100, 97, 0.97)
    # Wilson's interval of 97 in 100, as published tables give it.
    assert record["low"] == pytest.approx(0.9155, abs=5e-4)
    assert record["high"] == pytest.approx(0.9897, abs=5e-4)
    assert record["first_difference"] == {"0": 1, "1": 2}


def test_nothing_to_compare_is_no_share() -> None:
    assert compare([])["share"] is None
