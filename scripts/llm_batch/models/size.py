"""How large a model is and what it needs, from config.json and the headers of its weights alone.

Every number is a `Figure`, which tells the arithmetic it came from. No weights are read or
fetched: a safetensors file says in its first kilobytes what tensors it holds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from scripts.llm_batch.errors import WorkflowError
from scripts.llm_batch.models.headers import local_parameters
from scripts.llm_batch.models.shape import ModelShape, model_shape

DTYPE_BYTES: Mapping[str, float] = {
    "F64": 8, "I64": 8, "U64": 8, "C64": 8,
    "F32": 4, "I32": 4, "U32": 4,
    "F16": 2, "BF16": 2, "I16": 2, "U16": 2,
    "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "I8": 1, "U8": 1, "BOOL": 1,
    "F6_E2M3": 0.75, "F6_E3M2": 0.75, "F4": 0.5,
}  # fmt: skip
"""Bytes of one element, by the names that safetensors headers use."""

FLOATS = ("F64", "F32", "F16", "BF16")
"""What an engine converts to its dtype on loading; quantised numbers stay as they are."""

VLLM_DTYPE_BYTES: Mapping[str, int] = {
    "float32": 4, "float": 4, "float16": 2, "half": 2, "bfloat16": 2,
    "fp8": 1, "fp8_e4m3": 1, "fp8_e5m2": 1, "int8": 1,
}  # fmt: skip
"""Bytes of one element, by vLLM's names of `dtype` and `kv_cache_dtype`."""

UTILIZATION = 0.9
"""Share of a GPU's memory that is planned with; vLLM's `gpu_memory_utilization` is about this."""

OVERHEAD_BYTES = 2 << 30
"""Assumed, not derived: what activations, CUDA graphs and the libraries take of each GPU."""


class Figure(NamedTuple):
    """A number and where it comes from, in one line: `2 × 42 layers × …`."""

    value: int
    arithmetic: str


@dataclass(frozen=True)
class ModelSize:
    """What is known of a model before its weights are there; `shape` is None for unknown configs.

    `parameters` are by number format as stored, `stored_bytes` as the files hold them.
    """

    source: str
    parameters: Mapping[str, int]
    shape: ModelShape | None

    @property
    def total_parameters(self) -> Figure:
        """Elements of all tensors; packed quantised weights hold several in one element."""
        total = sum(self.parameters.values())
        terms = " + ".join(f"{count:,} {dtype}" for dtype, count in self._by_count())
        return Figure(total, terms)

    @property
    def stored_bytes(self) -> Figure:
        """Bytes of the weights as the files hold them."""
        terms = [(count, DTYPE_BYTES[dtype], dtype) for dtype, count in self._by_count()]
        total = round(sum(count * size for count, size, _ in terms))
        return Figure(total, " + ".join(f"{n:,} {d} × {s:g} B" for n, s, d in terms))

    def weight_bytes(self, dtype: str = "auto") -> Figure:
        """Return the bytes of the weights in an engine of `dtype` (vLLM's name)."""
        width = _dtype_bytes(dtype)
        total, words = 0.0, []
        for name, count in self._by_count():
            size = width if name in FLOATS else DTYPE_BYTES[name]
            total += count * size
            words.append(f"{count:,} {name} × {size:g} B")
        return Figure(round(total), " + ".join(words))

    def kv_bytes_per_token(self, dtype: str = "auto") -> Figure | None:
        """Return what one token takes in the KV cache, over all GPUs of one replica.

        Layers with a sliding window count in full, as for a sequence no longer than the window.
        None if the shape is not known. `dtype` is that of the cache.
        """
        shape = self.shape
        if shape is None:
            return None
        width = _dtype_bytes(dtype)
        layers = shape.layers - shape.stateless_layers
        if shape.latent_dim is not None:
            total = layers * shape.latent_dim * width
            words = f"{layers} layers × {shape.latent_dim} (latent and rotary key) × {width} B"
            return Figure(total, words)
        total = 2 * layers * shape.kv_heads * shape.head_dim * width
        words = f"2 (K, V) × {layers} layers × {shape.kv_heads} KV heads × {shape.head_dim}"
        return Figure(total, f"{words} × {width} B")

    def kv_bytes(self, tokens: int, dtype: str = "auto") -> Figure | None:
        """Return what a sequence of `tokens` takes in the KV cache; windows are heeded."""
        shape, per_token = self.shape, self.kv_bytes_per_token(dtype)
        if shape is None or per_token is None:
            return None
        layers = shape.layers - shape.stateless_layers
        if not layers or shape.window is None or tokens <= shape.window:
            return Figure(tokens * per_token.value, f"{tokens} tokens × {per_token.value:,} B")
        a_layer = per_token.value // layers
        full = layers - shape.sliding_layers
        total = a_layer * (full * tokens + shape.sliding_layers * shape.window)
        words = f"({full} layers × {tokens} + {shape.sliding_layers} × {shape.window} tokens)"
        return Figure(total, f"{words} × {a_layer:,} B a layer and token")

    def _by_count(self) -> list[tuple[str, int]]:
        return sorted(self.parameters.items(), key=lambda item: (-item[1], item[0]))


class Fit(NamedTuple):
    """Whether and how a model fits: `gpus` of one engine, None if no allowed number is enough.

    `kv_tokens` are the tokens that the KV cache of all these GPUs holds.
    """

    gpus: int | None
    weight_bytes_per_gpu: int
    kv_tokens: int | None
    arithmetic: str


def local_model_size(folder: Path) -> ModelSize:
    """Return the size of a model folder; raise `WorkflowError` if its files do not tell."""
    config = _read_config(folder / "config.json")
    try:
        counted = local_parameters(folder)
    except WorkflowError as error:
        raise WorkflowError(f"{folder}: weights cannot be measured: {error}") from None
    return _model_size(str(folder), counted, config)


def hub_model_size(repo: str, revision: str) -> ModelSize:
    """Return the size of a hub model at a commit, from config.json and range requests.

    Raises `WorkflowError` if the hub does not answer or the model has no safetensors.
    """
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import NotASafetensorsRepoError, SafetensorsParsingError

    try:
        config = _read_config(Path(hf_hub_download(repo, "config.json", revision=revision)))
        metadata = HfApi().get_safetensors_metadata(repo, revision=revision)
    except (NotASafetensorsRepoError, SafetensorsParsingError) as error:
        reason = " ".join(str(error).split())
        raise WorkflowError(
            f"{repo}@{revision[:12]}: weights cannot be measured: {reason}"
        ) from None
    return _model_size(f"{repo}@{revision[:12]}", _by_name(metadata.parameter_count), config)


def gpus_needed(
    size: ModelSize,
    memory_bytes: int,
    *,
    dtype: str = "auto",
    kv_dtype: str = "auto",
    tokens: int | None = None,
    utilization: float = UTILIZATION,
    overhead_bytes: int = OVERHEAD_BYTES,
) -> Fit:
    """Return the smallest tensor parallel size on which weights and one sequence fit.

    `memory_bytes` is that of one GPU, `tokens` the longest sequence (default: the model's context).
    Sizes are those that divide the attention heads, as vLLM demands. A GPU that has no KV head of
    its own holds a copy of one; latent attention is copied to every GPU.
    """
    shape = size.shape
    weights = size.weight_bytes(dtype)
    length = tokens or (shape.context if shape else None) or 0
    sequence = size.kv_bytes(length, kv_dtype)
    budget = int(memory_bytes * utilization) - overhead_bytes
    heads = shape.heads if shape else 1
    words, share = "", weights.value
    for gpus in (n for n in range(1, heads + 1) if heads % n == 0):
        share = -(-weights.value // gpus)
        cache_share = _cache_share(shape, gpus)
        needed = int((sequence.value if sequence else 0) * cache_share)
        words = (
            f"{_gb(share)} weights + {_gb(needed)} for {length} tokens + {_gb(overhead_bytes)} "
            f"assumed for the rest, of {_gb(memory_bytes)} × {utilization:g}, on each of {gpus}"
        )
        if share + needed <= budget:
            return Fit(gpus, share, _kv_tokens(size, budget - share, cache_share, kv_dtype), words)
    return Fit(None, share, None, f"{words}: not enough")


def _cache_share(shape: ModelShape | None, gpus: int) -> float:
    """Return the part of a sequence's cache that each of `gpus` holds."""
    if shape is None or shape.latent_dim is not None:
        return 1.0
    return max(1.0 / shape.kv_heads, 1.0 / gpus)


def _kv_tokens(size: ModelSize, free: int, share: float, dtype: str) -> int | None:
    per_token = size.kv_bytes_per_token(dtype)
    return int(free / (per_token.value * share)) if per_token and per_token.value else None


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f} GB"


def _dtype_bytes(dtype: str) -> int:
    """Return the bytes of one number; `auto` is two, as vLLM halves float32 weights by default."""
    if dtype in VLLM_DTYPE_BYTES:
        return VLLM_DTYPE_BYTES[dtype]
    if dtype != "auto":
        raise WorkflowError(
            f"dtype '{dtype}' is not known; take one of {', '.join(VLLM_DTYPE_BYTES)}"
        )
    return 2


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WorkflowError(f"{path}: cannot be read as JSON: {error}") from None
    if not isinstance(config, dict):
        raise WorkflowError(f"{path}: expected a JSON object")
    return config


def _by_name(counts: Mapping[Any, int]) -> dict[str, int]:
    return {str(name): count for name, count in counts.items()}


def _model_size(source: str, parameters: Mapping[str, int], config: Mapping[str, Any]) -> ModelSize:
    unknown = sorted(set(parameters) - set(DTYPE_BYTES))
    if unknown:
        raise WorkflowError(f"{source}: number format {unknown[0]} of its weights is not known")
    if not parameters:
        raise WorkflowError(f"{source}: no safetensors weights, so their size is not known")
    return ModelSize(source, dict(parameters), model_shape(config))
