"""The GPUs of a shard's engine: chosen by a scheduler, or leased on this machine.

`CUDA_VISIBLE_DEVICES` is set before the worker starts, so vLLM sees no other card. A SLURM job
that has exactly the GPUs its engine needs got them from the scheduler: they are taken as they are,
without locks. One allocation for several engines is shared out by leases, as a machine is.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from scripts.llm_batch.errors import WorkflowError
from scripts.llm_batch.generate.settings import EngineSpec
from scripts.llm_batch.gpus.devices import VISIBLE, Device, visible_devices
from scripts.llm_batch.gpus.leases import Leases
from scripts.llm_batch.gpus.locks import lock_folder
from scripts.llm_batch.gpus.present import UNNAMED, inventory, scheduled_names
from scripts.llm_batch.gpus.sizes import parallel_size
from scripts.llm_batch.gpus.telemetry import Source, nvml_source
from scripts.llm_batch.machine.read import read_gpus


class Lease(NamedTuple):
    """GPUs to use: the variables that say so to an engine, and their UUIDs where known.

    `size` is their number, 0 for a CPU; `waited_s` are the seconds until they were granted, and
    `model` is what the driver calls the first of them; `scheduled` ones were chosen by SLURM.
    """

    environment: Mapping[str, str]
    uuids: tuple[str, ...]
    size: int = 0
    waited_s: float = 0.0
    model: str = "unknown"
    scheduled: bool = False

    def source(self) -> Source | None:
        """Return how to watch these GPUs, None where that is not possible."""
        return nvml_source(self.uuids) if self.uuids else None


def engine_size(spec: EngineSpec) -> int:
    """Return how many GPUs an engine takes, 0 on a CPU; a dummy only pretends to use them."""
    if spec.backend == "dummy":
        return int(spec.dummy.get("gpus") or 0)
    return 0 if spec.device == "cpu" else parallel_size(spec.args)


@contextmanager
def lease(
    count: int,
    job: str,
    environ: Mapping[str, str],
    check: Callable[[], None] = lambda: None,
    waiting: Callable[[str], None] = lambda reason: None,
) -> Iterator[Lease]:
    """Yield `count` GPUs for the shard `job`; nobody else gets them until the block ends.

    `check` and `waiting` are those of `Leases`. Raises `WorkflowError` if there are too few.
    """
    if not count:
        yield Lease({}, ())
        return
    scheduled = scheduled_names(environ)
    if scheduled is not None and len(scheduled) <= count:
        yield scheduled_lease(scheduled, count, environ)
        return
    restricted = dict(environ) if scheduled is None else {**environ, VISIBLE: ",".join(scheduled)}
    leases = Leases(
        lock_folder(environ),
        lambda: inventory(restricted),
        restricted,
        job,
        check,
        waiting,
    )
    began = time.monotonic()
    with leases.lease(count) as devices:
        yield _lease(devices, time.monotonic() - began)


def _lease(devices: Sequence[Device], waited_s: float) -> Lease:
    names = ",".join(device.name for device in devices)
    environment = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", VISIBLE: names}
    return Lease(environment, _uuids(devices), len(devices), round(waited_s, 3), devices[0].model)


def _uuids(devices: Sequence[Device]) -> tuple[str, ...]:
    return tuple(device.uuid for device in devices if not device.uuid.startswith(UNNAMED))


def scheduled_lease(names: Sequence[str], count: int, environ: Mapping[str, str]) -> Lease:
    """Return the GPUs that a scheduler chose; raises `WorkflowError` if they are too few."""
    value = ",".join(names)
    if len(names) < count:
        raise WorkflowError(
            f"the engine needs {count} GPUs, and SLURM gave job {environ['SLURM_JOB_ID']} "
            f"{len(names)} ({VISIBLE}={value}); ask for {count} (resources: gpu)"
        )
    lease = Lease({"CUDA_DEVICE_ORDER": "PCI_BUS_ID", VISIBLE: value}, (), count, scheduled=True)
    # Only for the facts: what the scheduler says counts, whatever the driver shows.
    with contextlib.suppress(WorkflowError):
        devices = visible_devices(read_gpus(environ), {VISIBLE: value})
        return lease._replace(uuids=_uuids(devices), model=devices[0].model)
    return lease
