"""What engines took and gave, side by side: memory by part, KV cache, start, throughput, energy.

`engines.csv` has a line for each engine start; the page has a column for each batch.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scripts.llm_batch.report import numbers
from scripts.llm_batch.report.engines import Batch, rate
from scripts.llm_batch.report.records import Experiment, Run
from scripts.llm_batch.report.usage import HOUR_S, Usage, gpus_of, usage

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


Row = tuple[str, str, list[str]]
"""What a figure is, how it was found, and its text for each batch."""


def table(found: Sequence[Resources]) -> list[Row]:
    """Return the rows of the page's table.

    Rows about GPUs are there if an engine had one, kinds of a start if there was one.
    """
    rows: list[tuple[str, str, Callable[[Resources], str]]] = [
        ("GPUs", "of each engine", lambda one: numbers.count(one.first("gpus"))),
        ("tensor × pipeline", "parallel size", _parallel),
        *((name, "GiB on each GPU", _gib(column)) for name, column in MEMORY.items()),
        ("KV cache, blocks", "× tokens of a block", _blocks),
        ("KV cache, tokens", "", lambda one: numbers.count(one.first("kv_cache_tokens"))),
        (
            "concurrency",
            "requests of full length at once",
            lambda one: numbers.significant(one.first("kv_cache_concurrency")),
        ),
        ("graph capture", "time", lambda one: numbers.seconds(one.first("graph_capture_s"))),
        ("start, cold", "compiling, median", _start("cold")),
        ("start, warm", "compiled code found, median", _start("warm")),
        ("start", "where nothing is compiled, median", _start(None)),
        ("input", "tokens/s of each engine", _rate("prompt_tokens")),
        ("output", "tokens/s of each engine", _rate("completion_tokens")),
    ]
    if any(one.usage for one in found):
        rows += _gpu_rows()
    written = [(name, how, [write(one) for one in found]) for name, how, write in rows]
    return [row for row in written if not (row[0].startswith("start") and _unknown(row[2]))]


def _unknown(texts: Iterable[str]) -> bool:
    return all(text == numbers.UNKNOWN for text in texts)


def _gpu_rows() -> list[tuple[str, str, Callable[[Resources], str]]]:
    def part(name: str) -> Callable[[Resources], str]:
        return lambda one: (
            _percent(one.usage.share(getattr(one.usage, name))) if one.usage else numbers.UNKNOWN
        )

    def figure(read: Callable[[Usage], float | None]) -> Callable[[Resources], str]:
        return lambda one: numbers.significant(read(one.usage) if one.usage else None)

    return [
        ("GPU-hours", "all GPUs of the batch", figure(lambda used: _hours(used.allocated_s))),
        ("generating", "share of the GPU-hours", part("generating_s")),
        ("starting", "loading and compiling", part("starting_s")),
        ("other", "leased, neither of both", part("other_s")),
        ("idle", "no shard left, or none yet", part("idle_s")),
        ("utilisation", "by the driver, mean", _mean("utilization_percent", " %")),
        ("power", "mean of each GPU", _mean("power_w", " W")),
        ("energy", "kJ", figure(lambda used: used.energy_j and used.energy_j / 1000)),
        ("energy", "J per 1 000 output tokens", figure(lambda used: used.energy_of_1000_tokens_j)),
        ("clocks lowered", "seconds by reason", _throttled),
        ("cost", "at the price in the config", figure(lambda used: used.cost)),
    ]


def run_rows(found: Sequence[Resources]) -> list[tuple[Run, list[str]]]:
    """Return energy (kJ) and cost of each run; nothing if neither is known of any."""
    rows = []
    for one in found:
        used = one.usage
        if used is None or (used.energy_j is None and used.cost is None):
            continue
        for run in one.batch.runs:
            tokens = run.facts.get("generated_tokens")
            energy = used.of_run(used.energy_j, tokens)
            texts = [numbers.count(tokens), numbers.significant(energy and energy / 1000)]
            rows.append((run, [*texts, numbers.significant(used.of_run(used.cost, tokens))]))
    return rows


def _hours(seconds: float | None) -> float | None:
    return None if seconds is None else seconds / HOUR_S


def _percent(share: float | None) -> str:
    return numbers.UNKNOWN if share is None else f"{numbers.percent(share)} %"


def _gib(column: str) -> Callable[[Resources], str]:
    def write(one: Resources) -> str:
        size = one.first(column)
        return numbers.UNKNOWN if size is None else numbers.decimal(size / GIB, 2)

    return write


def _parallel(one: Resources) -> str:
    sizes = [one.first(f"{kind}_parallel_size") for kind in ("tensor", "pipeline")]
    return numbers.UNKNOWN if None in sizes else " × ".join(map(str, sizes))


def _blocks(one: Resources) -> str:
    blocks, size = one.first("kv_cache_blocks"), one.first("kv_cache_block_tokens")
    if blocks is None:
        return numbers.UNKNOWN
    return numbers.count(blocks) + (f" × {size}" if size else "")


def _start(cache: str | None) -> Callable[[Resources], str]:
    def write(one: Resources) -> str:
        known = [
            start["startup_s"]
            for start in one.starts
            if start["compile_cache"] == cache and start["startup_s"] is not None
        ]
        return numbers.seconds(statistics.median(known) if known else None)

    return write


def _rate(column: str) -> Callable[[Resources], str]:
    def write(one: Resources) -> str:
        return numbers.significant(mean_rate(one, column))

    return write


def mean_rate(one: Resources, column: str) -> float | None:
    """Return the tokens a second of each engine of a batch while it was answering."""
    amounts, seconds = one.known(column), one.known("generate_s")
    if len(amounts) != len(one.starts) or len(seconds) != len(one.starts):
        return None
    return rate(sum(amounts), sum(seconds))


def _mean(column: str, unit: str) -> Callable[[Resources], str]:
    def write(one: Resources) -> str:
        known = one.known(column)
        return numbers.significant(statistics.mean(known)) + unit if known else numbers.UNKNOWN

    return write


def _throttled(one: Resources) -> str:
    known = one.known("throttled_s")
    if not known:
        return numbers.UNKNOWN
    sums: dict[str, float] = {}
    for reasons in known:
        for name, seconds in reasons.items():
            sums[name] = sums.get(name, 0.0) + seconds
    words = [f"{name.replace('_', ' ')} {numbers.seconds(s)}" for name, s in sums.items()]
    return ", ".join(words) or "never"
