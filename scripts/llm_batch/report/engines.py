"""What the engines of each batch were and how fast: once a batch, however many runs it answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scripts.llm_batch.report import numbers
from scripts.llm_batch.report.records import Experiment, Run

PHASES = ("spawn", "import", "load", "compile", "graph_capture", "warm_up", "other")
"""Parts of an engine's start-up, in order of time; `other` is what the total has beyond them."""


@dataclass(frozen=True)
class Start:
    """One engine start: seconds of each start-up phase and of answering; None is unknown."""

    label: str
    exit: str | None
    phases: Mapping[str, float]
    startup_s: float | None
    generate_s: float | None
    requests: int | None
    prompt_tokens: int | None
    completion_tokens: int | None


@dataclass(frozen=True)
class Batch:
    """A batch, the runs of this report among those it answered, its engines and their facts."""

    name: str
    engine: str
    engine_address: str
    runs: tuple[Run, ...]
    dummy: bool
    starts: tuple[Start, ...]
    headline: tuple[tuple[str, str, str], ...]
    facts: tuple[tuple[str, str], ...]


def batches(experiment: Experiment) -> list[Batch]:
    """Return the batches that answered the runs of a report, each once."""
    return [_read_batch(name, runs) for name, runs in experiment.batches()]


def _read_batch(name: str, runs: Sequence[Run]) -> Batch:
    shards = runs[0].facts.get("shards") or []
    engines = [(shard, engine) for shard in shards for engine in shard.get("engines") or []]
    starts = tuple(
        _read_start(_start_label(number, engine), engine)
        for number, (_, engine) in enumerate(engines, start=1)
    )
    return Batch(
        name=name,
        engine=runs[0].engine_name or name,
        engine_address=runs[0].engine_address,
        runs=tuple(runs),
        dummy=runs[0].is_dummy,
        starts=starts,
        headline=_headline(shards, starts),
        facts=_facts(runs[0], shards, [engine for _, engine in engines]),
    )


def _start_label(number: int, engine: Mapping[str, Any]) -> str:
    ended = engine.get("exit")
    return f"engine {number}" + (f", {ended}" if ended not in (None, "finished") else "")


def _read_start(label: str, engine: Mapping[str, Any]) -> Start:
    split = engine.get("startup_s") or {}
    phases = {name: float(split[name]) for name in PHASES if split.get(name) is not None}
    total = split.get("total")
    if total is not None and total - sum(phases.values()) > 0.005:
        phases["other"] = total - sum(phases.values())
    return Start(
        label=label,
        exit=engine.get("exit"),
        phases=phases,
        startup_s=total,
        generate_s=engine.get("generate_s"),
        requests=engine.get("requests"),
        prompt_tokens=engine.get("prompt_tokens"),
        completion_tokens=engine.get("completion_tokens"),
    )


def total(values: Sequence[float | None]) -> float | None:
    """Return the sum, or None if there is nothing or anything unknown in it."""
    known = [value for value in values if value is not None]
    return sum(known) if known and len(known) == len(values) else None


def rate(amount: float | None, seconds: float | None) -> float | None:
    """Return `amount` a second; None if either is unknown or no time went by."""
    return amount / seconds if amount is not None and seconds else None


def _headline(
    shards: Sequence[Mapping[str, Any]], starts: Sequence[Start]
) -> tuple[tuple[str, str, str], ...]:
    """Return the large figures of a batch: value, what it is, and how it was found."""
    busy = total([start.generate_s for start in starts])
    prompt = rate(total([start.prompt_tokens for start in starts]), busy)
    completion = rate(total([start.completion_tokens for start in starts]), busy)
    startup = total([start.startup_s for start in starts])
    wall = [shard.get("wall_s") for shard in shards]
    longest = max((w for w in wall if w is not None), default=None)
    requests = total([start.requests for start in starts])
    how = "per engine, while answering"
    return (
        (
            numbers.count(len(starts) or None),
            numbers.plural(len(starts), "engine start"),
            f"for {len(shards)} {numbers.plural(len(shards), 'shard')}",
        ),
        (numbers.significant(completion), "tokens/s out", how),
        (numbers.significant(prompt), "tokens/s in", how),
        (numbers.significant(rate(requests, busy)), "requests/s", how),
        (numbers.seconds(startup), "start-up", "all engine starts together"),
        (numbers.seconds(busy), "answering", "all engines together"),
        (numbers.seconds(longest), "wall time", "longest shard"),
    )


def _facts(
    run: Run, shards: Sequence[Mapping[str, Any]], engines: Sequence[Mapping[str, Any]]
) -> tuple[tuple[str, str], ...]:
    first = engines[0] if engines else {}

    def each(key: str, write: Any = numbers.setting) -> str:
        texts = dict.fromkeys(write(e[key]) for e in engines if e.get(key) not in (None, []))
        return ", ".join(texts) or numbers.UNKNOWN

    def of_shards(key: str) -> str:
        texts = dict.fromkeys(str(shard[key]) for shard in shards if shard.get(key))
        return ", ".join(texts) or numbers.UNKNOWN

    def shard_total(key: str) -> str:
        return numbers.count(total([shard.get(key) for shard in shards]))

    hits, queries = first.get("prefix_cache_hit_tokens"), first.get("prefix_cache_query_tokens")
    cached = f"{numbers.percent(rate(hits, queries))} %" if queries else numbers.UNKNOWN
    times = [str(s[k]) for s in shards for k in ("started", "finished") if s.get(k)]
    return (
        ("device", each("device")),
        ("GPUs", each("gpus", lambda uuids: ", ".join(uuids))),
        ("host", of_shards("host")),
        ("backend", each("backend")),
        ("vLLM", each("version")),
        ("torch", each("torch")),
        ("CUDA", each("cuda")),
        ("Python", of_shards("python")),
        ("attention backend", each("attention_backend")),
        ("dtype", each("dtype")),
        ("weights", each("weights_bytes", numbers.data_size)),
        ("max_model_len", each("max_model_len", numbers.count)),
        ("max_num_seqs", each("max_num_seqs", numbers.count)),
        ("max_num_batched_tokens", each("max_num_batched_tokens", numbers.count)),
        ("KV cache, tokens", each("kv_cache_tokens", numbers.count)),
        ("longest requests it holds", each("kv_cache_concurrency", numbers.significant)),
        ("prefix cache hits", cached),
        ("preemptions", numbers.count(total([e.get("preemptions") for e in engines]))),
        ("engine deaths", shard_total("deaths")),
        ("recovered from journals", shard_total("recovered")),
        ("determinism", str(run.engine.get("determinism", "fast"))),
        ("switches", _switches(engines)),
        ("seen on by the engine", each("invariance", _seen_on)),
        ("time", numbers.time_span(times)),
    )


def _seen_on(invariance: Mapping[str, Any]) -> str:
    """Say what the engine itself took for its switch of batch invariance."""
    if invariance.get("switch") is None:
        return "no batch invariance"
    words = {True: "on", False: "off", None: "this vLLM does not tell"}
    return f"{invariance['switch']}: {words[invariance.get('on')]}"


def _switches(engines: Sequence[Mapping[str, Any]]) -> str:
    words = [f"{k}={v}" for e in engines for k, v in sorted((e.get("switches") or {}).items())]
    return " ".join(dict.fromkeys(words)) or numbers.UNKNOWN
