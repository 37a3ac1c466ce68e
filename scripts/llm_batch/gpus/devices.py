"""What can be handed out on a machine: whole cards, or slices of those in MIG mode.

`CUDA_VISIBLE_DEVICES` restricts the choice as CUDA reads it: places in PCI bus order, UUIDs or
their beginnings, and the UUIDs of slices. A name that is not there is an error here; CUDA itself
would silently drop it and all that follow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scripts.llm_batch.errors import WorkflowError
from scripts.llm_batch.machine.records import Gpu, GpuInventory, GpuProcess

VISIBLE = "CUDA_VISIBLE_DEVICES"

LEAST_BUSY_BYTES = 1 << 30
LEAST_BUSY_SHARE = 0.02
"""A card counts as used beyond this much memory. Idle ones show up to 0.6 GiB (H100): the driver's
own. vLLM takes 92 % by default, so that less than this never is in its way."""

PROCESS_BYTES = 100 << 20
"""A process beyond this computes; the MPS server, for instance, holds 30 MiB."""

BUSY_VARIABLE = "LLM_BATCH_BUSY_MIB"
"""The user's own limit in place of all three, for a card that draws a desktop, say."""


@dataclass(frozen=True)
class Device:
    """A card or a slice. `name` is what CUDA_VISIBLE_DEVICES calls it, `card` its card's place."""

    uuid: str
    name: str
    card: int
    model: str
    total_bytes: int
    used_bytes: int
    processes: tuple[GpuProcess, ...] = ()

    @property
    def is_slice(self) -> bool:
        """Tell whether it is a slice of a card in MIG mode."""
        return self.name == self.uuid

    @property
    def label(self) -> str:
        """Return how messages call it."""
        return f"GPU {self.card}" + (f" ({self.uuid})" if self.is_slice else "")

    def user(self, own: int | None = None) -> str | None:
        """Return who uses it, None if it is free; leases are not looked at.

        `own` is the user's limit, see `busy_bytes`.
        """
        least = PROCESS_BYTES if own is None else own
        working = [
            process
            for process in self.processes
            if (process.memory_bytes is None and own is None)
            or (process.memory_bytes or 0) >= least
        ]
        limit = max(LEAST_BUSY_BYTES, LEAST_BUSY_SHARE * self.total_bytes) if own is None else own
        if not working and self.used_bytes <= limit:
            return None
        memory = f"{self.used_bytes / (1 << 30):.1f} GiB in use"
        names = [_words(process) for process in working]
        return f"{memory} by {', '.join(names) or 'a process that cannot be seen from here'}"


def busy_bytes(environ: Mapping[str, str]) -> int | None:
    """Return the memory in use from which a card counts as used, if the user has set one."""
    value = environ.get(BUSY_VARIABLE, "").strip()
    if not value:
        return None
    if not value.isdigit():
        raise WorkflowError(f"{BUSY_VARIABLE}={value}: expected MiB as a whole number; 4096, say")
    return int(value) << 20


def _words(process: GpuProcess) -> str:
    owner = f" of {process.user}" if process.user else ""
    return f"{process.name or 'process'}{owner} (pid {process.pid})"


def devices(inventory: GpuInventory) -> tuple[Device, ...]:
    """Return all that can be handed out, in PCI bus order."""
    return tuple(device for gpu in inventory.gpus for device in _of_card(gpu))


def _of_card(gpu: Gpu) -> list[Device]:
    if not gpu.mig:
        # A number, for every vLLM reads those; the first ones do not read UUIDs.
        name = str(gpu.index)
        memory = (gpu.memory_total_bytes, gpu.memory_used_bytes)
        return [Device(gpu.uuid, name, gpu.index, gpu.name, *memory, gpu.processes)]
    return [
        Device(
            slice_.uuid,
            slice_.uuid,
            gpu.index,
            slice_.name,
            slice_.memory_total_bytes,
            slice_.memory_used_bytes,
        )
        for slice_ in gpu.mig_instances
    ]


def visible_devices(inventory: GpuInventory, environ: Mapping[str, str]) -> tuple[Device, ...]:
    """Return the devices that `CUDA_VISIBLE_DEVICES` leaves, in its order; all without it.

    Raises `WorkflowError` for a name that is not on this machine.
    """
    found = devices(inventory)
    value = environ.get(VISIBLE)
    if value is None:
        return found
    chosen: list[Device] = []
    for name in visible_names(value):
        for device in _named(name, found):
            if device not in chosen:
                chosen.append(device)
    return tuple(chosen)


def visible_names(value: str) -> list[str]:
    """Return the names in a value of `CUDA_VISIBLE_DEVICES`; "" and "-1" are CUDA's "none"."""
    names = [name.strip() for name in value.split(",")]
    return [] if names[0] in ("", "-1", "NoDevFiles", "none") else [name for name in names if name]


def _named(name: str, found: Sequence[Device]) -> list[Device]:
    if name.isdigit():
        # The slices of a card in MIG mode: CUDA would take the first of them.
        matches = [device for device in found if device.card == int(name)]
    else:
        wanted = name.lower()
        matches = [device for device in found if device.uuid.lower().startswith(wanted)]
        if len(matches) > 1:
            raise WorkflowError(
                f"{VISIBLE}: {name} is the beginning of {len(matches)} UUIDs; write more of it"
            )
    if not matches:
        there = ", ".join(f"{device.card} = {device.uuid}" for device in found) or "none"
        raise WorkflowError(f"{VISIBLE}: no GPU {name} on this machine; there is: {there}")
    return matches
