"""What killed an engine, told from the end of its log, and what helps against it."""

from __future__ import annotations

import re
import signal
from pathlib import Path
from typing import NamedTuple

TAIL_BYTES = 30_000
"""Beyond that a log tells of a start that went well."""

TAIL_LINES = 12


class Pattern(NamedTuple):
    """A message of vLLM, PyTorch or the system. `permanent`: a restart cannot help."""

    regex: re.Pattern[str]
    cause: str
    cure: str
    permanent: bool


def _pattern(regex: str, cause: str, cure: str, permanent: bool = True) -> Pattern:
    return Pattern(re.compile(regex), cause, cure, permanent)


PATTERNS = (
    _pattern(
        r"larger than the available KV cache memory|larger than the maximum number of tokens that "
        r"can be stored in KV cache|No available memory for the cache blocks",
        "the KV cache has no room for one request of full length",
        "lower args.max_model_len, or raise tuning.gpu_memory_utilization or "
        "tuning.kv_cache_memory_bytes",
    ),
    _pattern(
        r"Free memory on device.*less than desired GPU memory utilization",
        "other processes hold a part of the GPU's memory",
        "wait until they end, take another GPU, or lower tuning.gpu_memory_utilization",
        permanent=False,
    ),
    _pattern(
        r"Error in memory profiling|release GPU memory while vLLM is profiling",
        "another process changed the GPU's memory while the engine measured it",
        "run again; one process a GPU avoids it",
        permanent=False,
    ),
    _pattern(
        r"[Oo]ut [Oo]f [Mm]emory|OutOfMemoryError|MemoryError|Cannot allocate memory"
        r"|DefaultCPUAllocator: can't allocate",
        "out of memory",
        "lower tuning.gpu_memory_utilization (a GPU) or tuning.kv_cache_memory_bytes (a CPU), "
        "args.max_model_len or tuning.max_num_seqs, or spread the model with "
        "args.tensor_parallel_size",
        permanent=False,
    ),
    _pattern(
        r"No space left on device|Disk quota exceeded|\[Errno 28\]|\[Errno 122\]",
        "a disk is full",
        "free space (the model's cache, the temporary folder, results/) and run again",
    ),
    _pattern(
        r"[Cc]annot find any model weights|Weight files referenced in index but missing"
        r"|SafetensorError|safetensors_rust|MetadataIncompleteBuffer",
        "weights are missing or damaged",
        "fetch the model again and compare its files",
    ),
    _pattern(
        r"Model architectures .* (are|is) not supported|not supported for now|model type .* but "
        r"Transformers does not recognize",
        "this vLLM does not know the model's architecture",
        "use an environment with a newer vLLM",
    ),
    _pattern(
        r"User-specified max_model_len .* is greater than the derived max_model_len",
        "args.max_model_len is more than the model was made for",
        "lower it to what the message says",
    ),
    _pattern(
        r"NVIDIA driver on your system is too old|provided PTX was compiled with an unsupported"
        r"|unsupported display driver / cuda driver combination"
        r"|CUDA driver version is insufficient",
        "the environment's CUDA is newer than the driver",
        "use environment: auto, or one for an older CUDA",
    ),
    _pattern(
        r"World size .* is larger than the number of available GPUs",
        "the engine wants more GPUs than it was given",
        "lower args.tensor_parallel_size, or give the workflow more with --resources gpu=N",
    ),
    _pattern(
        r"InvalidCxxCompiler|Failed to find C compiler|command 'g\+\+' failed",
        "the environment has no compiler",
        "build the environment again, or install gcc",
    ),
    _pattern(
        r"ModuleNotFoundError|ImportError",
        "the environment lacks a module",
        "build the environment again",
    ),
    _pattern(
        r"ValidationError|unexpected keyword argument|invalid choice|Invalid .* backend",
        "vLLM refuses an argument of the engine",
        "correct args or tuning of the engine in the config",
    ),
)
"""In order: the first that occurs in the log's end is the diagnosis."""


class Diagnosis(NamedTuple):
    """Why an engine died, as far as its log tells."""

    cause: str
    cure: str
    permanent: bool
    lines: tuple[str, ...]

    def __str__(self) -> str:
        shown = " | ".join(self.lines)
        return f"{self.cause}; {self.cure}. Last lines of its log: {shown}"


def diagnose(log: Path, returncode: int | None) -> Diagnosis:
    """Return what is known about the death of the engine that wrote `log`."""
    text = read_tail(log)
    lines = last_lines(text)
    for pattern in PATTERNS:
        if pattern.regex.search(text):
            return Diagnosis(pattern.cause, pattern.cure, pattern.permanent, lines)
    return Diagnosis(
        f"the engine {describe_exit(returncode)}", f"the whole log is {log}", False, lines
    )


def describe_exit(returncode: int | None) -> str:
    """Return in words how a process ended."""
    if returncode is None:
        return "did not answer any more"
    if returncode == -signal.SIGKILL:
        return "was killed (SIGKILL; by the kernel, if the machine ran out of memory)"
    if returncode < 0:
        return f"was killed by {signal.Signals(-returncode).name}"
    return f"exited with code {returncode}"


def read_tail(log: Path) -> str:
    """Return the end of a log."""
    try:
        with log.open("rb") as stream:
            stream.seek(max(0, stream.seek(0, 2) - TAIL_BYTES))
            return stream.read().decode(errors="replace")
    except OSError:
        return ""


def last_lines(text: str) -> tuple[str, ...]:
    """Return the last lines of a log that say something, without the frames of a trace."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if not re.match(r'File "|\^+$|~+|return |raise ', line)]
    return tuple(line[:300] for line in telling[-TAIL_LINES:])
