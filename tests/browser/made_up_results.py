"""Made-up results, for tests and pictures of the report only: no model answered any of this.

The stage folders have the form that the workflow writes; the evaluations are computed from the
made-up completions by the real `evaluate_run`. Some texts are hostile on purpose.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from scripts.evaluate_run import evaluate_run
from scripts.llm_batch.addresses import address, write_identity, write_json_atomic
from scripts.llm_batch.tables import COMPLETIONS
from scripts.report import main

HOSTILE = (
    "</script><script>document.title='owned'</script>",
    "<img src=x onerror=\"document.title='owned'\"> 12",
    "<!--<script>",
    "]]></style><svg/onload=alert(1)>",
    "{{ 7 * 7 }} {% raw %} &lt;b&gt; &amp;",
    "The answer is 🦄🏳️‍🌈 éè 數學 42",
    "الجواب هو ٤٢ 42",
    "abc\u202e24 is turned\u202c, a \u0000 null and a \u200b zero-width space",
    "\u2028line separator\u2029 42",
    "word " * 6000 + "42",
    "",
)
"""Completions that a page must show and must not obey."""

SAMPLINGS: Mapping[str, dict[str, Any]] = {
    "greedy": {"params": {"temperature": 0, "max_tokens": 16}, "n": 1},
    "warm": {"params": {"temperature": 0.7, "max_tokens": 16}, "n": 4, "seed": 0},
    "nucleus": {"params": {"temperature": 1, "top_p": 0.9, "max_tokens": 16}, "n": 4, "seed": 0},
    "top5": {"params": {"temperature": 1, "top_k": 5, "max_tokens": 16}, "n": 4, "seed": 0},
    "hot": {"params": {"temperature": 1.3, "max_tokens": 16}, "n": 4, "seed": 0},
}
SKILL: Mapping[str, float] = {
    "greedy": 0.965, "warm": 0.93, "nucleus": 0.89, "top5": 0.86, "hot": 0.71,
}  # fmt: skip
METRICS = {"number": {"type": "numeric_match"}}


@dataclass
class MadeUp:
    """Where made-up results lie, and the arguments of a report on them."""

    root: Path
    runs: list[Path] = field(default_factory=list)
    evaluations: list[Path] = field(default_factory=list)
    identity: dict[str, Any] = field(default_factory=dict)
    command: str = "snakemake --cores all --configfile made-up.yaml"

    @property
    def report(self) -> Path:
        """The folder that the report must have."""
        name = f"{self.identity['experiment']}-{address('reports', self.identity)}"
        return self.root / "reports" / name

    def arguments(self) -> list[str]:
        """Return the command line of `python -m scripts.report`."""
        sources = {
            "identity": self.identity,
            "runs": [str(run) for run in self.runs],
            "evaluations": [str(evaluation) for evaluation in self.evaluations],
            "replications": [],
            "config": {"experiment": self.identity["experiment"], "note": "made up"},
        }
        command = ["--sources", json.dumps(sources), "--command", self.command]
        return [*command, "--report", str(self.report / "report.html")]

    def write_report(self) -> Path:
        """Run the real program and return the page."""
        assert main(self.arguments()) == 0
        return self.report / "report.html"


def make_results(
    root: Path,
    rows: int = 1000,
    samplings: Sequence[str] | Mapping[str, dict[str, Any]] = tuple(SAMPLINGS),
    backend: str = "vllm",
    options: Mapping[str, Any] | None = None,
    metrics: Mapping[str, Any] | None = None,
) -> MadeUp:
    """Write models, environments, runs and evaluations under `root`.

    `samplings` are names of `SAMPLINGS`, or samplings of one's own by name.
    """
    if not isinstance(samplings, Mapping):
        samplings = {name: SAMPLINGS[name] for name in samplings}
    engine = _write_engine(root, backend)
    result = MadeUp(root)
    entries = []
    used = METRICS if metrics is None else metrics
    total = sum(rows * one["n"] for one in samplings.values())
    batch = f"adder-cpu-{address('batches', [engine, list(samplings), rows])}"
    shards = _shards(total, backend)
    for name, settings in samplings.items():
        prompts = {"data": "d" * 64, "format": ".jsonl", "reference": "answer", "id": "id",
                   "messages": [{"role": "user", "content": "{{ question }}"}]}  # fmt: skip
        identity = {"engine": engine, "prompts": prompts, "sampling": settings}
        run_name = f"adder-cpu.chat.{name}"
        folder = root / "runs" / f"{run_name}-{address('runs', identity)}"
        folder.mkdir(parents=True)
        write_identity(folder, "runs", identity)
        table = _completions(name, settings, rows)
        pq.write_table(table, folder / "completions.parquet")
        write_json_atomic(folder / "facts.json", _facts(folder.name, table, batch, rows, shards))
        result.runs.append(folder)
        evaluation = {"run": address("runs", identity), "metrics": used}
        scored = root / "evaluations" / f"{run_name}-{address('evaluations', evaluation)}"
        evaluate_run(
            folder, run_name, evaluation, scored / "scores.parquet", scored / "metrics.json"
        )
        result.evaluations.append(scored)
        mark = address("evaluations", evaluation)
        entries.append({"run": run_name, "evaluation": mark, "max_error_rate": 0.02})
    title = "Made-up adder: what sampling costs"
    chosen = {"title": title, "rows": 2000} | dict(options or {})
    result.identity = {"experiment": "made-up", "evaluations": entries, "options": chosen}
    return result


def _write_engine(root: Path, backend: str) -> dict[str, Any]:
    """Write the stage folders of an environment and a model; return the engine's identity."""
    if backend == "dummy":
        return {"backend": "dummy", "model": "adder", "environment": "cpu", "args": {}, "dummy": {}}
    locks = {"cpu.requirements.txt": "1" * 64, "cpu.yaml": "2" * 64}
    environment = {"lock_sha256": locks, "platform": "linux-x86_64"}
    model = {"files": {"config.json": "3" * 64, "model.safetensors": "4" * 64}}
    found = {}
    for stage, name, identity, description in (
        ("environments", "cpu", environment, {"python": "3.11.9", "packages": {"vllm": "0.0.0"}}),
        ("models", "adder", model, {"source": "made-up", "files": []}),
    ):
        found[stage] = address(stage, identity)
        folder = root / stage / f"{name}-{found[stage]}"
        folder.mkdir(parents=True)
        write_identity(folder, stage, identity)
        write_json_atomic(folder / f"{stage[:-1]}.json", description)
    return {
        "backend": "vllm",
        "model": found["models"],
        "environment": found["environments"],
        "args": {"dtype": "float32", "max_model_len": 128},
    }


def _completions(sampling: str, settings: Mapping[str, Any], rows: int) -> pa.Table:
    """Make up the completions of a run: right less often the warmer the sampling is."""
    random_ = random.Random(f"made up {sampling}")
    skill = SKILL.get(sampling, 1.0 - 0.3 * _heat(settings["params"]))
    records = []
    for line in range(1, rows + 1):
        a, b = (line * 37) % 90 + 10, (line * 61) % 90 + 10
        records += [
            _record(random_, skill, "seed" in settings, line, sample, (a, b))
            for sample in range(settings["n"])
        ]
    columns = {name: [r.get(name) for r in records] for name in COMPLETIONS.names}
    return pa.table(columns, schema=COMPLETIONS)


def _heat(params: Mapping[str, Any]) -> float:
    """Make up how far a sampling strays from the likeliest answer, from 0 to about 1."""
    cut = float(params.get("top_p", 1)) * (0.6 if params.get("top_k") else 1.0)
    return float(params["temperature"]) * cut


def _record(
    random_: random.Random,
    skill: float,
    seeded: bool,
    line: int,
    sample: int,
    numbers: tuple[int, int],
) -> dict[str, Any]:
    a, b = numbers
    question = f"What is {a} + {b}?"
    record: dict[str, Any] = {
        "row": f"addition-{a}-{b}-{line}",
        "line": line,
        "sample": sample,
        "prompt": json.dumps([{"role": "user", "content": question}]),
        "reference": json.dumps(str(a + b)),
        "completion_tokens": 0,
        "truncated_prompt_tokens": 0,
    }
    if line % 250 == 17:
        long = json.dumps([{"role": "user", "content": f"<b>What</b> is {'1 + ' * 300}1?"}])
        message = "the prompt has 1204 tokens, the engine takes 128"
        kind = "prompt_too_long" if line % 500 == 17 else "prompt_empty"
        if kind == "prompt_empty":
            long, message = json.dumps([{"role": "user", "content": ""}]), "the prompt is empty"
        error = {"error_type": kind, "error_message": message, "finish_reason": "error"}
        return {**record, "prompt": long, **error}
    text, reason = _answer(random_, skill, line, a + b)
    seed = {"seed": random_.getrandbits(63)} if seeded else {}
    return {
        **record,
        **seed,
        "rendered_prompt": f"<|user|>{question}<|assistant|>",
        "text": text,
        "token_ids": list(range(len(text) % 14)),
        "finish_reason": reason,
        "prompt_tokens": 14,
        "completion_tokens": 16 if reason == "length" else min(15, 3 + len(text) // 4),
    }


def _answer(random_: random.Random, skill: float, line: int, right: int) -> tuple[str, str]:
    if line % 83 == 5:
        return HOSTILE[line // 83 % len(HOSTILE)], "stop"
    # Every row has its own difficulty, so that more samples help on some rows and not on others.
    hard = random.Random(line).random() ** 3
    if random_.random() < skill - 0.35 * hard * (1.2 - skill):
        wordy = random_.random() < 0.3
        return (f"{right}" if not wordy else f"The answer is {right}."), "stop"
    wrong = right + random_.choice([-10, -1, 1, 2, 10])
    if random_.random() < 0.06:
        return f"Let me think about this, {wrong} or {wrong + 1} or", "length"
    return f"{wrong}", "stop"


def _facts(
    run: str, table: pa.Table, batch: str, rows: int, shards: list[dict[str, Any]]
) -> dict[str, Any]:
    errors = [e for e in table["error_type"].to_pylist() if e]
    reasons = table["finish_reason"].to_pylist()
    completions, reused = table.num_rows, table.num_rows // 5
    requested = completions - sum(kind == "prompt_empty" for kind in errors)
    return {
        "run": run,
        "batch": batch,
        "rows": rows,
        "samples": max(table["sample"].to_pylist()) + 1,
        "completions": completions,
        "requested": requested,
        "reused": reused,
        "answered": requested - reused,
        "errors": {kind: errors.count(kind) for kind in sorted(set(errors))},
        "finish_reasons": {kind: reasons.count(kind) for kind in sorted(set(reasons))},
        "tokens": {
            "prompt": sum(n or 0 for n in table["prompt_tokens"].to_pylist()),
            "completion": sum(table["completion_tokens"].to_pylist()),
        },
        "shards": shards,
    }


def _shards(total: int, backend: str) -> list[dict[str, Any]]:
    """Make up two shards; the first engine of the second one died."""
    half = total * 4 // 10
    first = _shard("0", [_start(half, "finished", backend)], 0)
    second = [_start(half // 8, "crashed", backend), _start(half - half // 8, "finished", backend)]
    return [first, _shard("1", second, 1)]


def _shard(name: str, engines: list[dict[str, Any]], deaths: int) -> dict[str, Any]:
    requests = sum(engine["requests"] for engine in engines)
    return {
        "shard": name,
        "requests": requests,
        "answered": requests,
        "recovered": 12 * deaths,
        "errors": {},
        "tokens": {"prompt": 14 * requests, "completion": 4 * requests, "cached_prompt": None},
        "engines": engines,
        "deaths": deaths,
        "wall_s": 31.4 + 9 * deaths,
        "host": "made-up-host",
        "python": "3.11.9",
        "started": "2026-01-02T03:04:05+00:00",
        "finished": f"2026-01-02T03:04:{37 + 9 * deaths}+00:00",
    }


def _start(requests: int, exit_: str, backend: str) -> dict[str, Any]:
    startup = {"spawn": 0.11, "import": 6.2, "load": 1.4, "compile": None, "graph_capture": None,
               "warm_up": 2.3, "total": 10.9}  # fmt: skip
    if backend == "dummy":
        startup = dict.fromkeys(startup) | {"total": 0.02}
    return {
        "backend": backend,
        "version": None if backend == "dummy" else "0.0.0 (made up)",
        "torch": None if backend == "dummy" else "0.0.0+cpu",
        "cuda": None,
        "device": "cpu",
        "gpus": [],
        "attention_backend": None,
        "dtype": "float32",
        "max_model_len": 128,
        "max_num_seqs": 256,
        "max_num_batched_tokens": 4096,
        "weights_bytes": 2_600_000,
        "kv_cache_tokens": 65536,
        "kv_cache_concurrency": 512.0,
        "prefix_cache_hit_tokens": None,
        "prefix_cache_query_tokens": None,
        "preemptions": 0,
        "startup_s": startup,
        "generate_s": requests / 420,
        "requests": requests,
        "prompt_tokens": 14 * requests,
        "completion_tokens": 4 * requests,
        "switches": {"OMP_NUM_THREADS": "2"},
        "exit": exit_,
    }
