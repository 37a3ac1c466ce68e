"""Counting in a compact table is counting."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from scripts.llm_batch.occurrences import Occurrences, text_hashes

# Few values that fall on the same slots, and the ends of the range.
VALUES = st.one_of(
    st.integers(0, 40), st.sampled_from([2**64 - 1, 2**64 - 2, 2**63, 2**62, 1 << 32])
)


@settings(deadline=None)
@given(blocks=st.lists(st.lists(VALUES, max_size=30), max_size=8))
def test_each_value_is_told_how_often_it_came_before(blocks: list[list[int]]) -> None:
    table, counter = Occurrences(slots=8), Counter[int]()
    for block in blocks:
        expected = []
        for value in block:
            expected.append(counter[value])
            counter[value] += 1
        assert table.add(np.array(block, dtype=np.uint64)).tolist() == expected


@settings(deadline=None)
@given(blocks=st.lists(st.lists(VALUES, max_size=20), max_size=6))
def test_what_is_known_is_known_however_it_was_added(blocks: list[list[int]]) -> None:
    table: Occurrences = Occurrences(slots=8)
    known: set[int] = set()
    for number, block in enumerate(blocks):
        values = np.array(block, dtype=np.uint64)
        table.add(values)
        if number % 2:
            known.update(block)
        else:
            table.take_back(values)
            for value in block:
                assert table.add_one(value) == (value in known)
                known.add(value)


def test_a_hundred_thousand_values_are_counted_while_the_table_grows() -> None:
    numbers = random.Random(0)
    values = np.array([numbers.getrandbits(64) for _ in range(100_000)], dtype=np.uint64)
    table = Occurrences()
    assert not table.add(values).any()
    assert (table.add(values[::-1].copy()) == 1).all()


def test_hashes_of_texts_differ_and_never_change() -> None:
    hashes = text_hashes(["a", "b", "", "é", "a"])
    assert hashes[0] == hashes[4] == 13950350942979735504
    assert len(set(hashes.tolist())) == 4
