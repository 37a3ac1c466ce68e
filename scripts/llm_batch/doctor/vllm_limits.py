"""What vLLM refuses, or gets wrong in silence, by version: read in the sources of its wheels.

Read were 0.6.1.post1, 0.6.3.post1, 0.7.3, 0.8.5.post1, 0.9.0, 0.9.2, 0.10.1.1, 0.11.2, 0.19.1,
0.25.1, 0.26.0, 0.31.0, 0.32.0 (for CUDA) and 0.28.0 (for CPUs). Between two of them the older
one's rule is taken to hold. What is not known here is not refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from scripts.llm_batch.doctor.cuda import newer_or_equal

Capability = tuple[int, int]

BFLOAT16: Capability = (8, 0)
"""vllm/worker/worker.py, later vllm/platforms/cuda.py: check_if_supports_dtype."""

NO_FLOAT16 = frozenset({"gemma2", "gemma3", "gemma3_text", "glm4", "plamo2"})
"""model_type that vLLM runs in bfloat16 or float32 only: vllm/config, _FLOAT16_NOT_SUPPORTED_MODELS
(0.9.2 and later)."""

NO_FLOAT16_SINCE = "0.9.2"

NODES_SINCE = "0.11.2"
"""From here on the engine takes `nnodes` (0.10.1.1 does not): vllm/engine/arg_utils.py."""

OTHER_DTYPE_SINCE = "0.9"
"""From here on `dtype: auto` means another format on a card that lacks the model's: vllm/config."""

_QUANTIZATION: Mapping[str, Sequence[tuple[str, Capability]]] = {
    "aqlm": (("0.6", (6, 0)),),
    "auto-round": (("0.10", (6, 0)),),
    "awq": (("0.6", (7, 5)),),
    "awq_marlin": (("0.6", (8, 0)), ("0.19", (7, 5))),
    "bitblas": (("0.8", (7, 0)),),
    "bitsandbytes": (("0.6", (7, 0)),),
    "compressed-tensors": (("0.6", (7, 0)),),
    "deepspeedfp": (("0.6", (6, 0)),),
    "experts_int8": (("0.6", (8, 0)),),
    "fbgemm_fp8": (("0.6", (8, 0)),),
    "fp8": (("0.6", (8, 0)), ("0.19", (7, 5))),
    "fp_quant": (("0.11", (10, 0)),),
    "gguf": (("0.6", (6, 0)),),
    "gptq": (("0.6", (6, 0)),),
    "gptq_bitblas": (("0.8", (7, 0)), ("0.10", (8, 0))),
    "gptq_marlin": (("0.6", (8, 0)), ("0.19", (7, 5))),
    "gptq_marlin_24": (("0.6", (8, 0)),),
    "hqq": (("0.7", (8, 0)),),
    "humming": (("0.25", (7, 5)),),
    "inc": (("0.19", (6, 0)),),
    "marlin": (("0.6", (8, 0)),),
    "modelopt": (("0.6", (8, 9)), ("0.32", (8, 0))),
    "modelopt_fp4": (("0.10", (8, 0)), ("0.19", (7, 5))),
    "modelopt_mixed": (("0.19", (8, 9)), ("0.25", (7, 5))),
    "modelopt_mxfp8": (("0.19", (10, 0)), ("0.25", (8, 0))),
    "moe_wna16": (("0.7", (7, 0)),),
    "mxfp4": (("0.10", (8, 0)),),
    "mxfp8": (("0.19", (10, 0)), ("0.25", (7, 5))),
    "nvfp4": (("0.8", (10, 0)),),
    "petit_nvfp4": (("0.11", (9, 0)),),
    "qqq": (("0.6", (8, 0)),),
    "quark": (("0.7", (7, 0)),),
    "rtn": (("0.10", (8, 0)),),
    "torchao": (("0.8", (7, 5)),),
}
"""The compute capability that each method asks for, from a version on: get_min_capability in
vllm/model_executor/layers/quantization."""

QUANTIZATION_GONE: Mapping[str, str] = {"bitsandbytes": "0.31", "gguf": "0.25"}
"""The first version read that no longer has a method."""

QUANTIZATION_PACKAGES = ("bitsandbytes", "compressed-tensors", "gguf", "torchao")
"""Methods that import a package of their own name."""

NO_CPU_QUANTIZATION = frozenset({"fp_quant", "modelopt_fp4", "nvfp4", "petit_nvfp4"})
"""Methods without a kernel for CPUs: vllm/model_executor/kernels/linear/__init__.py of 0.28.0."""

NO_SOFT_CAP = frozenset({"B12X", "FLEX_ATTENTION", "HPC_ATTN", "TORCH_SDPA", "XFORMERS"})
"""Attention backends without logits soft-capping. FLEX_ATTENTION raises in every version that has
it; XFORMERS and TORCH_SDPA raise until 0.6 and leave it out with a warning until 0.10, so that
answers are wrong; B12X and HPC_ATTN raise in 0.32."""

BATCH_INVARIANCE: Sequence[tuple[str, Capability]] = (("0.11.1", (9, 0)), ("0.19", (8, 0)))
"""Compute capability for VLLM_BATCH_INVARIANT, from a version on: docs, batch_invariance."""

FP8: Capability = (8, 9)
"""From here on GPUs compute in 8 bits; before, fp8 weights are unpacked to 16 bits (Marlin)."""

_UTILIZATION: Sequence[tuple[str, float]] = (("0.6", 0.9), ("0.25", 0.92))
"""The default of gpu_memory_utilization: vllm/config/cache.py."""


def since(table: Sequence[tuple[str, object]], vllm: str) -> object | None:
    """Return the entry of `table` that holds for version `vllm`, None before the first."""
    found = [value for first, value in table if newer_or_equal(vllm, first)]
    return found[-1] if found else None


def quantization_capability(method: str, vllm: str) -> Capability | None:
    """Return the compute capability that a method asks for, None if it is not known."""
    found = since(_QUANTIZATION.get(method, ()), vllm)
    return found if isinstance(found, tuple) else None


def batch_invariance(vllm: str) -> Capability | None:
    """Return the compute capability that batch invariance asks for, None if there is none yet."""
    found = since(BATCH_INVARIANCE, vllm)
    return found if isinstance(found, tuple) else None


def utilization(vllm: str) -> float:
    """Return the share of a GPU's memory that this version takes by default."""
    found = since(_UTILIZATION, vllm)
    return found if isinstance(found, float) else _UTILIZATION[-1][1]


def default_attention(vllm: str, capability: Capability, dtype: str) -> str | None:
    """Return the attention backend that vLLM takes where it is one without soft-capping, else None.

    vllm/attention/selector.py (0.6) and vllm/platforms/cuda.py: FlashAttention needs compute
    capability 8.0 and 16 bits. Until 0.10 XFORMERS stands in for it (from 0.9.2 on FLEX_ATTENTION,
    if it is for float32 only), from 0.11 on FlashInfer or Triton, which have soft-capping.
    """
    if not vllm or newer_or_equal(vllm, "0.11") or (capability >= (8, 0) and dtype != "float32"):
        return None
    newer = newer_or_equal(vllm, "0.9.2") and capability >= (8, 0)
    return "FLEX_ATTENTION" if newer else "XFORMERS"
