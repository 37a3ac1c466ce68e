"""Eight processes race for simulated GPUs through real locks, and are killed at random moments."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scripts.llm_batch.gpus.leases import Leases
from scripts.llm_batch.gpus.locks import LockFolder
from tests.gpus.simulated import simulated_inventory

ROOT = Path(__file__).parents[2]

LEASES = 200
KILLS = 20

MOST_OVERTAKEN = 8
"""Grants to jobs that came later. A racer says that it waits a moment before it has its ticket, so
each of the seven others may pass it there once; for a kill in between there is one to spare."""


class Race:
    """Eight racers; a killed one is replaced by another that wants as many cards."""

    def __init__(self, folder: Path, cards: int, sizes: list[int]) -> None:
        self.log = folder / "log.jsonl"
        self.log.touch()
        self._folder, self._cards = folder / "locks", cards
        self.killed: dict[int, float] = {}
        self.racers = [self._start(size) for size in sizes]
        self._sizes = sizes

    def _start(self, size: int) -> subprocess.Popen[bytes]:
        words = [self._folder, self._cards, size, 1_000_000, self.log]
        command = [sys.executable, "-m", "tests.gpus.racer", *map(str, words)]
        return subprocess.Popen(command, cwd=ROOT)

    def kill(self, place: int, replace: bool = True) -> None:
        """Kill a racer at whatever it does."""
        racer = self.racers[place]
        assert racer.poll() is None, "a racer ended by itself"
        self.killed[racer.pid] = time.monotonic()
        racer.send_signal(signal.SIGKILL)
        racer.wait()
        if replace:
            self.racers[place] = self._start(self._sizes[place])

    def events(self) -> list[dict[str, Any]]:
        """Return what the racers noted, in order."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def sizes_served(self) -> set[int]:
        """Return which sizes of leases there have been."""
        return {len(event["cards"]) for event in self.events() if event["event"] == "got"}


@pytest.fixture(params=[(2, [1, 1, 1, 1, 1, 1, 2, 2]), (3, [1, 1, 1, 1, 2, 2, 3, 3])])
def race(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Race]:
    cards, sizes = request.param
    race = Race(tmp_path, cards, sizes)
    deadline = time.monotonic() + 1200
    generator = random.Random(cards)
    while len(race.killed) < KILLS or count(race, "got") < LEASES:
        assert time.monotonic() < deadline, f"{count(race, 'got')} leases in twenty minutes"
        time.sleep(generator.random() * 0.2)
        if race.sizes_served() == set(sizes) and len(race.killed) < KILLS:
            race.kill(generator.randrange(len(sizes)))
    for place in range(len(sizes)):
        race.kill(place, replace=False)
    yield race


def count(race: Race, event: str) -> int:
    return sum(noted["event"] == event for noted in race.events())


def test_no_card_is_leased_twice_no_job_starves_and_nothing_leaks(
    race: Race, tmp_path: Path
) -> None:
    events = race.events()
    holder: dict[str, int] = {}
    for event in events:
        for card in event["cards"]:
            if event["event"] == "got":
                owner = holder.get(card)
                freed = race.killed.get(owner or 0, float("inf"))
                assert owner is None or freed <= event["at"], f"{card}: {owner} and {event['pid']}"
                holder[card] = event["pid"]
            else:
                assert holder.pop(card) == event["pid"]
    assert max(overtakings(events)) <= MOST_OVERTAKEN
    assert_nothing_leaked(race, tmp_path / "locks")


def overtakings(events: list[dict[str, Any]]) -> list[int]:
    """Return, for each lease, how many jobs got cards that began to wait after it."""
    since: dict[int, int] = {}
    granted: list[tuple[int, int]] = []
    for place, event in enumerate(events):
        if event["event"] == "waits":
            since[event["pid"]] = place
        elif event["event"] == "got":
            granted.append((since[event["pid"]], place))
    return [
        sum(came < other_came and other_place < place for other_came, other_place in granted)
        for came, place in granted
    ]


def assert_nothing_leaked(race: Race, folder: Path) -> None:
    """All cards can be had at once, at once, and no ticket is left."""
    cards = 2 if len(set(race._sizes)) == 2 else 3
    open_before = len(list(Path("/proc/self/fd").iterdir()))
    leases = Leases(LockFolder(folder), lambda: simulated_inventory(cards), {}, "last", poll_s=9)
    with leases.lease(cards) as devices:
        assert len(devices) == cards
    assert len(list(Path("/proc/self/fd").iterdir())) == open_before
    assert not list(folder.glob("ticket-*"))
