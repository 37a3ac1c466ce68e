"""What to do after an engine died: go on, look for the request that killed it, or give up.

No processes here: decisions only, so that they can be tested by the thousand.

A first death may be chance, so all open requests are tried again. After a second one the requests
that were in the engine both times are suspects. They are answered apart, in an engine that holds
√n of n suspects at once, so that the next death leaves √n of them; then one at a time; then the
last suspect alone. What kills an engine of its own is quarantined: it is answered by an error.
With 500 suspects that takes three engine starts, where halving would take nine.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

START_ATTEMPTS = 3
"""Failures to start, one after another, after which a shard gives up."""


class Action(Enum):
    """What comes next."""

    ANSWER_OPEN = "answer all open requests"
    ANSWER_SUSPECTS = "answer the suspects apart"
    QUARANTINE = "a request killed an engine of its own"
    GIVE_UP = "give up"


class Decision(NamedTuple):
    """`positions`: suspects to answer, or the one to quarantine; `window`: how many at once."""

    action: Action
    positions: tuple[int, ...] = ()
    window: int | None = None
    reason: str = ""


@dataclass
class Deaths:
    """The deaths of one shard's engines so far. `max_restarts` bounds restarts in vain."""

    max_restarts: int
    total: int = 0
    failed_starts: int = 0
    restarts_in_vain: int = 0
    quarantined: int = 0
    _strikes: int = 0
    _seen: frozenset[int] = frozenset()
    _pool: tuple[int, ...] = ()
    _window: int = 0

    @property
    def isolating(self) -> bool:
        """Tell whether the engine answers suspects."""
        return bool(self._pool)

    def failed_to_start(self, permanent: bool) -> Decision:
        """Decide after an engine that died before it took a request."""
        self.total += 1
        self.failed_starts += 1
        if permanent or self.failed_starts >= min(START_ATTEMPTS, self.max_restarts + 1):
            return Decision(Action.GIVE_UP, reason="the engine does not start")
        if self._pool:
            return Decision(Action.ANSWER_SUSPECTS, self._pool, self._window)
        return Decision(Action.ANSWER_OPEN)

    def died(self, held: Collection[int], answered: int) -> Decision:
        """Decide after an engine that died with the requests `held`, having answered `answered`."""
        self.total += 1
        self.failed_starts = 0
        self.restarts_in_vain = 0 if answered else self.restarts_in_vain + 1
        if self.restarts_in_vain > self.max_restarts:
            return Decision(Action.GIVE_UP, reason="engines die without answering anything")
        if self._pool:
            return self._narrow(tuple(sorted(held)))
        self._strikes += 1
        suspects = frozenset(held) & self._seen if self._strikes > 1 and self._seen else held
        self._seen = frozenset(held)
        if self._strikes < 2 or not suspects:
            return Decision(Action.ANSWER_OPEN)
        return self._isolate(tuple(sorted(suspects)))

    def finished(self) -> Decision | None:
        """Decide after an engine that answered all it was given; None when that was everything."""
        self.failed_starts = 0
        if not self._pool:
            return None
        # The suspects were innocent, or guilty together only: start afresh.
        self._pool, self._strikes, self._seen = (), 0, frozenset()
        return Decision(Action.ANSWER_OPEN)

    def _isolate(self, suspects: tuple[int, ...]) -> Decision:
        self._pool = suspects
        self._window = max(1, math.isqrt(len(suspects)))
        return Decision(Action.ANSWER_SUSPECTS, suspects, self._window)

    def _narrow(self, held: tuple[int, ...]) -> Decision:
        if not held:
            return Decision(Action.ANSWER_SUSPECTS, self._pool, self._window)
        if len(self._pool) > 1:
            return self._isolate(held)
        self._pool = ()
        # Where there is one there may be more: the next death counts as the second.
        self._strikes, self._seen = 1, frozenset()
        self.quarantined += 1
        self.restarts_in_vain = 0
        if self.quarantined > self.max_restarts:
            return Decision(Action.GIVE_UP, reason=f"{self.quarantined} requests killed engines")
        return Decision(Action.QUARANTINE, held)
