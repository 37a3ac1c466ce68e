"""A machine as plain records, and their JSON: what is read here can be replayed elsewhere.

Sizes are bytes, versions the dotted text that the tool itself prints, lists of GPUs in the order
of their PCI bus addresses (what `CUDA_DEVICE_ORDER=PCI_BUS_ID` counts). None means that nobody
could tell, never zero.
"""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from scripts.llm_batch.errors import WorkflowError

Record = TypeVar("Record")

THIS_MACHINE = "this machine"


@dataclass(frozen=True)
class GpuProcess:
    """A process that holds memory of a GPU; `user` and `name` are None across containers."""

    pid: int
    user: str | None
    name: str | None
    memory_bytes: int | None


@dataclass(frozen=True)
class MigInstance:
    """A slice of a GPU (Multi-Instance GPU); CUDA takes its `uuid` in place of an index."""

    uuid: str
    name: str
    memory_total_bytes: int
    memory_used_bytes: int


@dataclass(frozen=True)
class Gpu:
    """One card.

    `index` is its place in PCI bus order, `compute_capability` for example "9.0",
    `utilization_percent` the share of the last sampling period with a kernel running (0 to 100).
    While `mig` is on, only the slices in `mig_instances` can be used, one by each process.
    """

    index: int
    uuid: str
    pci_bus_id: str
    name: str
    compute_capability: str
    memory_total_bytes: int
    memory_used_bytes: int
    utilization_percent: int | None = None
    processes: tuple[GpuProcess, ...] = ()
    mig: bool = False
    mig_instances: tuple[MigInstance, ...] = ()

    @property
    def memory_free_bytes(self) -> int:
        """Return what a new process can take."""
        return self.memory_total_bytes - self.memory_used_bytes

    @property
    def capability(self) -> tuple[int, int]:
        """Return the compute capability as numbers, for comparisons."""
        major, _, minor = self.compute_capability.partition(".")
        return int(major), int(minor)


@dataclass(frozen=True)
class GpuInventory:
    """All cards of a machine.

    `cuda_version` is the newest CUDA that the driver supports, what nvidia-smi shows.
    `topology[i][j]` says how cards i and j are joined, in the words of `nvidia-smi topo --matrix`:
    `X` itself, `NV<links>`, `PIX`, `PXB`, `PHB`, `NODE`, `SYS`, None if unknown; from near to far.
    `reason` says why there is no card, None if there is one; `broken` is a driver that is there but
    does not answer, so that nobody knows whether there are cards.
    """

    driver_version: str | None = None
    cuda_version: str | None = None
    gpus: tuple[Gpu, ...] = ()
    topology: tuple[tuple[str | None, ...], ...] = ()
    reason: str | None = None
    broken: bool = False


@dataclass(frozen=True)
class Tool:
    """A program on PATH and the version it prints."""

    path: str
    version: str | None


@dataclass(frozen=True)
class Disk:
    """The disk that holds `path`, which itself need not exist yet."""

    path: str
    free_bytes: int


HubLogin = Literal["HF_TOKEN", "token file", "none"]


@dataclass(frozen=True)
class Machine:
    """Everything that decides which environments run here.

    `origin` is "this machine", or says where a replayed record comes from. `libc` is the C
    library's name, `glibc` its version. `compiler` is the C compiler that Triton would call,
    `nvcc` the CUDA compiler. `hub_login` says where a token was found, never the token.
    """

    origin: str
    inventory: GpuInventory
    system: str
    architecture: str
    python: str
    libc: str
    glibc: str | None
    cpu: str | None
    cpu_flags: tuple[str, ...]
    memory_bytes: int | None
    nvcc: Tool | None
    compiler: Tool | None
    results_disk: Disk
    hub_disk: Disk
    hub_login: HubLogin

    @property
    def gpus(self) -> tuple[Gpu, ...]:
        """Return the cards, in PCI bus order."""
        return self.inventory.gpus

    @property
    def is_this(self) -> bool:
        """Tell whether this was read from the machine at hand, not from a file."""
        return self.origin == THIS_MACHINE


def to_json(record: Any) -> dict[str, Any]:
    """Return a record as JSON values; `from_json` is the way back."""
    values = json.loads(json.dumps(asdict(record)))
    return dict(values)


def from_json(kind: type[Record], value: Mapping[str, Any], where: str = "$") -> Record:
    """Return the record of type `kind` that `to_json` wrote as `value`.

    Raises `WorkflowError` naming the place for a key that is missing, unknown or of another type.
    """
    if not isinstance(value, Mapping):
        raise WorkflowError(f"{where}: expected a mapping, found {type(value).__name__}")
    hints = typing.get_type_hints(kind)
    known = fields(kind)  # type: ignore[arg-type]
    unknown = sorted(set(value) - {field.name for field in known})
    if unknown:
        raise WorkflowError(f"{where}: unknown key '{unknown[0]}'; remove it")
    made = {}
    for field in known:
        if field.name in value:
            at = f"{where}.{field.name}"
            made[field.name] = _value(hints[field.name], value[field.name], at)
        elif field.default is MISSING:
            raise WorkflowError(f"{where}: the key '{field.name}' is missing; add it")
    return kind(**made)


def _value(kind: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:
        (inner,) = [one for one in arguments if one is not type(None)]
        return None if value is None else _value(inner, value, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise WorkflowError(f"{where}: expected a list, found {type(value).__name__}")
        return tuple(_value(arguments[0], one, f"{where}[{i}]") for i, one in enumerate(value))
    if is_dataclass(kind):
        return from_json(typing.cast(type[Any], kind), value, where)
    if origin is Literal:
        if value not in arguments:
            raise WorkflowError(f"{where}: expected one of {', '.join(arguments)}, found {value!r}")
    elif type(value) is not kind:
        raise WorkflowError(f"{where}: expected {kind.__name__}, found {type(value).__name__}")
    return value


def load_record(kind: type[Record], path: Path) -> Record:
    """Return the record of type `kind` in a JSON file; raise `WorkflowError` with the place."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise WorkflowError(f"{path}: not a record of a machine ({error})") from None
    return from_json(kind, value, str(path))
