"""Leases: GPUs of this machine for one engine, all or none, for as long as its supervisor lives.

A lease is a lock for each GPU, named by its UUID, so it ends with the process however that ends,
and no engine inherits it. Several GPUs are taken at one moment under a mutex, so that two jobs
never hold half of what they need each.
"""

from __future__ import annotations

import getpass
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from scripts.llm_batch.errors import WorkflowError
from scripts.llm_batch.gpus.choice import choose
from scripts.llm_batch.gpus.devices import Device, busy_bytes, visible_devices
from scripts.llm_batch.gpus.locks import Lock, LockFolder, note_of, take
from scripts.llm_batch.gpus.queue import Ticket, Wish, ahead, join, reserved
from scripts.llm_batch.machine.records import GpuInventory

MUTEX = "mutex"
POLL_S = 1.0
REPEAT_S = 60.0
"""A waiting job says so at once, and then so often."""

log = logging.getLogger(__name__)


class Taken(NamedTuple):
    """Leased devices and their locks."""

    devices: list[Device]
    locks: list[Lock]

    def release(self) -> None:
        """Give all of them back."""
        for lock in self.locks:
            lock.release()


@dataclass
class Leases:
    """Hands out the GPUs of this machine.

    `read` returns its cards as they are now; `environ` restricts them; `check` is called while
    waiting, and may raise to stop that, `waiting` with the reason. `job` names the caller to
    others.
    """

    folder: LockFolder
    read: Callable[[], GpuInventory]
    environ: Mapping[str, str]
    job: str
    check: Callable[[], None] = lambda: None
    waiting: Callable[[str], None] = lambda reason: None
    poll_s: float = POLL_S
    _said_at: float = field(default=float("-inf"), init=False)

    @contextmanager
    def lease(self, count: int) -> Iterator[list[Device]]:
        """Yield `count` devices that nobody else has, after waiting for them if need be.

        Raises `WorkflowError` where there are not so many.
        """
        wish = Wish(count, frozenset(device.uuid for device in self._candidates(count)))
        with self.folder.opened() as folder:
            taken = self._wait(folder, wish)
        try:
            yield taken.devices
        finally:
            taken.release()

    def _candidates(self, count: int) -> Sequence[Device]:
        inventory = self.read()
        found = usable(visible_devices(inventory, self.environ), count)
        if len(found) < count:
            raise WorkflowError(too_few(count, len(found), inventory))
        return found

    def _wait(self, folder: int, wish: Wish) -> Taken:
        about = {"pid": os.getpid(), "user": _user(), "job": self.job, "since": time.time()}
        with _mutex(folder):
            ticket = join(folder, wish, about)
        try:
            while True:
                self.check()
                taken, reason = self._try(folder, wish, ticket)
                if taken is not None:
                    for lock in taken.locks:
                        lock.note({**about, "since": time.time()})
                    return taken
                self._say(reason)
                time.sleep(self.poll_s)
        finally:
            with _mutex(folder):
                ticket.give_up(folder)

    def _try(self, folder: int, wish: Wish, ticket: Ticket) -> tuple[Taken | None, str]:
        """Return the devices, or why there are none now."""
        inventory, own = self.read(), busy_bytes(self.environ)
        known = [d for d in visible_devices(inventory, self.environ) if d.uuid in wish.uuids]
        with _mutex(folder):
            before = ahead(folder, ticket)
            locks = {device.uuid: take(folder, lock_name(device)) for device in known}
            free = [device for device in known if locks[device.uuid] is not None]
            used = {d.uuid: user for d in free if (user := d.user(own)) is not None}
            free = [device for device in free if device.uuid not in used]
            kept = reserved(before, free, used, inventory.topology)
            mine = [device for device in free if device.uuid not in kept]
            chosen = choose(mine, wish.count, inventory.topology) if len(mine) >= wish.count else []
            names = {device.uuid for device in chosen}
            for uuid, lock in locks.items():
                if lock is not None and uuid not in names:
                    lock.release()
            leased = {d.uuid: note_of(folder, lock_name(d)) for d in known if not locks[d.uuid]}
        if not chosen:
            return None, _reason(wish, known, leased, used, kept)
        taken = Taken(chosen, [lock for uuid in names if (lock := locks[uuid])])
        # An engine whose supervisor was killed may have died after we looked, or not yet.
        if late := self._used_now(chosen):
            taken.release()
            return None, late
        return taken, ""

    def _used_now(self, chosen: Sequence[Device]) -> str:
        uuids = {device.uuid for device in chosen}
        now, own = visible_devices(self.read(), self.environ), busy_bytes(self.environ)
        users = {d.label: d.user(own) for d in now if d.uuid in uuids}
        return "; ".join(f"{label}: {user}" for label, user in users.items() if user)

    def _say(self, reason: str) -> None:
        self.waiting(reason)
        now = time.monotonic()
        if now - self._said_at > REPEAT_S:
            log.info("%s", reason)
            self._said_at = now


@contextmanager
def _mutex(folder: int) -> Iterator[None]:
    lock = take(folder, MUTEX, wait=True)
    try:
        yield
    finally:
        if lock is not None:
            lock.release()


def lock_name(device: Device) -> str:
    """Return the name of a device's lock; the slices' old names have slashes."""
    return "gpu-" + device.uuid.replace("/", "_")


def usable(found: Sequence[Device], count: int) -> list[Device]:
    """Return the devices that can serve an engine of `count`: several slices cannot be one."""
    return [device for device in found if count == 1 or not device.is_slice]


def too_few(count: int, found: int, inventory: GpuInventory) -> str:
    """Return the message for an engine that needs more GPUs than there are."""
    if not inventory.gpus:
        # Why a driver does not work comes with its own cure.
        cure = "" if inventory.broken else "; use environment cpu, or another machine"
        return f"the engine needs {count} GPU{'s' * (count > 1)}, and {inventory.reason}{cure}"
    there = len(inventory.gpus)
    hidden = f", CUDA_VISIBLE_DEVICES leaves {found}" if found != there else ""
    return (
        f"the engine needs {count} GPUs, this machine has {there}{hidden}; "
        "lower tensor_parallel_size × pipeline_parallel_size"
    )


def _reason(
    wish: Wish,
    known: Sequence[Device],
    leased: Mapping[str, Mapping[str, Any]],
    used: Mapping[str, str],
    kept: set[str],
) -> str:
    """Return why a job waits: what becomes of each device."""
    parts = []
    for device in known:
        if device.uuid in leased:
            parts.append(f"{device.label} leased by {_holder(leased[device.uuid])}")
        elif device.uuid in used:
            parts.append(f"{device.label} has {used[device.uuid]}")
        elif device.uuid in kept:
            parts.append(f"{device.label} kept for a job that came before")
        else:
            parts.append(f"{device.label} free")
    return f"waiting for {wish.count} of {len(known)} GPUs: {'; '.join(parts)}"


def _holder(note: Mapping[str, Any]) -> str:
    if not note:
        return "a job"
    return f"{note.get('job')} of {note.get('user')} (pid {note.get('pid')})"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
