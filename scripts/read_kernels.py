"""Say which GPUs wheels of torch and vLLM have code for, as envs/<name>.yaml notes it.

    pip download --no-deps vllm==0.19.1 torch==2.10.0 --dest wheels
    python -m scripts.read_kernels wheels/*.whl

A part that vLLM can do without (FlashAttention) is told beside; it runs on fewer GPUs.
"""

from __future__ import annotations

import argparse
import re
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from scripts.llm_batch.doctor.fatbins import Code, read_code
from scripts.llm_batch.errors import WorkflowError, run_cli

NEEDED: Mapping[str, str] = {
    "torch": r"torch/lib/libtorch_cuda\.so",
    "vllm": r"vllm/_(moe_)?C(_stable_libtorch)?(\.abi3)?\.so",
}
"""For each wheel the libraries without which nothing runs."""

FLASH_ATTENTION = r"vllm/vllm_flash_attn/\w*_C(\.abi3)?\.so"


def build_parser() -> argparse.ArgumentParser:
    """Return the command line of this program."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("wheels", nargs="+", type=Path, help="wheels of torch and vllm")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Print what the wheels hold; 0 on success."""
    for wheel in build_parser().parse_args(argv).wheels:
        print(f"{wheel.name}:", *describe(wheel), sep="\n  ")
    return 0


def describe(wheel: Path) -> list[str]:
    """Return the lines of a wheel; raise `WorkflowError` for one that is no build for GPUs."""
    name = wheel.name.partition("-")[0]
    if name not in NEEDED:
        raise WorkflowError(f"{wheel}: expected a wheel of {' or '.join(NEEDED)}")
    try:
        with zipfile.ZipFile(wheel) as archive:
            needed = _codes(archive, NEEDED[name])
            optional = _codes(archive, FLASH_ATTENTION)
    except (OSError, zipfile.BadZipFile) as error:
        raise WorkflowError(f"{wheel}: cannot be read ({error})") from None
    if not needed:
        raise WorkflowError(f"{wheel}: no code for GPUs in it; is it a build for CPUs?")
    cubin = set.intersection(*(set(code.cubin) for code in needed))
    ptx = set.intersection(*(set(code.ptx) for code in needed))
    lines = [f"compute_capabilities: {_list(cubin)}"]
    lines += [f"ptx: {_list(ptx)}"] if ptx else []
    lines += [f'cuda: "{cuda}"' for cuda in sorted({one.cuda for one in needed if one.cuda})]
    if optional:
        cubin = {text for code in optional for text in code.cubin}
        ptx = {text for code in optional for text in code.ptx}
        lines.append(f"# FlashAttention: {_list(cubin)}, PTX {_list(ptx)}")
    return lines


def _codes(archive: zipfile.ZipFile, pattern: str) -> list[Code]:
    members = [name for name in archive.namelist() if re.fullmatch(pattern, name)]
    codes = [read_code(archive.read(name)) for name in members]
    return [code for code in codes if code.cubin]


def _list(capabilities: Iterable[str]) -> str:
    ordered = sorted(capabilities, key=lambda text: tuple(int(part) for part in text.split(".")))
    return "[" + ", ".join(f'"{text}"' for text in ordered) + "]"


if __name__ == "__main__":
    run_cli(main)
