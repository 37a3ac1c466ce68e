"""What an engine must be told of its environment: compiler, CUDA toolkit, what it lacks.

Decided once, when the environment is built, by what is in it and never by the machine, so that the
same environment runs the same kernels everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

PREFIX = "{prefix}"
"""Stands for the environment's folder, which can be moved."""

FLASHINFER = "flashinfer-python"


def engine_variables(folder: Path, packages: Mapping[str, str]) -> dict[str, str]:
    """Return environment variables for the engines of the environment in `folder`.

    `packages` are its Python packages. `PREFIX` in a value stands for the folder.
    """
    found = {}
    if (folder / "bin/gcc").is_symlink() and (folder / "bin/g++").is_symlink():
        # Modules of a cluster set these to compilers that nvcc and Triton may not take.
        found["CC"] = f"{PREFIX}/bin/gcc"
        found["CXX"] = f"{PREFIX}/bin/g++"
        found["NVCC_CCBIN"] = f"{PREFIX}/bin/g++"
    toolkit = cuda_toolkit(folder)
    if toolkit is not None:
        found["CUDA_HOME"] = str(Path(PREFIX) / toolkit)
    elif FLASHINFER in packages:
        # It compiles its sampler with nvcc when an engine starts, and fails without.
        found["VLLM_USE_FLASHINFER_SAMPLER"] = "0"
    return found


def cuda_toolkit(folder: Path) -> Path | None:
    """Return the folder of the environment, relative to it, that holds `bin/nvcc`; None without."""
    for pattern in ("bin/nvcc", "lib/python*/site-packages/nvidia/*/bin/nvcc"):
        for nvcc in sorted(folder.glob(pattern)):
            return nvcc.parent.parent.relative_to(folder)
    return None


def resolved(variables: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Return `variables` with the absolute path of `folder` in place of `PREFIX`."""
    return {name: value.replace(PREFIX, str(folder)) for name, value in variables.items()}
