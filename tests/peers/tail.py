"""How long GPUs wait for the last shard: shards of one batch, answers of very different lengths.

    python -m tests.peers.tail

Each case is a batch of real requests, cut by `shard_prompts` and answered by the dummy engine, all
shards at once. A tenth of the prompts gets answers ten times as long as the others, which nobody
can tell beforehand: every request has the same `max_tokens`. Idle is 1 - mean / longest time of the
engines while answering: the share of their time that GPUs would wait for the slowest.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from scripts.llm_batch.errors import WorkflowError, run_cli
from tests.peers.measuring import number, table
from tests.workflow.project import make_project

MARK = "essay"
COLUMNS = ("long answers", "shards", "requests", "answering (s), each", "idle (%)")


def rows_first(count: int) -> Iterator[str]:
    """Yield prompts of two kinds that sort apart: those with long answers begin alike."""
    for line in range(count):
        yield f"{MARK} {line}" if line < count // 10 else f"question {line}"


def rows_mixed(count: int) -> Iterator[str]:
    """Yield prompts that say at their end, and in random places, that their answer is long."""
    draw = random.Random(0)
    long = set(draw.sample(range(count), count // 10))
    for line in range(count):
        yield f"{draw.getrandbits(40):x} {MARK if line in long else 'question'}"


CASES: dict[str, Callable[[int], Iterator[str]]] = {
    "begin alike": rows_first,
    "anywhere": rows_mixed,
}


def measure(folder: Path, prompts: Sequence[str], shards: int, latency_s: float) -> list[float]:
    """Return the seconds that the engine of each shard was answering."""
    project = make_project(folder)
    dummy = {"length": 16, "latency_s": latency_s, "long": MARK}
    tuning = {"shards": shards, "max_num_seqs": 32}
    config = project.read_config()
    config["engines"] = {
        "toy": {"model": "toy", "backend": "dummy", "dummy": dummy, "tuning": tuning}
    }
    config["samplings"] = {"warm": {"temperature": 0.7, "max_tokens": 400}}
    config["runs"] = [{"engine": "toy", "prompts": "questions", "sampling": "warm"}]
    project.write_config(config)
    rows: list[dict[str, Any]] = [
        {"id": f"q{line}", "question": text, "answer": ""} for line, text in enumerate(prompts)
    ]
    project.write_prompts(rows)
    outcome = project.snakemake("runs", cores=str(shards))
    if outcome.code:
        raise WorkflowError(f"snakemake ended with {outcome.code}: {outcome.output[-2000:]}")
    facts = sorted(folder.glob("results/batches/*/facts/*.json"))
    found = [json.loads(path.read_text())["engines"][-1]["generate_s"] for path in facts]
    return [float(seconds) for seconds in found]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print a table; 0 on success."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--requests", type=int, default=6000, help="default: %(default)s")
    parser.add_argument("--shards", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--latency", type=float, default=0.4, help="seconds of 16 tokens")
    arguments = parser.parse_args(argv)
    lines = []
    for name, make in CASES.items():
        for shards in arguments.shards:
            with tempfile.TemporaryDirectory(prefix="tail-") as folder:
                prompts = list(make(arguments.requests))
                seconds = measure(Path(folder) / "project", prompts, shards, arguments.latency)
            idle = 1 - sum(seconds) / len(seconds) / max(seconds)
            times = " ".join(number(one, 1) for one in seconds)
            lines.append((name, str(shards), str(len(prompts)), times, number(100 * idle, 1)))
            print(f"{name}, {shards} shards: {times} s, idle {idle:.1%}", file=sys.stderr)
    print(table(COLUMNS, lines))
    return 0


if __name__ == "__main__":
    run_cli(main)
