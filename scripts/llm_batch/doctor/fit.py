"""Whether weights and one request fit into memory at all.

A lower bound: what activations, CUDA graphs and libraries take is not counted, so what is refused
here cannot fit, and what passes may still be tight. `python -m scripts.model_size` estimates more.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from scripts.llm_batch.doctor import vllm_limits as limits
from scripts.llm_batch.doctor.pairs import Pair
from scripts.llm_batch.doctor.verdicts import Finding
from scripts.llm_batch.models.size import VLLM_DTYPE_BYTES

SMALLEST_QUANTIZATION = 4
"""Weights that vLLM itself quantises while loading take a quarter (4 of 16 bits) at the least."""


BLOCK = 16
"""Tokens in a block of the KV cache, by vLLM's default."""


class Need(NamedTuple):
    """Bytes on each GPU at the least: `weights` and the KV cache of one request of `tokens`."""

    weights: int
    cache: int
    tokens: int
    per_token: float

    @property
    def total(self) -> int:
        """Return both together."""
        return self.weights + self.cache


def memory(pair: Pair) -> Iterator[Finding]:
    """Weights and the KV cache of the longest request must fit into the share vLLM takes."""
    if pair.size is None or pair.machine is None:
        return
    if not pair.gpus:
        yield from _main_memory(pair)
        return
    ordered = sorted(pair.devices, key=lambda device: -device.total_bytes)
    if len(ordered) < pair.node_gpus:
        return
    smallest = ordered[pair.node_gpus - 1]
    share = float(pair.tuning.get("gpu_memory_utilization") or limits.utilization(pair.vllm))
    budget = int(smallest.total_bytes * share)
    need = least_need(pair, pair.tensor_parallel)
    if need is None or need.total <= budget:
        return
    text = (
        f"{pair.model} needs {_words(pair, need)} on each GPU at the least; {smallest.model} has "
        f"{_gb(smallest.total_bytes)} × {share:g} = {_gb(budget)}"
    )
    yield Finding("memory", "no", text, _cure(pair, need, budget))


def least_need(pair: Pair, parallel: int) -> Need | None:
    """Return what each GPU must hold with tensor parallel size `parallel`; None if unknown."""
    size, shape = pair.size, pair.shape
    if size is None:
        return None
    gpus = parallel * pair.pipeline_parallel
    dtype = str(pair.args.get("dtype", "auto"))
    whole = size.weight_bytes(dtype).value
    if pair.args.get("quantization") and (shape is None or shape.quantization is None):
        whole //= SMALLEST_QUANTIZATION
    offloaded = int(float(pair.tuning.get("cpu_offload_gb") or 0) * (1 << 30))
    weights = max(0, -(-whole // gpus) - offloaded)
    tokens = pair.args.get("max_model_len") or (shape.context if shape else None)
    kind = _cache_dtype(pair)
    if shape is None or tokens is None or kind is None or _cache_is_set(pair):
        return Need(weights, 0, 0, 0)
    sequence, per_token = size.kv_bytes(int(tokens), kind), size.kv_bytes_per_token(kind)
    if sequence is None or per_token is None:
        return Need(weights, 0, 0, 0)
    part = 1.0 if shape.latent_dim is not None else max(1 / shape.kv_heads, 1 / parallel)
    part /= pair.pipeline_parallel
    return Need(weights, int(sequence.value * part), int(tokens), per_token.value * part)


def _cache_dtype(pair: Pair) -> str | None:
    """Return the KV cache's number format, by vLLM's name; None if its size is not known."""
    asked = str(pair.args.get("kv_cache_dtype", "auto"))
    if asked == "auto":
        return str(pair.args.get("dtype", "auto"))
    return asked if asked in VLLM_DTYPE_BYTES else None


def _cache_is_set(pair: Pair) -> bool:
    """Whether the size of the KV cache is given, and not what the weights leave."""
    keys = ("kv_cache_memory_bytes", "num_gpu_blocks_override")
    return any(pair.tuning.get(key) is not None for key in keys)


def _words(pair: Pair, need: Need) -> str:
    gpus = pair.gpus
    whole = f" ({_gb(need.weights * gpus)} / {gpus} GPUs)" if gpus > 1 else ""
    words = f"{_gb(need.weights)} for weights{whole}"
    if not need.cache:
        return words
    return (
        f"{words} + {_gb(need.cache)} for the KV cache of one request ({need.tokens} tokens) = "
        f"{_gb(need.total)}"
    )


def _cure(pair: Pair, need: Need, budget: int) -> str:
    cures = []
    left = budget - need.weights
    shape = pair.shape
    windowed = shape is not None and shape.window is not None
    if need.per_token and left > BLOCK * need.per_token and not windowed:
        fitting = int(left / need.per_token) // BLOCK * BLOCK
        cures.append(f"set args.max_model_len: {fitting} or less")
    elif need.per_token and left > 0:
        cures.append("lower args.max_model_len")
    parallel = _parallel_that_fits(pair, budget)
    if parallel is not None:
        cures.append(f"set tensor_parallel_size: {parallel}")
    elif not cures:
        cures.append("take larger cards or a quantised model")
    return ", or ".join(cures)


def _parallel_that_fits(pair: Pair, budget: int) -> int | None:
    """Return the smallest tensor parallel size on which it would fit, by this lower bound."""
    shape = pair.shape
    heads = shape.heads if shape else 1
    for parallel in range(pair.tensor_parallel + 1, heads + 1):
        need = least_need(pair, parallel)
        if heads % parallel == 0 and need is not None and need.total <= budget:
            return parallel
    return None


def _main_memory(pair: Pair) -> Iterator[Finding]:
    need = least_need(pair, 1)
    there = pair.machine.memory_bytes if pair.machine else None
    if need is None or there is None or need.weights <= there:
        return
    text = f"{pair.model} needs {_gb(need.weights)} for weights, this machine has {_gb(there)}"
    yield Finding("memory", "no", text, "take a smaller model, or a machine with more memory")


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
