"""How often each of many values came before, in memory that stays small: 16 to 32 bytes a value.

A Python set of ten million texts takes more than a gigabyte.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]

FULL = 0.75
"""The share of slots beyond which looking for a free one takes long."""

CHUNK = 1 << 15
"""Values handled at once: what they need stays in the processor's cache."""


def text_hashes(texts: Sequence[str]) -> Hashes:
    """Return a 64-bit hash of each text, the same on every machine."""
    # Half a second to import, and only the programs that expand prompts hash texts.
    from pandas.util import hash_array

    objects = np.empty(len(texts), dtype=object)
    objects[:] = texts
    return hash_array(objects, categorize=False)


class Occurrences:
    """Counts 64-bit hashes in a table with open addressing.

    Two of ten million values share a hash with odds of one to 370 000.
    """

    def __init__(self, slots: int = 1 << 16) -> None:
        """Start with room for `slots` values, a power of two; the table grows by itself."""
        self._hashes: Hashes = np.zeros(slots, dtype=np.uint64)
        # 0 in a free slot, else one more than how often the value came.
        self._counts: NDArray[np.uint32] = np.zeros(slots, dtype=np.uint32)
        self._used = 0

    def add(self, hashes: Hashes) -> NDArray[np.int64]:
        """Return how often each value came before, in earlier calls and earlier in this one."""
        order = np.argsort(hashes)
        ordered = hashes[order]
        first = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]][: len(ordered)])
        if len(first) < len(ordered):
            order = np.argsort(hashes, kind="stable")
        times = np.diff(np.r_[first, len(ordered)])
        self._grow(len(first))
        slots = self._claim(ordered[first])
        before = self._counts[slots].astype(np.int64) - 1
        self._counts[slots] += times.astype(np.uint32)
        rank = np.arange(len(ordered)) - np.repeat(first, times)
        result = np.empty(len(ordered), dtype=np.int64)
        result[order] = np.repeat(before, times) + rank
        return result

    def take_back(self, hashes: Hashes) -> None:
        """Undo the last `add`."""
        distinct, times = np.unique(hashes, return_counts=True)
        self._counts[self._claim(distinct)] -= times.astype(np.uint32)

    def add_one(self, value: int) -> bool:
        """Count one value; tell whether it came before."""
        self._grow(1)
        slot = value >> self._shift
        while self._counts[slot] and self._hashes[slot] != value:
            slot = (slot + 1) & (len(self._counts) - 1)
        if not self._counts[slot]:
            self._hashes[slot] = value
            self._counts[slot] = 1
            self._used += 1
        self._counts[slot] += 1
        return bool(self._counts[slot] > 2)

    def _claim(self, distinct: Hashes) -> NDArray[np.int64]:
        """Return the slot of each value; one that is new gets a free slot."""
        slots = self._home(distinct)
        left = np.arange(len(distinct))
        while left.size:
            at, wanted = slots[left], distinct[left]
            free = self._counts[at] == 0
            # Of several values that want the same free slot the last written has it.
            self._hashes[at[free]] = wanted[free]
            have = self._hashes[at] == wanted
            new = free & have
            self._counts[at[new]] = 1
            self._used += int(new.sum())
            left = left[~have]
            slots[left] = self._next(slots[left])
        return slots

    def _home(self, hashes: Hashes) -> NDArray[np.int64]:
        # The leading bits, so that sorted values are looked for in neighbouring memory.
        return (hashes >> np.uint64(self._shift)).astype(np.int64)

    @property
    def _shift(self) -> int:
        return 65 - len(self._counts).bit_length()

    def _next(self, slots: NDArray[np.int64]) -> NDArray[np.int64]:
        return (slots + 1) & (len(self._counts) - 1)

    def _grow(self, more: int) -> None:
        size = len(self._counts)
        while self._used + more > FULL * size:
            size *= 2
        if size == len(self._counts):
            return
        taken = self._counts > 0
        hashes, counts = self._hashes[taken], self._counts[taken]
        self._hashes = np.zeros(size, dtype=np.uint64)
        self._counts = np.zeros(size, dtype=np.uint32)
        self._used = 0
        for start in range(0, len(hashes), CHUNK):
            chunk = slice(start, start + CHUNK)
            self._counts[self._claim(hashes[chunk])] = counts[chunk]
