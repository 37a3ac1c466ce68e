"""Simulated GPUs for tests: the cards are made up, the locks on them are real."""

from __future__ import annotations

from collections.abc import Sequence

from scripts.llm_batch.machine.records import Gpu, GpuInventory, GpuProcess, MigInstance

GIB = 1 << 30


def simulated_gpu(index: int, used_gib: float = 0.5, **changes: object) -> Gpu:
    """Return a card of 80 GiB."""
    values: dict[str, object] = {
        "index": index,
        "uuid": f"GPU-{index:08x}-0000-0000-0000-00000000000{index}",
        "pci_bus_id": f"00000000:{index + 1:02X}:00.0",
        "name": "Simulated GPU",
        "compute_capability": "9.0",
        "memory_total_bytes": 80 * GIB,
        "memory_used_bytes": int(used_gib * GIB),
        **changes,
    }
    return Gpu(**values)  # type: ignore[arg-type]


def simulated_process(memory_gib: float | None = 40.0, pid: int = 4711) -> GpuProcess:
    """Return a process of somebody else on a card."""
    memory = None if memory_gib is None else int(memory_gib * GIB)
    return GpuProcess(pid=pid, user="alice", name="python", memory_bytes=memory)


def simulated_slices(card: int, count: int) -> Gpu:
    """Return a card in MIG mode with `count` slices."""
    slices = tuple(
        MigInstance(f"MIG-{card}{number}aaaaaa-0000", "MIG 1g.10gb", 10 * GIB, 0)
        for number in range(count)
    )
    return simulated_gpu(card, mig=True, mig_instances=slices)


def simulated_inventory(
    gpus: int | Sequence[Gpu], links: Sequence[Sequence[str]] = ()
) -> GpuInventory:
    """Return a machine with these cards, joined as `links` says (in any order of the pair)."""
    cards = tuple(simulated_gpu(n) for n in range(gpus)) if isinstance(gpus, int) else tuple(gpus)
    reason = None if cards else "no NVIDIA driver (simulated)"
    return GpuInventory("580.0", "13.0", cards, tuple(map(tuple, links)), reason)
