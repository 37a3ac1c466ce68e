"""From the end of a log to a cause and a cure."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.llm_batch.generate.diagnosis import describe_exit, diagnose, last_lines
from scripts.llm_batch.generate.supervisor import journal_reason

CASES = [
    (
        "ValueError: To serve at least one request with the model's max seq len (4096), (0.5 GiB "
        "KV cache is needed, which is larger than the available KV cache memory (0.1 GiB).",
        "the KV cache has no room",
        True,
    ),
    (
        "ValueError: Free memory on device cuda:0 (59.32/79.15 GiB) on startup is less than "
        "desired GPU memory utilization (0.9, 71.24 GiB).",
        "other processes hold a part",
        False,
    ),
    ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB", "out of memory", False),
    ("MemoryError: dummy engine", "out of memory", False),
    ("OSError: [Errno 28] No space left on device: '/tmp/x'", "a disk is full", True),
    ("RuntimeError: Cannot find any model weights with `/m`", "weights are missing", True),
    (
        "FileNotFoundError: Weight files referenced in index but missing: a.safetensors",
        "weights are missing",
        True,
    ),
    (
        "ValueError: Model architectures ['FooForCausalLM'] are not supported for now.",
        "does not know the model's architecture",
        True,
    ),
    (
        "ValueError: User-specified max_model_len (9999) is greater than the derived "
        "max_model_len (max_position_embeddings=256)",
        "more than the model was made for",
        True,
    ),
    (
        "RuntimeError: The NVIDIA driver on your system is too old (found version 12080).",
        "CUDA is newer than the driver",
        True,
    ),
    (
        "ValueError: World size (4) is larger than the number of available GPUs (1) in this node",
        "wants more GPUs",
        True,
    ),
    ("ModuleNotFoundError: No module named 'vllm'", "lacks a module", True),
    ("TypeError: EngineArgs.__init__() got an unexpected keyword argument 'x'", "refuses", True),
]


@pytest.mark.parametrize(("message", "cause", "permanent"), CASES)
def test_known_messages_have_a_cure(
    tmp_path: Path, message: str, cause: str, permanent: bool
) -> None:
    log = tmp_path / "log"
    log.write_text(f"INFO loading\nTraceback (most recent call last):\n  return f(x)\n{message}\n")
    diagnosis = diagnose(log, 1)
    assert cause in diagnosis.cause
    assert diagnosis.permanent is permanent
    assert diagnosis.cure
    assert "\n" not in str(diagnosis)
    assert message in str(diagnosis)


def test_an_unknown_death_names_the_log(tmp_path: Path) -> None:
    diagnosis = diagnose(tmp_path / "log", -11)
    assert diagnosis.cause == "the engine was killed by SIGSEGV"
    assert str(tmp_path / "log") in diagnosis.cure
    assert not diagnosis.permanent


def test_exits_are_put_into_words() -> None:
    assert "SIGKILL" in describe_exit(-9)
    assert describe_exit(1) == "exited with code 1"
    assert describe_exit(None) == "did not answer any more"


def test_the_frames_of_a_trace_are_not_repeated() -> None:
    trace = (
        'Traceback:\n  File "/a.py", line 3, in f\n    return g()\n           ^^^\nValueError: x'
    )
    assert last_lines(trace) == ("Traceback:", "ValueError: x")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("INFO ready\nERROR journal: No space left on device\n", "No space left on device"),
        ("ERROR journal: Disk quota exceeded\nbye\n", "Disk quota exceeded"),
        ("INFO the log lies on the same full di", "the disk may be full"),
        ("", "the disk may be full"),
    ],
)
def test_a_full_disk_is_told_though_the_log_could_not_be_written(
    tmp_path: Path, text: str, reason: str
) -> None:
    log = tmp_path / "engine.log"
    log.write_text(text)
    assert journal_reason(log) == reason
