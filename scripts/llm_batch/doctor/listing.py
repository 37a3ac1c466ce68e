"""The doctor's findings as text for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from scripts.llm_batch.doctor.choose import Choice
from scripts.llm_batch.doctor.cuda import supported_cuda
from scripts.llm_batch.doctor.examine import Examination, notes
from scripts.llm_batch.doctor.verdicts import ExaminedEngine
from scripts.llm_batch.machine.records import Gpu, Machine, Tool

LABEL = 13
WORDS = {"runs": "runs", "limited": "limited", "no": "NO"}


def listing(examination: Examination, engines: Sequence[ExaminedEngine], width: int) -> str:
    """Return all findings, each line at most `width` characters wide where words allow."""
    lines = [*_machine(examination.machine), ""]
    lines += _environments(examination)
    if engines:
        lines += ["", *_engines(engines)]
    lines.append("")
    auto = examination.auto
    lines.append(str(auto) if isinstance(auto, Choice) else auto)
    lines += [f"note: {note}" for note in notes(examination.machine)]
    return "\n".join(_wrapped(line, width) for line in lines)


def _wrapped(line: str, width: int) -> str:
    if len(line) <= width:
        return line
    indent = " " * LABEL
    return textwrap.fill(
        line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def _machine(machine: Machine) -> Iterator[str]:
    if not machine.is_this:
        yield _line("SIMULATED", machine.origin)
    libc = f"{machine.libc} {machine.glibc or ''}".strip()
    memory = f", {machine.memory_bytes / 1e9:.0f} GB memory" if machine.memory_bytes else ""
    yield _line(
        "system",
        f"{machine.system} {machine.architecture}, {libc}, Python {machine.python}, "
        f"{machine.cpu or 'unknown processor'}{memory}",
    )
    inventory = machine.inventory
    driver, cuda = inventory.driver_version, supported_cuda(inventory)
    yield _line("driver", f"{driver}, supports CUDA {cuda or '?'}" if driver else "none")
    yield _line("nvcc", _tool(machine.nvcc))
    yield _line("C compiler", _tool(machine.compiler))
    yield _line(
        "disk",
        f"{machine.results_disk.free_bytes / 1e9:.1f} GB free for {machine.results_disk.path}, "
        f"{machine.hub_disk.free_bytes / 1e9:.1f} GB for models in {machine.hub_disk.path}",
    )
    yield _line("hub login", machine.hub_login)
    for gpu in machine.gpus:
        yield _line(f"GPU {gpu.index}", _gpu(gpu))
    if not machine.gpus:
        yield _line("GPU", inventory.reason or "none")


def _line(label: str, text: str) -> str:
    return f"{label:{LABEL}}{text}"


def _tool(tool: Tool | None) -> str:
    return "none" if tool is None else f"{tool.version or 'unknown version'} ({tool.path})"


def _gpu(gpu: Gpu) -> str:
    busy = "" if gpu.utilization_percent is None else f", {gpu.utilization_percent} % busy"
    return (
        f"{gpu.name}, compute capability {gpu.compute_capability}, "
        f"{gpu.memory_free_bytes / 1e9:.1f} of {gpu.memory_total_bytes / 1e9:.1f} GB free{busy}"
        f"{', in slices (MIG)' if gpu.mig else ''}"
    )


def _environments(examination: Examination) -> Iterator[str]:
    rows = [("environment", "torch", "vLLM, for CUDA", "built", "verdict", "")]
    for verdict in examination.verdicts:
        variant = verdict.variant
        built = examination.built.get(variant.name)
        rows.append(
            (
                variant.name,
                variant.torch or "?",
                f"{variant.vllm}, {variant.vllm_cuda or 'none'}",
                _built(built.torch, built.cuda) if built else "no",
                WORDS[verdict.status],
                verdict.reason,
            )
        )
    yield from _table(rows)


def _engines(engines: Sequence[ExaminedEngine]) -> Iterator[str]:
    rows = [("engine", "environment", "GPUs", "verdict", "")]
    for engine in engines:
        verdict = "NO" if engine.findings else "possible"
        reasons = "; ".join(map(str, engine.findings))
        rows.append((engine.name, engine.environment, str(engine.gpus), verdict, reasons))
    yield from _table(rows)


def _built(torch: str | None, cuda: str | None) -> str:
    return f"torch {torch or '?'}, CUDA {cuda or 'none'}"


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield a line for each row; the last cell, a sentence, is on a line of its own."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)][:-1]
    before = ""
    for *cells, sentence in rows:
        yield "  ".join(
            cell.ljust(max(width, LABEL - 2)) for cell, width in zip(cells, widths, strict=True)
        ).rstrip()
        if sentence:
            yield " " * LABEL + (sentence if sentence != before else "the same")
        before = sentence
