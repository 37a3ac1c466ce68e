"""Which of the free GPUs an engine gets: those that are joined best."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from scripts.llm_batch.gpus.devices import Device

LEVELS = ("PIX", "PXB", "PHB", "NODE", "SYS")
"""How two cards reach each other without NVLink, from near to far."""

Topology = Sequence[Sequence[str | None]]

MOST_COMBINATIONS = 20_000
"""8 of 16 cards can be chosen in 12 870 ways, which takes a quarter of a second."""


def choose(free: Sequence[Device], count: int, topology: Topology) -> list[Device]:
    """Return `count` of the `free` devices, those whose worst link is best; the first in doubt.

    Cards of one model come first, for all wait for the slowest; then the worst link counts, which
    every layer crosses, then all links together.
    Fewer than `count` devices are returned as they are.
    """
    if len(free) <= count or count == 1:
        return list(free[:count])
    sets = itertools.islice(itertools.combinations(free, count), MOST_COMBINATIONS)
    return list(min(sets, key=lambda chosen: _cost(tuple(chosen), topology)))


def _cost(devices: Sequence[Device], topology: Topology) -> tuple[float, ...]:
    models = len({device.model for device in devices})
    lengths = [_distance(a.card, b.card, topology) for a, b in itertools.combinations(devices, 2)]
    return models, max(lengths), sum(lengths)


def _distance(a: int, b: int, topology: Topology) -> float:
    if a == b:
        return 0.0
    try:
        link = topology[a][b]
    except IndexError:
        link = None
    if link is None:
        return 1.0 + len(LEVELS)
    if link.startswith("NV"):
        # More links are nearer; the largest machines have 18 of them.
        return 1.0 / (1 + int(link[2:] or 1))
    return 1.0 + LEVELS.index(link) if link in LEVELS else 1.0 + len(LEVELS)
