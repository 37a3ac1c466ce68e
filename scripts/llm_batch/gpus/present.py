"""The GPUs that this process may use: those of the machine, or what a scheduler left of them."""

from __future__ import annotations

from collections.abc import Mapping

from scripts.llm_batch.gpus.devices import VISIBLE, visible_devices, visible_names
from scripts.llm_batch.machine.read import read_gpus
from scripts.llm_batch.machine.records import Gpu, GpuInventory

UNNAMED = "index-"
"""Prefix of what stands for a UUID where the driver cannot be asked."""


def inventory(environ: Mapping[str, str]) -> GpuInventory:
    """Return the GPUs of this machine; those that are named only, where no driver answers."""
    found = read_gpus(environ)
    names = visible_names(environ.get(VISIBLE, ""))
    if found.gpus or not names or not all(name.isdigit() for name in names):
        return found
    return GpuInventory(gpus=tuple(_unnamed(int(name)) for name in names))


def _unnamed(index: int) -> Gpu:
    return Gpu(index, f"{UNNAMED}{index}", "", "unknown GPU", "0.0", 0, 0)


def scheduled_names(environ: Mapping[str, str]) -> list[str] | None:
    """Return the GPUs that SLURM gave to this job, None where SLURM did not choose."""
    if not environ.get("SLURM_JOB_ID"):
        return None
    for name in (VISIBLE, "SLURM_STEP_GPUS", "SLURM_JOB_GPUS"):
        if value := environ.get(name):
            return visible_names(value)
    return None


def visible_count(environ: Mapping[str, str]) -> int:
    """Return how many GPUs this process may use, slices of cards in MIG mode counted one by one.

    Raises `WorkflowError` for a `CUDA_VISIBLE_DEVICES` that names what is not there.
    """
    scheduled = scheduled_names(environ)
    if scheduled is not None:
        return len(scheduled)
    return len(visible_devices(inventory(environ), environ))
