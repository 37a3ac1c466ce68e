"""GPU time, energy and cost of a batch, from the facts of its shards and engine starts.

Everything adds up over restarts and resumed calls, because each engine start left a record. What
one part does not tell (no driver, an older record) makes the sum unknown, never smaller.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

HOUR_S = 3600.0

SHARING = (
    "The energy and the cost of a batch are shared out by output tokens: each run has those that "
    "were generated for it; answers reused from earlier batches cost it nothing here."
)
"""The rule by which runs get their part of a batch; a request of two runs counts in both."""


@dataclass(frozen=True)
class Usage:
    """GPU-seconds of a batch by what they went into, joules, output tokens, and money.

    `starting`: engines loading and compiling; `generating`; `other`: leased but neither, as while
    another engine compiles or this one stops; `idle`: a GPU of this batch without a shard, between
    two of them or at the end, while another GPU still works on the batch (under a scheduler GPUs
    go back at once, and there is none).
    """

    starting_s: float | None
    generating_s: float | None
    other_s: float | None
    idle_s: float | None
    energy_j: float | None
    tokens: int | None
    price: float | None

    @property
    def allocated_s(self) -> float | None:
        """All GPU-seconds."""
        return add([self.starting_s, self.generating_s, self.other_s, self.idle_s])

    def share(self, part: float | None) -> float | None:
        """Return the share of all GPU-seconds."""
        whole = self.allocated_s
        return part / whole if part is not None and whole else None

    @property
    def energy_of_1000_tokens_j(self) -> float | None:
        """Joules for a thousand output tokens, starts included."""
        if self.energy_j is None or not self.tokens:
            return None
        return 1000 * self.energy_j / self.tokens

    @property
    def cost(self) -> float | None:
        """Money for all GPU-seconds at the price of a GPU-hour."""
        if self.allocated_s is None or self.price is None:
            return None
        return self.price * self.allocated_s / HOUR_S

    def of_run(self, amount: float | None, generated_tokens: int | None) -> float | None:
        """Return a run's part of energy or cost; see `SHARING`."""
        if amount is None or generated_tokens is None or not self.tokens:
            return None
        return amount * generated_tokens / self.tokens


def add(values: Sequence[float | None]) -> float | None:
    """Return the sum, or None if there is nothing or anything unknown in it."""
    known = [value for value in values if value is not None]
    return sum(known) if known and len(known) == len(values) else None


def usage(shards: Sequence[Mapping[str, Any]], price: float | None) -> Usage | None:
    """Return the usage of a batch; None if none of its engines had a GPU."""
    starts = list(_starts(shards))
    if not starts or not any(gpus for gpus, _ in starts):
        return None
    tokens = add([start.get("completion_tokens") for _, start in starts])
    return Usage(
        starting_s=add([_times(gpus, _startup(start)) for gpus, start in starts]),
        generating_s=add([_times(gpus, start.get("generate_s") or 0.0) for gpus, start in starts]),
        other_s=_other(shards),
        idle_s=idle(shards),
        energy_j=add([(start.get("telemetry") or {}).get("energy_j") for _, start in starts]),
        tokens=None if tokens is None else int(tokens),
        price=price,
    )


def gpus_of(shard: Mapping[str, Any], start: Mapping[str, Any]) -> int:
    """Return how many GPUs an engine start had."""
    leased = (shard.get("gpu_lease") or {}).get("gpus")
    return int(leased or len(start.get("gpus") or []))


def _starts(shards: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for shard in shards:
        for start in shard.get("engines") or []:
            yield gpus_of(shard, start), start


def _times(gpus: int, seconds: float | None) -> float | None:
    return None if seconds is None else gpus * seconds


def _startup(start: Mapping[str, Any]) -> float | None:
    """Return the seconds until an engine was ready; all it ran for if it never was."""
    total = (start.get("startup_s") or {}).get("total")
    return start.get("wall_s") if total is None else total


def _other(shards: Sequence[Mapping[str, Any]]) -> float | None:
    return add([_other_of_shard(shard) for shard in shards if shard.get("engines")])


def _other_of_shard(shard: Mapping[str, Any]) -> float | None:
    """Return what engine starts took beyond starting and generating, and leases beyond them.

    Only the last call's lease is known; the starts of earlier calls were before it.
    """
    lease = shard.get("gpu_lease")
    left: list[float | None] = []
    held = None if lease is None else float(lease["held_s"])
    gpus = 0
    for start in shard["engines"]:
        gpus, wall = gpus_of(shard, start), start.get("wall_s")
        spent = add([_startup(start), start.get("generate_s") or 0.0])
        left.append(None if wall is None or spent is None else gpus * max(0.0, wall - spent))
        started = str(start.get("started") or "")
        if lease is not None and held is not None and started >= str(lease["since"]):
            held -= wall or 0.0
    if held is not None:
        left.append(gpus * max(0.0, held))
    return add(left)


def idle(shards: Sequence[Mapping[str, Any]]) -> float | None:
    """Return the GPU-seconds without a lease while another GPU worked on the same batch."""
    spans: dict[str, list[tuple[float, float]]] = {}
    for shard in shards:
        lease = shard.get("gpu_lease")
        if lease is None:
            continue
        if lease.get("scheduled"):
            return 0.0
        since = datetime.fromisoformat(lease["since"]).timestamp()
        for uuid in lease["uuids"]:
            spans.setdefault(uuid, []).append((since, since + float(lease["held_s"])))
    if not spans:
        # Where no driver names the GPUs nobody knows which of them waited.
        return None
    end = max(last for leases in spans.values() for _, last in leases)
    total = 0.0
    for leases in spans.values():
        at = min(leases)[0]
        for since, until in sorted(leases):
            total += max(0.0, since - at)
            at = max(at, until)
        total += end - at
    return total
