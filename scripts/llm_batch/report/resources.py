"""What engines took and gave, side by side: memory by part, KV cache, start, throughput, energy.

`engines.csv` has a line for each engine start; the page has a column for each batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scripts.llm_batch.report.engines import Batch, rate
from scripts.llm_batch.report.records import Experiment, Run
from scripts.llm_batch.report.usage import Usage, add, gpus_of, usage

GIB = 1 << 30

MEMORY = {
    "weights": "weights_bytes",
    "non-torch": "non_torch_bytes",
    "activations, peak": "peak_activation_bytes",
    "CUDA graphs": "graph_capture_bytes",
    "KV cache": "kv_cache_bytes",
}
"""Parts of a GPU's memory, and the facts that tell their bytes."""

IDENTITY = ("batch", "engine", "engine_address", "shard", "start", "exit", "host", "started")
SETTINGS = (
    "device",
    "gpus",
    "tensor_parallel_size",
    "pipeline_parallel_size",
    "backend",
    "version",
    "dtype",
    "max_model_len",
    "max_num_seqs",
    "max_num_batched_tokens",
)
SIZES = (
    *MEMORY.values(),
    "kv_cache_blocks",
    "kv_cache_block_tokens",
    "kv_cache_tokens",
    "kv_cache_concurrency",
)
TIMES = ("compile_cache", "startup_s", "compile_s", "graph_capture_s", "generate_s", "wall_s")
WORK = (
    "requests",
    "prompt_tokens",
    "completion_tokens",
    "prompt_tokens_per_s",
    "completion_tokens_per_s",
)
TELEMETRY = (
    "energy_j",
    "startup_energy_j",
    "energy_source",
    "utilization_percent",
    "power_w",
    "peak_power_w",
    "peak_memory_bytes",
    "peak_temperature_c",
    "throttled_s",
)
COLUMNS = (*IDENTITY, *SETTINGS, *SIZES, *TIMES, *WORK, *TELEMETRY, "energy_of_1000_tokens_j")


@dataclass(frozen=True)
class Resources:
    """One batch: its engine starts as lines of the CSV, and what its GPUs were used for."""

    batch: Batch
    starts: tuple[Mapping[str, Any], ...]
    usage: Usage | None

    def known(self, name: str) -> list[Any]:
        """Return what its engine starts know of a column."""
        return [start[name] for start in self.starts if start.get(name) is not None]

    def total(self, name: str) -> float | None:
        """Return the sum over its engine starts; None unless all of them know it."""
        return add([start[name] for start in self.starts])

    def first(self, name: str) -> Any:
        """Return a figure that all starts of an engine share."""
        return next(iter(self.known(name)), None)


def resources(
    experiment: Experiment, batches: Sequence[Batch], price: float | None
) -> list[Resources]:
    """Return what the engines of each batch took and gave, in the order of `batches`."""
    runs = dict(experiment.batches())
    found = []
    for batch in batches:
        shards = runs[batch.name][0].facts.get("shards") or []
        lines = tuple(
            _line(batch, runs[batch.name][0], shard, number, engine)
            for shard in shards
            for number, engine in enumerate(shard.get("engines") or [])
        )
        found.append(Resources(batch, lines, usage(shards, price)))
    return found


def _line(
    batch: Batch, run: Run, shard: Mapping[str, Any], number: int, engine: Mapping[str, Any]
) -> dict[str, Any]:
    args = run.engine.get("args") or {}
    startup, telemetry = engine.get("startup_s") or {}, engine.get("telemetry") or {}
    generate, tokens = engine.get("generate_s"), engine.get("completion_tokens")
    energy = telemetry.get("energy_j")
    line: dict[str, Any] = {
        **{name: engine.get(name) for name in (*SETTINGS, *SIZES, *TIMES, *WORK)},
        **{name: telemetry.get(name) for name in TELEMETRY},
        "batch": batch.name,
        "engine": batch.engine,
        "engine_address": batch.engine_address,
        "shard": shard.get("shard"),
        "start": number,
        "exit": engine.get("exit"),
        "host": shard.get("host"),
        "started": engine.get("started"),
        "gpus": gpus_of(shard, engine),
        "tensor_parallel_size": args.get("tensor_parallel_size", 1),
        "pipeline_parallel_size": args.get("pipeline_parallel_size", 1),
        "startup_s": startup.get("total"),
        "compile_s": startup.get("compile"),
        "graph_capture_s": startup.get("graph_capture"),
        "prompt_tokens_per_s": rate(engine.get("prompt_tokens"), generate),
        "completion_tokens_per_s": rate(tokens, generate),
        "energy_of_1000_tokens_j": 1000 * energy / tokens if energy and tokens else None,
    }
    return line


def labelled(found: Sequence[Resources]) -> list[tuple[str, Resources]]:
    """Return each batch with the name of its engine, and its own where that is not enough."""
    names = [one.batch.engine for one in found]
    return [
        (name if names.count(name) == 1 else f"{name} ({one.batch.name.rpartition('-')[2]})", one)
        for name, one in zip(names, found, strict=True)
    ]


def engine_lines(found: Iterable[Resources]) -> tuple[list[str], list[Mapping[str, Any]]]:
    """Return the columns and the lines of engines.csv."""
    return list(COLUMNS), [line for one in found for line in one.starts]


def mean_rate(one: Resources, column: str) -> float | None:
    """Return the tokens a second of each engine of a batch while it was answering."""
    amounts, seconds = one.known(column), one.known("generate_s")
    if len(amounts) != len(one.starts) or len(seconds) != len(one.starts):
        return None
    return rate(sum(amounts), sum(seconds))
