"""What `envs/<name>.yaml` and the conda layer say about where an environment can run."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from scripts.llm_batch.environments.identity import environment_names, pin_path
from scripts.llm_batch.errors import ConfigError

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_CONDA = re.compile(r"/(?P<name>[^/]+)-(?P<version>[^-/]+)-[^-/]+\.(?:conda|tar\.bz2)")


@dataclass(frozen=True)
class Variant:
    """One environment as the doctor sees it.

    `cuda` is torch's (None: a build for CPUs), `vllm_cuda` what vLLM itself was built with.
    `torch_code` and `vllm_code` are the compute capabilities with compiled code, empty if unknown.
    `driver_minimum` is enough for compiled code, `driver_full` for PTX too.
    `brings` are the compilers in its layers.
    """

    name: str
    platform: str
    glibc: str | None
    vllm: str
    vllm_cuda: str | None
    vllm_code: tuple[str, ...]
    torch: str | None
    cuda: str | None
    torch_code: tuple[str, ...]
    measured: bool
    driver_minimum: str | None
    driver_full: str | None
    brings: frozenset[str]
    programs: Mapping[str, str]
    megabytes: int

    @property
    def is_cpu(self) -> bool:
        """Tell whether its engine computes on the CPU."""
        return self.cuda is None


def load_variants(envs_dir: Path) -> list[Variant]:
    """Return every environment that can be built, the one with the newest CUDA first."""
    variants = [load_variant(name, envs_dir) for name in environment_names(envs_dir)]
    return sorted(variants, key=age)


def age(variant: Variant) -> tuple[float, str]:
    """Order variants from the newest CUDA to the oldest, builds for CPUs last."""
    return (-float(variant.cuda or 0), variant.name)


def load_variant(name: str, envs_dir: Path, conda: bool = True) -> Variant:
    """Return one environment, with or without its conda layer.

    Raises `ConfigError` if its description cannot be read.
    """
    path = envs_dir / f"{name}.yaml"
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
        vllm, torch = _section(raw, "vllm"), _section(raw, "torch")
        driver = _section(raw, "driver")
        return Variant(
            name=str(raw["name"]),
            platform=str(raw["platform"]),
            glibc=_text(raw.get("glibc")),
            vllm=str(vllm["version"]),
            vllm_cuda=_text(vllm.get("cuda")),
            vllm_code=_texts(vllm.get("compute_capabilities")),
            torch=_text(torch.get("version")),
            cuda=_text(torch.get("cuda")),
            torch_code=_texts(torch.get("compute_capabilities")),
            measured=bool(raw.get("kernels_measured", False)),
            driver_minimum=_text(driver.get("minimum")),
            driver_full=_text(driver.get("full")),
            brings=_compilers(raw, pin_path(name, envs_dir) if conda else None),
            programs=_section(raw, "programs"),
            megabytes=int(raw.get("megabytes") or 0),
        )
    except (AttributeError, KeyError, OSError, TypeError, ValueError, yaml.YAMLError) as error:
        detail = " ".join(str(error).split())
        raise ConfigError(f"{path}: not a description of an environment ({detail})") from None


def _section(raw: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    return raw.get(key) or {}


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _texts(values: Iterable[Any] | None) -> tuple[str, ...]:
    return tuple(str(value) for value in values or ())


def _compilers(raw: Mapping[str, Any], pins: Path | None) -> frozenset[str]:
    """Return which of gcc and nvcc the wheels or the conda layer (`pins`) bring."""
    brings = {"nvcc"} if raw.get("nvcc") else set()
    if pins is not None and pins.is_file():
        text = pins.read_text(encoding="utf-8")
        names = {found["name"] for found in _CONDA.finditer(text)}
        brings |= {"gcc"} if "gcc_linux-64" in names else set()
        brings |= {"nvcc"} if "cuda-nvcc" in names else set()
    return frozenset(brings)
