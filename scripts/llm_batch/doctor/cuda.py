"""What NVIDIA says of drivers, CUDA versions and compiled code.

Three rules, which decide nearly everything:

- *Floor.* A driver supports every CUDA that is older, and the newest of its own time: `DRIVERS`.
  Source: CUDA Toolkit Release Notes, table "CUDA Toolkit and Corresponding Driver Versions"
  (docs.nvidia.com/cuda/cuda-toolkit-release-notes).
- *Minor-version compatibility.* From CUDA 11 on, a program built with a newer minor version runs
  on the first driver of the same major version (`FAMILIES`), as far as its code is compiled for
  the card. PTX of the newer version is not compiled by the older driver: "the provided PTX was
  compiled with an unsupported toolchain". Source: CUDA Compatibility, chapter "Minor Version
  Compatibility" (docs.nvidia.com/deploy/cuda-compatibility).
  Triton's kernels are no exception: it assembles its PTX with the ptxas of its own wheel (seen in
  triton 3.0.0 to 3.7.1), so the driver loads compiled code.
- *Binary compatibility.* Code compiled for compute capability X.y runs on X.z with z >= y and on no
  other major version. Source: CUDA C++ Programming Guide, chapter "Binary Compatibility".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from scripts.llm_batch.machine.records import GpuInventory

Version = tuple[int, ...]

DRIVERS: Mapping[str, str] = {
    "11.0": "450.51.06",
    "11.1": "455.32",
    "11.2": "460.32.03",
    "11.3": "465.19.01",
    "11.4": "470.42.01",
    "11.6": "510.47.03",
    "11.7": "515.43.04",
    "11.8": "520.61.05",
    "12.0": "525.60.13",
    "12.1": "530.30.02",
    "12.2": "535.54.03",
    "12.3": "545.23.06",
    "12.4": "550.54.14",
    "12.5": "555.42.02",
    "12.6": "560.28.03",
    "12.8": "570.26",
    "12.9": "575.51.03",
    "13.0": "580.65.06",
    "13.1": "590.44.01",
}
"""The oldest Linux driver that supports a CUDA version in full (its first release)."""

FAMILIES: Mapping[int, str] = {11: "450.80.02", 12: "525.60.13", 13: "580.65.06"}
"""The oldest Linux driver that runs compiled programs of any minor version of a CUDA."""


def version(text: str) -> Version:
    """Return a dotted version as numbers; what is not a number ends it."""
    numbers = []
    for part in text.split("."):
        if not part.isdigit():
            break
        numbers.append(int(part))
    return tuple(numbers)


def newer_or_equal(found: str, wanted: str) -> bool:
    """Tell whether dotted version `found` is at least `wanted`; missing parts count as 0."""
    pair = version(found), version(wanted)
    length = max(len(part) for part in pair)
    mine, theirs = (part + (0,) * (length - len(part)) for part in pair)
    return mine >= theirs


def supported_cuda(inventory: GpuInventory) -> str | None:
    """Return the newest CUDA that the driver supports: what it says, else what the table says."""
    if inventory.cuda_version or inventory.driver_version is None:
        return inventory.cuda_version
    driver = inventory.driver_version
    fitting = [cuda for cuda, floor in DRIVERS.items() if newer_or_equal(driver, floor)]
    return max(fitting, key=version, default=None)


def runs_on(compiled: Iterable[str], capability: str) -> bool:
    """Tell whether a card of compute capability `capability` runs code compiled for `compiled`."""
    major, minor = version(capability)
    return any(version(one)[0] == major and version(one)[1] <= minor for one in compiled)
