"""Which GPUs a compiled library has code for, read from fat binaries made for the test."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

import pytest

from scripts import read_kernels
from scripts.llm_batch.doctor.fatbins import MAGIC, read_code
from scripts.llm_batch.errors import WorkflowError

CUBIN, PTX = 2, 1


def entry(kind: int, capability: int, major: int = 1, minor: int = 7, size: int = 24) -> bytes:
    header = struct.pack("<HHIQIIHHI", kind, 0x101, 64, size, 0, 0, minor, major, capability)
    return header.ljust(64, b"\0") + b"\x11" * size


def fatbin(*entries: bytes) -> bytes:
    body = b"".join(entries)
    return MAGIC + struct.pack("<HHQ", 1, 16, len(body)) + body


def test_code_of_all_fat_binaries_is_found_between_other_bytes() -> None:
    library = b"\x7fELF" + b"\0" * 37 + fatbin(entry(CUBIN, 80), entry(PTX, 90, 8, 1)) + b"\1" * 9
    library += fatbin(entry(CUBIN, 120), entry(CUBIN, 75)) + MAGIC
    code = read_code(library)
    assert code.cubin == ("7.5", "8.0", "12.0")
    assert code.ptx == ("9.0",)
    assert code.cuda == "12.1"


@pytest.mark.parametrize(
    "library",
    [b"", MAGIC, MAGIC + b"\xff" * 40, fatbin(entry(7, 80)), fatbin(entry(CUBIN, 4_000_000))],
)
def test_bytes_that_only_look_like_a_fat_binary_are_no_code(library: bytes) -> None:
    assert read_code(library).cubin == ()


def make_wheel(folder: Path, name: str, files: dict[str, bytes]) -> Path:
    path = folder / name
    with zipfile.ZipFile(path, "w") as archive:
        for member, data in files.items():
            archive.writestr(member, data)
    return path


def test_what_every_needed_library_has_counts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {
        "vllm/_C.abi3.so": fatbin(entry(CUBIN, 70), entry(CUBIN, 80), entry(PTX, 80, 8, 8)),
        "vllm/_moe_C.abi3.so": fatbin(entry(CUBIN, 80), entry(CUBIN, 90)),
        "vllm/cumem_allocator.abi3.so": b"no code for GPUs",
        "vllm/vllm_flash_attn/_vllm_fa2_C.abi3.so": fatbin(entry(CUBIN, 80), entry(PTX, 80, 8, 8)),
        "vllm/vllm_flash_attn/_vllm_fa3_C.abi3.so": fatbin(entry(CUBIN, 90)),
    }
    wheel = make_wheel(tmp_path, "vllm-0.0.1-cp38-abi3-linux_x86_64.whl", files)
    assert read_kernels.main([str(wheel)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "vllm-0.0.1-cp38-abi3-linux_x86_64.whl:",
        '  compute_capabilities: ["8.0"]',
        '  cuda: "12.9"',
        '  # FlashAttention: ["8.0", "9.0"], PTX ["8.0"]',
    ]


def test_a_wheel_for_cpus_and_a_file_that_is_none_are_refused(tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path, "torch-1-py3-none-any.whl", {"torch/lib/libtorch_cpu.so": b""})
    with pytest.raises(WorkflowError, match="is it a build for CPUs"):
        read_kernels.main([str(wheel)])
    (tmp_path / "vllm-1-x.whl").write_bytes(b"no archive")
    with pytest.raises(WorkflowError, match="cannot be read"):
        read_kernels.main([str(tmp_path / "vllm-1-x.whl")])
    with pytest.raises(WorkflowError, match="expected a wheel of torch or vllm"):
        read_kernels.main([str(tmp_path / "numpy-1-x.whl")])
