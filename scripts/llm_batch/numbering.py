"""The one thing about a row that depends on the rows before it: which ids and prompts came already.

Blocks of rows are numbered in file order; all else about them can be found out in any order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scripts.llm_batch.occurrences import Hashes, Occurrences, text_hashes


class Identities(NamedTuple):
    """What tells the rows of a block from all other rows of the file.

    `names` is None where all are line numbers; `digests` are the first 64 bits of the prompts',
    `has_prompt` is false for a row in error.
    """

    lines: Sequence[int]
    names: Sequence[str] | None
    digests: Hashes
    has_prompt: NDArray[np.bool_]


class Numbers(NamedTuple):
    """What `RowNumbering` has found out about a block.

    The first `kept` rows count; `renamed` holds names that differ from the rows' own, and
    `occurrences` how many rows before send the same prompt where it is not 0; both by place.
    """

    kept: int
    renamed: Mapping[int, str]
    occurrences: Mapping[int, int]


class RowNumbering:
    """Gives rows unique names and counts how often the same prompt came before, in file order."""

    def __init__(self, limit: int | None = None, seeded: bool = True) -> None:
        """`limit` is the number of rows after which all are dropped.

        Prompts are not counted unless requests are `seeded`: only a seed depends on it.
        """
        self._left = limit
        self._seeded = seeded
        self._names = Occurrences()
        self._prompts = Occurrences()

    @property
    def full(self) -> bool:
        """Whether the limit is reached."""
        return self._left is not None and self._left <= 0

    def number(self, block: Identities) -> Numbers:
        """Return what is to be known about the next block of the file."""
        kept = len(block.lines)
        if self._left is not None:
            kept = min(kept, self._left)
            self._left -= kept
        occurrences = self._occurrences(block, kept) if self._seeded else {}
        return Numbers(kept, self._renamed(block, kept), occurrences)

    def _occurrences(self, block: Identities, kept: int) -> dict[int, int]:
        places = np.flatnonzero(block.has_prompt[:kept])
        counts = self._prompts.add(block.digests[:kept][places])
        repeated = np.flatnonzero(counts)
        return dict(zip(places[repeated].tolist(), counts[repeated].tolist(), strict=True))

    def _renamed(self, block: Identities, kept: int) -> dict[int, str]:
        """Return `<id>#<line>` for the rows whose id an earlier row has."""
        if block.names is None:
            return {}
        hashes = text_hashes(block.names[:kept])
        if not self._names.add(hashes).any():
            return {}
        # Rare: one after another, because a new name can be the id of a later row.
        self._names.take_back(hashes)
        renamed = {}
        for place, value in enumerate(hashes.tolist()):
            name = block.names[place]
            while self._names.add_one(value):
                name = renamed[place] = f"{name}#{block.lines[place]}"
                value = int(text_hashes([name])[0])
        return renamed
