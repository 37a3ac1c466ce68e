"""How long GPUs wait for the last shard: shards of one batch, answers of very different lengths.

    python -m tests.peers.tail                  # counted in steps of the dummy engine, over seeds
    python -m tests.peers.tail --slept          # whole runs that take their time, one of each

A batch of requests is cut as `shard_prompts` cuts it, and its shards are answered by the dummy
engine, 32 requests at once, all shards beginning together. A tenth of the prompts gets answers ten
times as long as the others. Nobody can tell beforehand, for all requests have the same
`max_tokens`; except in the last case, where the long ones have ten times the limit of the others.
Idle is 1 - mean / longest time of the shards: the share of their time that GPUs wait for the
slowest. What it would be if time were tokens is shown beside ("of sums"); the difference is due to
the last answers of each shard, which run with few others.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from scripts.llm_batch.errors import WorkflowError, run_cli
from scripts.llm_batch.ledger import CHARACTERS_PER_TOKEN, REQUESTS, SamplingText
from scripts.llm_batch.sharding import (
    database,
    load_answers,
    load_requests,
    write_reused,
    write_shards,
)
from scripts.worker.dummy_engine import DummyEngine
from scripts.worker.engine import RequestError
from scripts.worker.settings import Settings
from tests.peers.measuring import number, table
from tests.workflow.project import make_project

MARK = "essay"
LENGTH, AT_ONCE, LIMIT = 16, 32, 400
SEEDS, SHARDS, SIZES = 5, (2, 4), (1000, 2000, 5000, 10_000, 20_000)
COLUMNS = (
    "long answers",
    "shards",
    "requests each",
    "idle, median (%)",
    "worst (%)",
    "of sums (%)",
)
SLEPT_COLUMNS = ("long answers", "shards", "requests", "answering (s), each", "idle (%)")


class Asked(NamedTuple):
    """A request: its prompt, and the most tokens of its answer."""

    prompt: str
    max_tokens: int


def rows_first(count: int, draw: random.Random) -> Iterator[Asked]:
    """Yield prompts of two kinds that sort apart: those with long answers begin alike."""
    for line in range(count):
        kind = MARK if line < count // 10 else "question"
        yield Asked(f"{kind} {draw.getrandbits(40):x}", LIMIT)


def rows_mixed(count: int, draw: random.Random) -> Iterator[Asked]:
    """Yield prompts that say at their end, and in random places, that their answer is long."""
    long = set(draw.sample(range(count), count // 10))
    for line in range(count):
        yield Asked(f"{draw.getrandbits(40):x} {MARK if line in long else 'question'}", LIMIT)


def rows_limited(count: int, draw: random.Random) -> Iterator[Asked]:
    """Yield the same, with limits that tell: a tenth may have ten times as many tokens."""
    for asked in rows_mixed(count, draw):
        yield asked._replace(max_tokens=LIMIT if MARK in asked.prompt else LIMIT // 10)


CASES: dict[str, Callable[[int, random.Random], Iterator[Asked]]] = {
    "begin alike": rows_first,
    "anywhere": rows_mixed,
    "anywhere, limits tell": rows_limited,
}


class Idle(NamedTuple):
    """The share of time lost at the end, and what it would be if time were tokens."""

    time: float
    tokens: float


def idle(values: Sequence[float]) -> float:
    """Return the share of their time that all but the longest wait."""
    return 1 - sum(values) / len(values) / max(values)


def counted(asked: Sequence[Asked], shards: int) -> Idle:
    """Cut a batch, have the dummy engine answer it without sleeping, and count its steps."""
    steps, tokens = [], []
    with tempfile.TemporaryDirectory(prefix="tail-") as name:
        for path in cut(asked, shards, Path(name)):
            one = answered(path)
            steps.append(one[0])
            tokens.append(one[1])
    return Idle(idle(steps), idle(tokens))


def cut(asked: Sequence[Asked], shards: int, folder: Path) -> list[Path]:
    """Write the requests of each shard as `shard_prompts` does."""
    rows = [
        {
            "key": f"{line:032x}",
            "max_tokens": one.max_tokens,
            "prompt": json.dumps({"text": one.prompt}),
            "sampling": 0,
            "seed": line,
            "expected_tokens": len(one.prompt) // CHARACTERS_PER_TOKEN + one.max_tokens,
        }
        for line, one in enumerate(asked)
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=REQUESTS), folder / "requests.parquet")
    text = SamplingText(',"sampling":{"temperature":0.7', '},"expected_tokens":')
    with database(folder / "scratch") as connection:
        load_requests(connection, [folder / "requests.parquet"])
        load_answers(connection, [], folder)
        write_reused(connection, folder / "reused.parquet")
        write_shards(connection, folder / "shards", shards, [text])
    return [folder / f"shards/{shard}.jsonl" for shard in range(shards)]


def answered(path: Path) -> tuple[int, int]:
    """Return the steps that a dummy engine takes for the requests in a file, and their tokens."""
    fields: dict[str, Any] = dict.fromkeys(Settings.__annotations__)
    fields |= {"start": 0, "args": {"max_num_seqs": AT_ONCE}}
    fields |= {"dummy": {"length": LENGTH, "long": MARK}}
    engine = DummyEngine(Settings(**fields))
    requests = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for place, prepared in enumerate(engine.prepare(requests)):
        if isinstance(prepared, RequestError):
            raise prepared
        engine.add(str(place), prepared)
    left = len(requests)
    while left:
        left -= len(engine.step())
    return engine.now, engine.generated_tokens() or 0


def slept(folder: Path, asked: Sequence[Asked], shards: int, latency_s: float) -> list[float]:
    """Return the seconds that the engine of each shard was answering, in a run that takes them."""
    project = make_project(folder)
    dummy = {"length": LENGTH, "latency_s": latency_s, "long": MARK}
    tuning = {"shards": shards, "max_num_seqs": AT_ONCE}
    config = project.read_config()
    config["engines"] = {
        "toy": {"model": "toy", "backend": "dummy", "dummy": dummy, "tuning": tuning}
    }
    config["samplings"] = {"warm": {"temperature": 0.7, "max_tokens": LIMIT}}
    config["runs"] = [{"engine": "toy", "prompts": "questions", "sampling": "warm"}]
    project.write_config(config)
    rows: list[dict[str, Any]] = [
        {"id": f"q{line}", "question": one.prompt, "answer": ""} for line, one in enumerate(asked)
    ]
    project.write_prompts(rows)
    outcome = project.snakemake("runs", cores=str(shards))
    if outcome.code:
        raise WorkflowError(f"snakemake ended with {outcome.code}: {outcome.output[-2000:]}")
    facts = sorted(folder.glob("results/batches/*/facts/*.json"))
    found = [json.loads(path.read_text())["engines"][-1]["generate_s"] for path in facts]
    return [float(seconds) for seconds in found]


def count_all(shard_counts: Sequence[int], sizes: Sequence[int], seeds: int) -> None:
    """Print the table over seeds."""
    lines = []
    for name, make in CASES.items():
        for shards in shard_counts:
            for size in sizes:
                found = []
                for seed in range(seeds):
                    asked = list(make(size * shards, random.Random(seed)))
                    found.append(counted(asked, shards))
                times = [one.time for one in found]
                sums = statistics.median(one.tokens for one in found)
                shown = [statistics.median(times), max(times), sums]
                lines.append((name, str(shards), str(size), *(number(100 * x, 1) for x in shown)))
                print(" ".join(lines[-1]), file=sys.stderr)
    print(table(COLUMNS, lines))


def sleep_all(shard_counts: Sequence[int], requests: int, latency_s: float) -> None:
    """Print the table of runs that take their time; the last case needs limits of its own."""
    lines = []
    for name in ("begin alike", "anywhere"):
        for shards in shard_counts:
            with tempfile.TemporaryDirectory(prefix="tail-") as folder:
                asked = list(CASES[name](requests, random.Random(0)))
                seconds = slept(Path(folder) / "project", asked, shards, latency_s)
            times = " ".join(number(one, 1) for one in seconds)
            lines.append((name, str(shards), str(requests), times, number(100 * idle(seconds), 1)))
            print(" ".join(lines[-1]), file=sys.stderr)
    print(table(SLEPT_COLUMNS, lines))


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print a table; 0 on success."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--shards", type=int, nargs="+", default=list(SHARDS))
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), help="a shard")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="default: %(default)s")
    parser.add_argument("--slept", action="store_true", help="whole runs, in seconds")
    parser.add_argument("--requests", type=int, default=6000, help="in all, if slept")
    parser.add_argument("--latency", type=float, default=0.4, help="seconds of 16 tokens, if slept")
    arguments = parser.parse_args(argv)
    if arguments.slept:
        sleep_all(arguments.shards, arguments.requests, arguments.latency)
    else:
        count_all(arguments.shards, arguments.sizes, arguments.seeds)
    return 0


if __name__ == "__main__":
    run_cli(main)
