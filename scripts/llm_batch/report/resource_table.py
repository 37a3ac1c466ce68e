"""The page's tables of engines side by side, and of what each run took."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence

from scripts.llm_batch.report import numbers
from scripts.llm_batch.report.records import Run
from scripts.llm_batch.report.resources import GIB, MEMORY, Resources, mean_rate
from scripts.llm_batch.report.usage import HOUR_S, Usage

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
