"""The one thing about a row that depends on the rows before it: which ids and prompts came already.

Blocks of rows are numbered in file order; all else about them can be found out in any order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scripts.llm_batch.occurrences import Hashes, Occurrences, text_hashes

NamesAndLines = tuple[Sequence[str], Sequence[int]]


class Identities(NamedTuple):
    """What tells the rows of a block from all other rows of the file.

    `names` are hashes of ids, None where all are line numbers; `digests` are the first 64 bits of
    the prompts' digests, of rows that have a prompt only, and `places` the places of these rows,
    None for all.
    """

    rows: int
    names: Hashes | None
    digests: Hashes
    places: NDArray[np.int64] | None


class Numbers(NamedTuple):
    """What `RowNumbering` has found out about a block.

    The first `kept` rows count; `renamed` holds names that differ from the rows' own, and
    `occurrences` how many rows before send the same prompt where it is not 0; both by place.
    """

    kept: int
    renamed: Mapping[int, str]
    occurrences: Mapping[int, int]


class RowNumbering:
    """Gives rows unique names and counts how often the same prompt came before, in file order.

    `repeated` counts the rows that got another name; `first_repeated` is the first such name.
    """

    def __init__(self, limit: int | None = None, seeded: bool = True) -> None:
        """`limit` is the number of rows after which all are dropped.

        Prompts are not counted unless requests are `seeded`: only a seed depends on it.
        """
        self._left = limit
        self._seeded = seeded
        self._names = Occurrences()
        self._prompts = Occurrences()
        self.repeated = 0
        self.first_repeated = ""

    @property
    def full(self) -> bool:
        """Whether the limit is reached."""
        return self._left is not None and self._left <= 0

    def number(self, block: Identities, own_names: Callable[[], NamesAndLines]) -> Numbers:
        """Return what is to be known about the next block of the file.

        `own_names` is asked only if an id is repeated.
        """
        kept = block.rows
        if self._left is not None:
            kept = min(kept, self._left)
            self._left -= kept
        renamed = {} if block.names is None else self._renamed(block.names[:kept], own_names)
        return Numbers(kept, renamed, self._occurrences(block, kept) if self._seeded else {})

    def _occurrences(self, block: Identities, kept: int) -> dict[int, int]:
        places = np.arange(block.rows) if block.places is None else block.places
        places = places[places < kept]
        counts = self._prompts.add(block.digests[: len(places)])
        repeated = np.flatnonzero(counts)
        return dict(zip(places[repeated].tolist(), counts[repeated].tolist(), strict=True))

    def _renamed(self, hashes: Hashes, own_names: Callable[[], NamesAndLines]) -> dict[int, str]:
        """Return `<id>#<line>` for the rows whose id an earlier row has."""
        if not self._names.add(hashes).any():
            return {}
        # Rare: one after another, because a new name can be the id of a later row.
        self._names.take_back(hashes)
        names, lines = own_names()
        renamed = {}
        for place, value in enumerate(hashes.tolist()):
            name = names[place]
            while self._names.add_one(value):
                name = renamed[place] = f"{name}#{lines[place]}"
                value = int(text_hashes([name])[0])
        self.repeated += len(renamed)
        self.first_repeated = self.first_repeated or next(iter(renamed.values()), "")
        return renamed
