"""Engines that cannot work, told before a GPU is used.

Each rule yields at most one line with its arithmetic and a cure. A rule speaks only where the
facts are certain: an unknown model, version or method passes. Sources: `vllm_limits`.
"""

from __future__ import annotations

from collections.abc import Iterator

from scripts.llm_batch.doctor import vllm_limits as limits
from scripts.llm_batch.doctor.cuda import newer_or_equal
from scripts.llm_batch.doctor.pairs import Pair, card_name
from scripts.llm_batch.doctor.verdicts import Finding
from scripts.llm_batch.gpus.devices import devices
from scripts.llm_batch.models.shape import ModelShape


def _no(rule: str, text: str, cure: str) -> Finding:
    return Finding(rule, "no", text, cure)


def heads(pair: Pair) -> Iterator[Finding]:
    """Tensor parallelism gives each GPU the same number of heads (vllm/config: verify_with_…)."""
    shape, parts = pair.shape, pair.tensor_parallel
    if shape is None or parts == 1:
        return
    fitting = [str(n) for n in range(1, shape.heads + 1) if _divides(n, shape)]
    if shape.heads % parts:
        text = (
            f"tensor_parallel_size {parts} does not divide the {shape.heads} attention heads of "
            f"{pair.model} ({shape.heads} / {parts} = {shape.heads / parts:.2f})"
        )
        yield _no("heads", text, f"take {_either(fitting)}")
    elif not _divides(parts, shape):
        text = (
            f"tensor_parallel_size {parts} and the {shape.kv_heads} KV heads of {pair.model} do "
            "not divide each other"
        )
        yield _no("kv-heads", text, f"take {_either(fitting)}")


def _divides(parts: int, shape: ModelShape) -> bool:
    """Whether heads can be shared out: KV heads are split, or each is copied equally often."""
    if shape.heads % parts:
        return False
    even = shape.kv_heads % parts == 0 or parts % shape.kv_heads == 0
    return even or shape.latent_dim is not None


def _either(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def bfloat16(pair: Pair) -> Iterator[Finding]:
    """Cards before compute capability 8.0 do not compute in bfloat16."""
    old = [gpu for gpu in pair.cards if gpu.capability < limits.BFLOAT16]
    if pair.dtype != "bfloat16" or not old or len(old) < len(pair.cards):
        return
    number = "float32" if _needs_range(pair) else "float16 (or float32)"
    text = (
        f"{card_name(old[0])} has no bfloat16 (needs compute capability 8.0), and that is "
        f"{_whose_dtype(pair)}"
    )
    if newer_or_equal(pair.vllm, limits.OTHER_DTYPE_SINCE) and "dtype" not in pair.args:
        text += "; vLLM would take another format here, and the address would not say so"
    yield _no("bfloat16", text, f"set args.dtype: {number}, or take another card")


def _whose_dtype(pair: Pair) -> str:
    return "args.dtype" if "dtype" in pair.args else f"the dtype of {pair.model} (config.json)"


def _needs_range(pair: Pair) -> bool:
    return str(pair.model_config.get("model_type")) in limits.NO_FLOAT16


def float16(pair: Pair) -> Iterator[Finding]:
    """Some models overflow in float16, so vLLM refuses it."""
    refuses = _needs_range(pair) and newer_or_equal(pair.vllm, limits.NO_FLOAT16_SINCE)
    if pair.dtype == "float16" and refuses:
        kind = pair.model_config.get("model_type")
        text = f"vLLM {pair.vllm} does not run {kind} models in float16: they overflow"
        yield _no("float16", text, "set args.dtype: bfloat16 or float32")


def soft_cap(pair: Pair) -> Iterator[Finding]:
    """A model with capped attention logits, as Gemma 2, needs a backend that caps them."""
    cap = pair.model_config.get("attn_logit_softcapping")
    if not isinstance(cap, int | float) or not cap > 0 or not pair.gpus:
        return
    asked = pair.args.get("attention_backend")
    lacking = asked if asked in limits.NO_SOFT_CAP else None
    why = "args.attention_backend"
    if asked is None and pair.cards:
        newest = max(pair.cards, key=lambda gpu: gpu.capability)
        lacking = limits.default_attention(pair.vllm, newest.capability, pair.dtype or "")
        why = f"what vLLM {pair.vllm} takes for {pair.dtype or 'this dtype'} on {card_name(newest)}"
    if lacking is None:
        return
    if lacking == "XFORMERS" and newer_or_equal(pair.vllm, "0.11"):
        return
    text = (
        f"{pair.model} caps its attention logits (attn_logit_softcapping {cap:g}), and {lacking}, "
        f"{why}, cannot"
    )
    cure = "remove attention_backend or set FLASH_ATTN" if asked else _soft_cap_cure(pair)
    yield _no("soft-cap", text, cure)


def _soft_cap_cure(pair: Pair) -> str:
    if pair.dtype == "float32" and max(gpu.capability for gpu in pair.cards) >= (8, 0):
        return "set args.dtype: bfloat16, or take an environment with vLLM 0.11 or newer"
    return "take an environment with vLLM 0.11 or newer, or a card of compute capability 8.0"


def quantization(pair: Pair) -> Iterator[Finding]:
    """A method needs kernels for the card, and sometimes a package of its own."""
    method = _method(pair)
    if method is None:
        return
    imports = method in limits.QUANTIZATION_PACKAGES
    if imports and pair.packages is not None and method not in pair.packages:
        text = f"quantisation {method} needs the package {method}, which is not in the environment"
        cure = "take another environment, or a model quantised otherwise"
        yield _no("quantization", text, cure)
        return
    gone = limits.QUANTIZATION_GONE.get(method)
    if gone and pair.gpus and newer_or_equal(pair.vllm, gone):
        text = f"vLLM {pair.vllm} no longer has quantisation {method}"
        yield _no("quantization", text, "take an environment with an older vLLM")
        return
    if not pair.gpus:
        if method in limits.NO_CPU_QUANTIZATION:
            text = f"quantisation {method} has no kernels for CPUs"
            yield _no("quantization", text, "take a GPU, or a model that is not quantised")
        return
    needed = limits.quantization_capability(method, pair.vllm)
    old = [gpu for gpu in pair.cards if needed and gpu.capability < needed]
    if needed and old and len(old) == len(pair.cards):
        text = (
            f"quantisation {method} of vLLM {pair.vllm} needs compute capability "
            f"{needed[0]}.{needed[1]}, {card_name(old[0])} is older"
        )
        yield _no("quantization", text, "take a newer card, or a model quantised otherwise")


def _method(pair: Pair) -> str | None:
    asked = pair.args.get("quantization")
    if asked:
        return str(asked)
    return pair.shape.quantization if pair.shape else None


def fp8_cache(pair: Pair) -> Iterator[Finding]:
    """A KV cache in 8 bits needs a backend that reads it on that card."""
    asked = str(pair.args.get("kv_cache_dtype", "auto"))
    if not asked.startswith("fp8") or not pair.cards or not newer_or_equal(pair.vllm, "0.11"):
        return
    newest = max(pair.cards, key=lambda gpu: gpu.capability)
    backend, major = pair.args.get("attention_backend"), newest.capability[0]
    text, cure = "", "set kv_cache_dtype: auto"
    if backend == "FLASH_ATTN" and major != 9:
        text = f"FLASH_ATTN reads a KV cache in {asked} on compute capability 9.0 only"
        cure += ", or remove attention_backend"
    elif backend == "TRITON_ATTN" and newest.capability < limits.FP8:
        text = f"TRITON_ATTN reads a KV cache in {asked} from compute capability 8.9 on"
        cure += ", or set attention_backend: FLASHINFER"
    elif backend is None and newest.capability < (7, 5):
        text = f"no attention backend reads a KV cache in {asked} before compute capability 7.5"
    if text:
        yield _no("fp8-cache", f"{text}, this is {card_name(newest)}", cure)


def gpu_count(pair: Pair) -> Iterator[Finding]:
    """An engine cannot have more GPUs than there are; slices of a card do not work together."""
    if pair.machine is None or not pair.gpus or not pair.machine.gpus:
        return
    there = pair.devices
    if len(there) < pair.node_gpus:
        product = f"{pair.tensor_parallel} × {pair.pipeline_parallel} = {pair.gpus}"
        apart = f", {pair.node_gpus} on each node" if pair.node_gpus < pair.gpus else ""
        sliced = len(devices(pair.machine.inventory)) > len(there)
        text = (
            f"tensor_parallel_size × pipeline_parallel_size = {product} GPUs{apart}, there "
            f"{'is' if len(there) == 1 else 'are'} {len(there)}"
            f"{' that can work together (the others are slices, MIG)' if sliced else ''}"
        )
        yield _no("gpus", text, "lower them, or take a machine with more")


def nodes(pair: Pair) -> Iterator[Finding]:
    """Several nodes need a vLLM whose own executor reaches them."""
    asked = int(pair.tuning.get("nodes") or 1)
    if asked == 1 or not pair.vllm or newer_or_equal(pair.vllm, limits.NODES_SINCE):
        return
    text = f"tuning.nodes: {asked} takes vLLM {limits.NODES_SINCE} or newer, this is {pair.vllm}"
    yield _no("nodes", text, "take an environment with a newer vLLM, or one node")


def strict(pair: Pair) -> Iterator[Finding]:
    """Strict determinism on GPUs is vLLM's batch invariance."""
    if pair.determinism != "strict" or not pair.gpus or not pair.vllm:
        return
    needed = limits.batch_invariance(pair.vllm)
    if needed is None:
        text = f"determinism: strict needs batch invariance, which vLLM {pair.vllm} lacks"
        yield _no("strict", text, "take an environment with a newer vLLM, or write fast")
        return
    old = [gpu for gpu in pair.cards if gpu.capability < needed]
    if old and len(old) == len(pair.cards):
        text = (
            f"determinism: strict needs batch invariance, which vLLM {pair.vllm} has from compute "
            f"capability {needed[0]}.{needed[1]} on; this is {card_name(old[0])}"
        )
        yield _no("strict", text, "take a newer card, or write fast")
