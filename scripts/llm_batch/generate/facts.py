"""The facts of a shard: one record for each engine start, also of those that died."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from scripts.llm_batch.addresses import write_json_atomic
from scripts.llm_batch.generate.engine_log import log_facts
from scripts.llm_batch.gpus.telemetry import summary
from scripts.llm_batch.journals import read_journal

ENGINE_FACTS: tuple[str, ...] = (
    "backend",
    "version",
    "torch",
    "cuda",
    "device",
    "gpus",
    "visible_gpus",
    "slurm",
    "nodes",
    "attention_backend",
    "dtype",
    "max_model_len",
    "max_num_seqs",
    "max_num_batched_tokens",
    "weights_bytes",
    "peak_activation_bytes",
    "non_torch_bytes",
    "graph_capture_bytes",
    "kv_cache_bytes",
    "kv_cache_blocks",
    "kv_cache_block_tokens",
    "kv_cache_tokens",
    "kv_cache_concurrency",
    "prefix_cache_hit_tokens",
    "prefix_cache_query_tokens",
    "preemptions",
    "compile_cache",
    "startup_s",
    "generate_s",
    "requests",
    "prompt_tokens",
    "completion_tokens",
    "cached_prompt_tokens",
    "steps",
    "wall_s",
    "telemetry",
    "switches",
    "invariance",
    "started",
    "exit",
)
"""What is recorded of an engine start; what is not known is null."""

STARTUP_FACTS = ("spawn", "import", "load", "compile", "graph_capture", "warm_up", "total")


@dataclass
class Totals:
    """Counts over the answers of a shard."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    errors: Counter[str] = field(default_factory=Counter)

    def add(self, answer: dict[str, Any]) -> None:
        """Count one answer."""
        if answer.get("error") is not None:
            self.errors[answer["error"]["type"]] += 1
            return
        self.prompt_tokens += answer["prompt_tokens"] or 0
        self.completion_tokens += len(answer["token_ids"])


class Attempt(NamedTuple):
    """The files of one engine start: they share a stem, unlike any other start's."""

    stem: str
    folder: Path
    journals: Path

    @property
    def journal(self) -> Path:
        """Return the journal of its answers."""
        return self.journals / f"{self.stem}.jsonl"

    @property
    def record(self) -> Path:
        """Return the supervisor's record of it."""
        return self.folder / f"{self.stem}.json"

    @property
    def engine(self) -> Path:
        """Return the facts that the worker writes."""
        return self.folder / f"{self.stem}.engine.json"

    @property
    def telemetry(self) -> Path:
        """Return the samples of its GPUs."""
        return self.folder / f"{self.stem}.gpus.jsonl"

    @property
    def log(self) -> Path:
        """Return the engine's log."""
        return self.folder / f"{self.stem}.log"

    def other_log(self) -> Path:
        """Return the log of the engine's process on another node that was written to last."""
        logs = self.folder.glob(f"{self.stem}.?*.log")
        return max(logs, key=lambda path: path.stat().st_mtime, default=self.log)

    def samples(self) -> list[Path]:
        """Return the samples of its GPUs on all nodes."""
        return [self.telemetry, *sorted(self.folder.glob(f"{self.stem}.?*.gpus.jsonl"))]


def start_record(attempt: Attempt, first: dict[str, Any]) -> None:
    """Note an engine start, so that it is known even if the supervisor dies with it."""
    write_json_atomic(attempt.record, {**first, "exit": None})


def finish_record(attempt: Attempt, exit_name: str, wall_s: float | None = None) -> dict[str, Any]:
    """Complete the record of an engine that has ended and return it.

    An engine that ended by itself counted its answers; for all others they are counted here.
    `wall_s` are the seconds from its start to the end of its last process.
    """
    noted = {**read_object(attempt.record), "wall_s": wall_s}
    told = read_object(attempt.engine)
    facts = {**told, **noted, **log_facts(attempt.log)}
    if told.get("exit") != "finished":
        facts.update(count_answers(attempt.journal))
    startup = told.get("startup_s") or {}
    found = facts.pop("log_startup_s")
    facts["startup_s"] = {name: found.get(name, startup.get(name)) for name in STARTUP_FACTS}
    facts["telemetry"] = summary(*attempt.samples(), ready_s=startup.get("total"))
    if facts.get("wall_s") is None and facts["telemetry"]:
        # The supervisor died with the engine; its last sample says how long that ran.
        facts["wall_s"] = facts["telemetry"]["seconds"]
    facts["exit"] = exit_name
    record = {name: facts.get(name) for name in ENGINE_FACTS}
    write_json_atomic(attempt.record, record)
    return record


def earlier_records(folder: Path, journals: Path) -> list[dict[str, Any]]:
    """Return the records of engines that earlier calls started for this shard."""
    records = []
    for path in sorted(folder.glob("*.*.*.json")):
        if path.name.endswith(".engine.json"):
            continue
        record = read_object(path)
        if record.get("exit") is None:
            # The supervisor died with it.
            record = finish_record(Attempt(path.stem, folder, journals), "crashed")
        records.append(record)
    return records


def count_answers(journal: Path) -> dict[str, Any]:
    """Return how many answers a journal holds and their tokens."""
    requests = prompt = completion = 0
    for answer in read_journal(journal) if journal.exists() else ():
        requests += 1
        prompt += answer.get("prompt_tokens") or 0
        completion += len(answer.get("token_ids") or ())
    return {"requests": requests, "prompt_tokens": prompt, "completion_tokens": completion}


def total_of(records: Iterable[dict[str, Any]], name: str) -> int | None:
    """Return the sum of a count over engine starts, None if none of them knows it."""
    values = [record[name] for record in records if record.get(name) is not None]
    return sum(values) if values else None


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in `path`, empty if there is none."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
