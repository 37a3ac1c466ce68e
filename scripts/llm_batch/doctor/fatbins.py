"""Which GPUs a compiled library has code for, read from the library itself.

nvcc puts the code for all GPUs of a build into *fat binaries*: a header of 16 bytes (magic number
0xBA55ED50), then entries, each either ready machine code for one compute capability (`cubin`) or
assembly that the driver compiles on the machine (`PTX`). An entry's header tells kind, size, the
version of its format and the compute capability. NVIDIA does not document the layout; it is what
`cuobjdump --list-elf --list-ptx` prints of, and it has been the same from CUDA 11 to 13.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

MAGIC = b"\x50\xed\x55\xba"

_HEADER = struct.Struct("<IHHQ")
_ENTRY = struct.Struct("<HHIQIIHHI")
_PTX, _CUBIN = 1, 2
_NEWEST = 1000
"""No compute capability is near 100.0: a larger number is no entry."""

PTX_CUDA = {
    "7.8": "11.8", "8.0": "12.0", "8.1": "12.1", "8.2": "12.2", "8.3": "12.3", "8.4": "12.4",
    "8.5": "12.6", "8.6": "12.7", "8.7": "12.8", "8.8": "12.9", "9.0": "13.0", "9.1": "13.1",
}  # fmt: skip
"""The newest CUDA that writes each version of PTX. Source: "PTX ISA", chapter "Release Notes"."""


class Code(NamedTuple):
    """The compute capabilities of one library, and the CUDA that wrote its PTX (None: has none)."""

    cubin: tuple[str, ...]
    ptx: tuple[str, ...]
    cuda: str | None


def read_code(library: bytes) -> Code:
    """Return which GPUs `library` (the bytes of a .so file) has code for."""
    cubin: set[int] = set()
    ptx: set[int] = set()
    versions: set[tuple[int, int]] = set()
    for kind, version, capability in _entries(library):
        (cubin if kind == _CUBIN else ptx).add(capability)
        if kind == _PTX:
            versions.add(version)
    newest = max(versions, default=None)
    cuda = None if newest is None else PTX_CUDA.get(f"{newest[0]}.{newest[1]}")
    return Code(_dotted(cubin), _dotted(ptx), cuda)


def _dotted(capabilities: set[int]) -> tuple[str, ...]:
    return tuple(f"{number // 10}.{number % 10}" for number in sorted(capabilities))


def _entries(library: bytes) -> Iterator[tuple[int, tuple[int, int], int]]:
    """Yield kind, version and compute capability (times ten) of each entry."""
    place = library.find(MAGIC)
    while place >= 0:
        end = place + len(MAGIC)
        if place + _HEADER.size <= len(library):
            _, version, header, size = _HEADER.unpack_from(library, place)
            if version == 1 and header == _HEADER.size:
                end = place + header + size
                yield from _body(library, place + header, min(end, len(library)))
        place = library.find(MAGIC, end)


def _body(library: bytes, place: int, end: int) -> Iterator[tuple[int, tuple[int, int], int]]:
    while place + _ENTRY.size <= end:
        fields = _ENTRY.unpack_from(library, place)
        kind, header, size, minor, major, capability = (fields[i] for i in (0, 2, 3, 6, 7, 8))
        if kind not in (_PTX, _CUBIN) or header < _ENTRY.size or capability > _NEWEST:
            return
        yield kind, (major, minor), capability
        place += header + size
