"""What a vLLM engine tells about itself. Unknown is None, never 0."""

from __future__ import annotations

from typing import Any


class Tap:
    """Counts what the engine's core reports at each step: tokens, cache hits, preemptions.

    vLLM's own statistics cost 15 % of the throughput of a small model, because they observe a
    dozen histograms for each request. The core's reports come at no measurable cost, so its
    statistics stay on, the front end's are turned off, and this listens between the two.
    Where a version is built differently (before 0.8), nothing is tapped and counts are None.
    """

    def __init__(self, engine: Any) -> None:
        self.tokens = 0
        self.preemptions = 0
        self.hits = 0
        self.queries = 0
        core = getattr(engine, "engine_core", None)
        self._receive = getattr(core, "get_output", None)
        self.tapped = self._receive is not None and hasattr(engine, "logger_manager")
        if core is None or not self.tapped:
            return
        core.get_output = self._get_output
        engine.logger_manager = None
        engine.log_stats = False
        engine.output_processor.log_stats = False

    def _get_output(self, *arguments: Any, **named: Any) -> Any:
        received = self._receive(*arguments, **named)  # type: ignore[misc]
        tokens = 0
        for output in received.outputs:
            tokens += len(output.new_token_ids)
            if output.events is not None:
                self.preemptions += sum(event.type.name == "PREEMPTED" for event in output.events)
        self.tokens += tokens
        cache = getattr(received.scheduler_stats, "prefix_cache_stats", None)
        if cache is not None:
            self.hits += cache.hits
            self.queries += cache.queries
        return received

    def facts(self) -> dict[str, int | None]:
        """Return the counts under the names of the shard's facts."""
        if not self.tapped:
            return {}
        return {
            "prefix_cache_hit_tokens": self.hits,
            "prefix_cache_query_tokens": self.queries,
            "preemptions": self.preemptions,
        }


def engine_facts(config: Any) -> dict[str, Any]:
    """Return versions, resolved settings and sizes of a started engine."""
    model = config.model_config
    scheduler = config.scheduler_config
    return {
        **versions(),
        "device": device_name(),
        "dtype": str(model.dtype).rpartition(".")[2],
        "max_model_len": int(model.max_model_len),
        "max_num_seqs": _integer(scheduler, "max_num_seqs"),
        "max_num_batched_tokens": _integer(scheduler, "max_num_batched_tokens"),
        **cache_facts(config.cache_config),
    }


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
    """Return the size of the KV cache in blocks and tokens, and how many full contexts it holds."""
    tokens = _integer(cache, "kv_cache_size_tokens")
    blocks, size = _integer(cache, "num_gpu_blocks"), _integer(cache, "block_size")
    if tokens is None and blocks is not None and size is not None:
        tokens = blocks * size
    concurrency = getattr(cache, "kv_cache_max_concurrency", None)
    return {
        "kv_cache_blocks": blocks,
        "kv_cache_block_tokens": size,
        "kv_cache_tokens": tokens,
        "kv_cache_concurrency": None if concurrency is None else round(float(concurrency), 2),
    }


def _integer(holder: Any, name: str) -> int | None:
    value = getattr(holder, name, None)
    return None if value is None else int(value)
