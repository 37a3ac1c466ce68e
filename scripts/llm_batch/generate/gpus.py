"""The GPUs of an engine.

For now the supervisor obeys `CUDA_VISIBLE_DEVICES`, set by the user or a scheduler. Leases on one
machine (a lock a GPU, in PCI bus order) belong into `lease`, the one place that hands out GPUs.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

log = logging.getLogger(__name__)


class Lease(NamedTuple):
    """GPUs to use: the variables that say so to an engine, and the UUIDs for the facts."""

    environment: Mapping[str, str]
    uuids: tuple[str, ...]


@contextmanager
def lease(device: str, inherited: Mapping[str, str]) -> Iterator[Lease]:
    """Yield the GPUs that an engine may use, none for a CPU."""
    if device == "cpu":
        yield Lease({}, ())
        return
    visible = inherited.get("CUDA_VISIBLE_DEVICES")
    chosen = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    yield Lease({"CUDA_DEVICE_ORDER": "PCI_BUS_ID", **chosen}, gpu_uuids(visible))


def gpu_uuids(visible: str | None) -> tuple[str, ...]:
    """Return the UUIDs of the GPUs in `visible` (None: all), empty without a driver."""
    try:
        import pynvml

        pynvml.nvmlInit()
        count = pynvml.nvmlDeviceGetCount()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(count)]
        found = [str(pynvml.nvmlDeviceGetUUID(handle)) for handle in handles]
    except (ImportError, pynvml.NVMLError) as error:
        log.info("GPUs are not recorded: %s", error)
        return ()
    if visible is None:
        return tuple(found)
    names = [name.strip() for name in visible.split(",") if name.strip()]
    return tuple(
        found[int(name)] if name.isdigit() and int(name) < len(found) else name for name in names
    )
