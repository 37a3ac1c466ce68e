"""The NVIDIA cards of this machine, asked through NVML (the library behind nvidia-smi).

Nothing here starts a CUDA context or changes a setting. Every question may be one that an old
driver, a container or a virtual card does not answer: then its value is None.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import psutil

from scripts.llm_batch.machine.records import Gpu, GpuInventory, GpuProcess, MigInstance


def read_inventory() -> GpuInventory:
    """Return the cards of this machine; without driver or cards an inventory that says why."""
    try:
        import pynvml
    except ImportError as error:
        return GpuInventory(reason=f"nvidia-ml-py cannot be imported ({error})")
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        absent = error.value == pynvml.NVML_ERROR_LIBRARY_NOT_FOUND
        return GpuInventory(reason=_why(pynvml, error), broken=not absent)
    try:
        return _read(pynvml)
    except pynvml.NVMLError as error:
        reason = f"the NVIDIA driver does not answer ({error}); try nvidia-smi"
        return GpuInventory(reason=reason, broken=True)
    finally:
        pynvml.nvmlShutdown()


def _why(pynvml: Any, error: Any) -> str:
    if error.value == pynvml.NVML_ERROR_LIBRARY_NOT_FOUND:
        return "no NVIDIA driver (libnvidia-ml.so.1 is not there)"
    if error.value == pynvml.NVML_ERROR_DRIVER_NOT_LOADED:
        return "the NVIDIA driver is installed but not loaded; try nvidia-smi"
    if error.value == pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH:
        return "the NVIDIA driver was updated since the machine started; restart the machine"
    return f"the NVIDIA driver does not answer ({error}); try nvidia-smi"


def _read(pynvml: Any) -> GpuInventory:
    ask = _asker(pynvml)
    count = ask(pynvml.nvmlDeviceGetCount) or 0
    found = []
    for index in range(count):
        handle = ask(pynvml.nvmlDeviceGetHandleByIndex, index)
        if handle is not None:
            found.append((_text(pynvml.nvmlDeviceGetPciInfo(handle).busId), handle))
    found.sort(key=lambda pair: pair[0])
    handles = [handle for _, handle in found]
    gpus = tuple(_gpu(pynvml, place, bus, handle) for place, (bus, handle) in enumerate(found))
    cuda = ask(pynvml.nvmlSystemGetCudaDriverVersion)
    return GpuInventory(
        driver_version=_text(ask(pynvml.nvmlSystemGetDriverVersion)),
        cuda_version=f"{cuda // 1000}.{cuda % 1000 // 10}" if cuda else None,
        gpus=gpus,
        topology=_topology(pynvml, handles),
        reason=None if gpus else "the NVIDIA driver sees no GPU",
    )


def _asker(pynvml: Any) -> Callable[..., Any]:
    """Return a function that asks NVML and answers None where it does not know."""

    def ask(question: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return question(*arguments)
        except pynvml.NVMLError:
            return None

    return ask


def _text(value: Any) -> Any:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _gpu(pynvml: Any, place: int, bus: str, handle: Any) -> Gpu:
    ask = _asker(pynvml)
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
    utilization = ask(pynvml.nvmlDeviceGetUtilizationRates, handle)
    mode = ask(pynvml.nvmlDeviceGetMigMode, handle)
    mig = mode is not None and mode[0] == pynvml.NVML_DEVICE_MIG_ENABLE
    return Gpu(
        index=place,
        uuid=_text(pynvml.nvmlDeviceGetUUID(handle)),
        pci_bus_id=bus,
        name=_text(pynvml.nvmlDeviceGetName(handle)),
        compute_capability=f"{major}.{minor}",
        memory_total_bytes=int(memory.total),
        # What is reserved for the driver is neither free nor used by somebody.
        memory_used_bytes=int(memory.total) - int(memory.free),
        utilization_percent=None if utilization is None else int(utilization.gpu),
        processes=_processes(pynvml, handle),
        mig=mig,
        mig_instances=_mig_instances(pynvml, handle) if mig else (),
    )


def _processes(pynvml: Any, handle: Any) -> tuple[GpuProcess, ...]:
    ask = _asker(pynvml)
    # Drivers before 510 have only the second version of the question.
    found = ask(pynvml.nvmlDeviceGetComputeRunningProcesses_v3, handle)
    if found is None:
        found = ask(pynvml.nvmlDeviceGetComputeRunningProcesses_v2, handle) or []
    return tuple(
        GpuProcess(one.pid, *_owner(one.pid), one.usedGpuMemory)
        for one in sorted(found, key=lambda one: one.pid)
    )


def _owner(pid: int) -> tuple[str | None, str | None]:
    """Return user and name of a process, None for what its own container hides."""
    try:
        process = psutil.Process(pid)
        return process.username(), process.name()
    except (psutil.Error, KeyError):
        return None, None


def _mig_instances(pynvml: Any, handle: Any) -> tuple[MigInstance, ...]:
    ask = _asker(pynvml)
    slots = ask(pynvml.nvmlDeviceGetMaxMigDeviceCount, handle) or 0
    found = [ask(pynvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, slot) for slot in range(slots)]
    instances = []
    for instance in found:
        if instance is not None:
            memory = pynvml.nvmlDeviceGetMemoryInfo(instance)
            instances.append(
                MigInstance(
                    uuid=_text(pynvml.nvmlDeviceGetUUID(instance)),
                    name=_text(pynvml.nvmlDeviceGetName(instance)),
                    memory_total_bytes=int(memory.total),
                    memory_used_bytes=int(memory.total) - int(memory.free),
                )
            )
    return tuple(instances)


def _topology(pynvml: Any, handles: Sequence[Any]) -> tuple[tuple[str | None, ...], ...]:
    links = [_links(pynvml, handle) for handle in handles]
    return tuple(
        tuple(
            "X" if a == b else _joined(pynvml, handles, links, min(a, b), max(a, b))
            for b in range(len(handles))
        )
        for a in range(len(handles))
    )


def _links(pynvml: Any, handle: Any) -> dict[str, int]:
    """Return how many active NVLinks lead to each PCI address; those to switches under ""."""
    ask = _asker(pynvml)
    counts: dict[str, int] = {}
    for link in range(pynvml.NVML_NVLINK_MAX_LINKS):
        if ask(pynvml.nvmlDeviceGetNvLinkState, handle, link) != pynvml.NVML_FEATURE_ENABLED:
            continue
        kind = ask(pynvml.nvmlDeviceGetNvLinkRemoteDeviceType, handle, link)
        remote = ask(pynvml.nvmlDeviceGetNvLinkRemotePciInfo, handle, link)
        switched = kind == pynvml.NVML_NVLINK_DEVICE_TYPE_SWITCH or remote is None
        name = "" if switched else _text(remote.busId)
        counts[name] = counts.get(name, 0) + 1
    return counts


def _joined(
    pynvml: Any, handles: Sequence[Any], links: Sequence[dict[str, int]], a: int, b: int
) -> str | None:
    """Return how two cards are joined; all cards on NVLink switches are joined to each other."""
    ask = _asker(pynvml)
    other = _text(pynvml.nvmlDeviceGetPciInfo(handles[b]).busId)
    count = links[a].get(other) or min(links[a].get("", 0), links[b].get("", 0))
    if count:
        return f"NV{count}"
    levels = {
        pynvml.NVML_TOPOLOGY_INTERNAL: "PIX",
        pynvml.NVML_TOPOLOGY_SINGLE: "PIX",
        pynvml.NVML_TOPOLOGY_MULTIPLE: "PXB",
        pynvml.NVML_TOPOLOGY_HOSTBRIDGE: "PHB",
        pynvml.NVML_TOPOLOGY_NODE: "NODE",
        pynvml.NVML_TOPOLOGY_SYSTEM: "SYS",
    }
    return levels.get(ask(pynvml.nvmlDeviceGetTopologyCommonAncestor, handles[a], handles[b]))
