"""Which rows of the data become prompts: a filter, a drawn sample, no few-shot examples."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson

from scripts.llm_batch.rows import Block, Rows, parse_block
from scripts.llm_batch.templates import RowFilter, TemplateFailure


@dataclass(frozen=True)
class Selection:
    """What decides whether a row is asked.

    `filter` is a Jinja expression over its fields; `chosen` the numbers of the only rows that are
    taken, and `excluded` those of rows that are not.
    """

    filter: str | None = None
    chosen: frozenset[int] | None = None
    excluded: frozenset[int] = frozenset()

    @property
    def everything(self) -> bool:
        """Whether every row is taken."""
        return self.filter is None and self.chosen is None and not self.excluded


class Selector:
    """Applies a `Selection`; the filter is compiled once."""

    def __init__(self, selection: Selection, unit: str) -> None:
        self._selection = selection
        self._unit = unit
        self._filter = None if selection.filter is None else RowFilter(selection.filter)

    def __call__(self, rows: Rows) -> Rows:
        """Return the rows that are taken.

        Rows in error are kept, unless not chosen: nothing is dropped in silence. A row for which
        the filter fails is one of them.
        """
        kept = Rows([], [], {})
        for place, (number, fields) in enumerate(zip(rows.lines, rows.fields, strict=True)):
            error = rows.errors.get(place)
            if not self._numbered(number):
                continue
            if error is None and self._filter is not None:
                try:
                    if not self._filter.keeps(fields):
                        continue
                except TemplateFailure as failure:
                    error = f"{self._unit} {number}: the filter fails: {failure}"
            if error is not None:
                kept.errors[len(kept.lines)] = error
            kept.lines.append(number)
            kept.fields.append(fields if error is None else {})
        return kept

    def _numbered(self, number: int) -> bool:
        chosen = self._selection.chosen
        return (chosen is None or number in chosen) and number not in self._selection.excluded


class Drawn(NamedTuple):
    """A row of a random sample."""

    rank: str
    number: int
    fields: dict[str, Any]


def draw_rows(
    blocks: Iterable[Block], selector: Selector, count: int, seed: int, purpose: str
) -> list[Drawn]:
    """Return `count` rows drawn at random, fewer if there are not so many, in the drawn order.

    A row is ranked by a hash of the seed and its content, so the sample is the same in whatever
    order and format the rows come. Rows in error are drawn by their number.
    """
    return heapq.nsmallest(
        count, _ranked(blocks, selector, f"{purpose}:{seed}:".encode()), key=lambda row: row[:2]
    )


def _ranked(blocks: Iterable[Block], selector: Selector, salt: bytes) -> Iterator[Drawn]:
    for block in blocks:
        rows = selector(parse_block(block))
        for place, (number, fields) in enumerate(zip(rows.lines, rows.fields, strict=True)):
            content = str(number).encode() if place in rows.errors else _content(fields)
            yield Drawn(hashlib.sha256(salt + content).hexdigest(), number, fields)


def _content(fields: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(fields, option=orjson.OPT_SORT_KEYS)
    except TypeError:
        return repr(sorted(fields.items())).encode("utf-8", "surrogatepass")
