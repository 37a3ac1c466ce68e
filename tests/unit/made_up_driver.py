"""A made-up NVML: answers what nvidia-ml-py would, for cards that are not there."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pynvml


@dataclass
class Card:
    """One made-up card; `links` maps the place of another card, or "switch", to NVLinks."""

    bus: str
    name: str = "Made-up GPU"
    capability: tuple[int, int] = (9, 0)
    total: int = 80 << 30
    free: int = 79 << 30
    links: dict[int | str, int] = field(default_factory=dict)
    processes: list[tuple[int, int]] = field(default_factory=list)
    slices: list[int] = field(default_factory=list)
    far: int = pynvml.NVML_TOPOLOGY_SYSTEM


class MadeUpDriver:
    """Stands in for the functions of `pynvml`; `missing` names those the driver is too old for."""

    def __init__(self, cards: list[Card], missing: frozenset[str] = frozenset()) -> None:
        self.cards = cards
        self.missing = missing
        self.open = 0

    def install(self, monkeypatch: Any) -> None:
        """Put every method whose name begins with `nvml` in place of the library's."""
        for name in dir(self):
            if name.startswith("nvml"):
                monkeypatch.setattr(pynvml, name, self._guarded(name))

    def _guarded(self, name: str) -> Any:
        method = getattr(self, name)

        def call(*arguments: Any) -> Any:
            if name in self.missing:
                raise pynvml.NVMLError(pynvml.NVML_ERROR_FUNCTION_NOT_FOUND)
            return method(*arguments)

        return call

    def nvmlInit(self) -> None:  # noqa: N802
        self.open += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.open -= 1

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        return "580.65.06"

    def nvmlSystemGetCudaDriverVersion(self) -> int:  # noqa: N802
        return 13000

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self.cards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Card:  # noqa: N802
        return self.cards[index]

    def nvmlDeviceGetPciInfo(self, card: Card) -> Any:  # noqa: N802
        return SimpleNamespace(busId=card.bus.encode())

    def nvmlDeviceGetUUID(self, card: Any) -> str:  # noqa: N802
        return f"GPU-{card.bus}" if isinstance(card, Card) else f"MIG-{card.total}"

    def nvmlDeviceGetName(self, card: Any) -> str:  # noqa: N802
        return str(card.name)

    def nvmlDeviceGetCudaComputeCapability(self, card: Card) -> tuple[int, int]:  # noqa: N802
        return card.capability

    def nvmlDeviceGetMemoryInfo(self, card: Any) -> Any:  # noqa: N802
        return SimpleNamespace(total=card.total, free=card.free, used=0)

    def nvmlDeviceGetUtilizationRates(self, card: Card) -> Any:  # noqa: N802
        return SimpleNamespace(gpu=37, memory=1)

    def nvmlDeviceGetMigMode(self, card: Card) -> tuple[int, int]:  # noqa: N802
        return (1, 1) if card.slices else (0, 0)

    def nvmlDeviceGetMaxMigDeviceCount(self, card: Card) -> int:  # noqa: N802
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, card: Card, slot: int) -> Any:  # noqa: N802
        if slot >= len(card.slices):
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        size = card.slices[slot]
        return SimpleNamespace(total=size, free=size, name=f"{card.name} MIG")

    def _processes(self, card: Card) -> list[Any]:
        return [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in card.processes]

    def nvmlDeviceGetComputeRunningProcesses_v3(self, card: Card) -> list[Any]:  # noqa: N802
        return self._processes(card)

    def nvmlDeviceGetComputeRunningProcesses_v2(self, card: Card) -> list[Any]:  # noqa: N802
        return self._processes(card)

    def _ends(self, card: Card) -> list[int | str]:
        return [end for end, count in card.links.items() for _ in range(count)]

    def nvmlDeviceGetNvLinkState(self, card: Card, link: int) -> int:  # noqa: N802
        return int(link < len(self._ends(card)))

    def nvmlDeviceGetNvLinkRemoteDeviceType(self, card: Card, link: int) -> int:  # noqa: N802
        switch = self._ends(card)[link] == "switch"
        kind = pynvml.NVML_NVLINK_DEVICE_TYPE_SWITCH if switch else 0
        return int(kind)

    def nvmlDeviceGetNvLinkRemotePciInfo(self, card: Card, link: int) -> Any:  # noqa: N802
        end = self._ends(card)[link]
        return SimpleNamespace(busId="switch" if end == "switch" else self.cards[int(end)].bus)

    def nvmlDeviceGetTopologyCommonAncestor(self, one: Card, other: Card) -> int:  # noqa: N802
        return one.far
