"""What a vLLM engine tells about itself. Unknown is None, never 0."""

from __future__ import annotations

from typing import Any

_COUNTERS = {
    "vllm:prefix_cache_hits": "prefix_cache_hit_tokens",
    "vllm:gpu_prefix_cache_hits": "prefix_cache_hit_tokens",
    "vllm:prefix_cache_queries": "prefix_cache_query_tokens",
    "vllm:gpu_prefix_cache_queries": "prefix_cache_query_tokens",
    "vllm:num_preemptions": "preemptions",
}


def engine_facts(llm: Any, config: Any) -> dict[str, Any]:
    """Return versions, resolved settings, sizes and counters of a started engine."""
    model = config.model_config
    scheduler = config.scheduler_config
    facts: dict[str, Any] = {
        **versions(),
        "device": device_name(),
        "dtype": str(model.dtype).rpartition(".")[2],
        "max_model_len": int(model.max_model_len),
        "max_num_seqs": _integer(scheduler, "max_num_seqs"),
        "max_num_batched_tokens": _integer(scheduler, "max_num_batched_tokens"),
        **cache_facts(config.cache_config),
        "prefix_cache_hit_tokens": None,
        "prefix_cache_query_tokens": None,
        "preemptions": None,
    }
    for name, value in counters(llm).items():
        if name in _COUNTERS:
            facts[_COUNTERS[name]] = value
    return facts


def versions() -> dict[str, Any]:
    """Return the versions that decide what runs."""
    import torch
    import vllm

    return {
        "version": str(vllm.__version__),
        "torch": str(torch.__version__),
        "cuda": torch.version.cuda,
    }


def device_name() -> str | None:
    """Return "cpu" or the GPU's name, without starting CUDA in this process."""
    try:
        from vllm.platforms import current_platform

        return str(current_platform.get_device_name())
    except (ImportError, NotImplementedError, AttributeError, RuntimeError):
        return None


def cache_facts(cache: Any) -> dict[str, Any]:
    """Return the size of the KV cache in tokens and how many full contexts fit into it."""
    tokens = _integer(cache, "kv_cache_size_tokens")
    blocks, size = _integer(cache, "num_gpu_blocks"), _integer(cache, "block_size")
    if tokens is None and blocks is not None and size is not None:
        tokens = blocks * size
    concurrency = getattr(cache, "kv_cache_max_concurrency", None)
    return {
        "kv_cache_tokens": tokens,
        "kv_cache_concurrency": None if concurrency is None else round(float(concurrency), 2),
    }


def counters(llm: Any) -> dict[str, int]:
    """Return vLLM's counters, empty where this version has none to offer in the process."""
    try:
        metrics = llm.get_metrics()
    except (AttributeError, AssertionError):
        return {}
    found: dict[str, int] = {}
    for metric in metrics:
        value = getattr(metric, "value", None)
        if value is not None and type(metric).__name__ == "Counter":
            found[metric.name] = found.get(metric.name, 0) + int(value)
    return found


def generated_tokens(llm: Any) -> int | None:
    """Return how many tokens the engine has generated."""
    return counters(llm).get("vllm:generation_tokens")


def _integer(holder: Any, name: str) -> int | None:
    value = getattr(holder, name, None)
    return None if value is None else int(value)
