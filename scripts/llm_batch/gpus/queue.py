"""Who is next: the jobs that wait for GPUs of one machine, in the order in which they came.

A job that needs two cards must not wait for ever because jobs that need one are always quicker.
So every waiting job has a ticket, and a card that becomes free is kept for the earliest ticket it
can serve. A ticket is a lock: it is void when its process is gone.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scripts.llm_batch.gpus.choice import Topology, choose
from scripts.llm_batch.gpus.devices import Device
from scripts.llm_batch.gpus.locks import Lock, note_of, take

PREFIX = "ticket-"


@dataclass(frozen=True)
class Wish:
    """What a waiting job needs: `count` of the devices with these UUIDs."""

    count: int
    uuids: frozenset[str]


@dataclass(frozen=True)
class Ticket:
    """A place in the queue."""

    name: str
    lock: Lock

    def give_up(self, folder: int) -> None:
        """Leave the queue."""
        with contextlib.suppress(OSError):
            os.unlink(self.name, dir_fd=folder)
        self.lock.release()


def join(folder: int, wish: Wish, about: Mapping[str, Any]) -> Ticket:
    """Stand at the end of the queue; the caller holds the folder's mutex."""
    names = _names(folder)
    number = 1 + (int(names[-1].removeprefix(PREFIX)) if names else 0)
    name = f"{PREFIX}{number:012}"
    lock = take(folder, name)
    if lock is None:
        raise AssertionError(f"{name}: the mutex of the queue is not held")
    lock.note({**about, "count": wish.count, "uuids": sorted(wish.uuids)})
    return Ticket(name, lock)


def ahead(folder: int, ticket: Ticket) -> list[Wish]:
    """Return what the jobs before `ticket` need; tickets of dead jobs are thrown away."""
    wishes = []
    for name in _names(folder):
        if name >= ticket.name:
            break
        lock = take(folder, name, make=False)
        if lock is not None:
            # In a sticky folder another user's stays, and does no harm.
            Ticket(name, lock).give_up(folder)
        elif wish := _wish(note_of(folder, name)):
            wishes.append(wish)
    return wishes


def _names(folder: int) -> list[str]:
    return sorted(
        name
        for name in os.listdir(folder)
        if name.startswith(PREFIX) and name.removeprefix(PREFIX).isdigit()
    )


def _wish(note: Mapping[str, Any]) -> Wish | None:
    try:
        return Wish(int(note["count"]), frozenset(note["uuids"]))
    except (KeyError, TypeError, ValueError):
        return None


def reserved(
    before: Sequence[Wish], free: Sequence[Device], busy: Collection[str], topology: Topology
) -> set[str]:
    """Return the UUIDs of free devices that are kept for the jobs `before`.

    A job that cannot be served, because others use too many of its devices, keeps none.
    """
    kept: set[str] = set()
    for wish in before:
        if len(wish.uuids - set(busy)) < wish.count:
            continue
        left = [device for device in free if device.uuid in wish.uuids and device.uuid not in kept]
        kept.update(device.uuid for device in choose(left, wish.count, topology))
    return kept
