"""Answer a random sample of a run again in a fresh engine, and count what comes out identical.

The second engine has the same identity but other company: only the sample, shuffled, and another
number of sequences at a time. Nothing is reused from the first, and nothing is added to it.
Out: `replication.json` with the share of identical answers and where the others part.
"""

from __future__ import annotations

import argparse
import hashlib
import heapq
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import pyarrow.parquet as pq
from statsmodels.stats.proportion import proportion_confint

from scripts import generate, shard_prompts
from scripts.llm_batch.addresses import (
    address,
    canonical_json,
    folder_address,
    read_json,
    write_identity,
    write_json_atomic,
    write_manifest,
    write_text_atomic,
)
from scripts.llm_batch.errors import WorkflowError, run_cli
from scripts.llm_batch.plan.batches import run_adapter

OTHER_COMPANY = (7, 5)
"""Sequences at a time in the second engine; the second figure where the first engine had 7."""

LEVEL = 0.95


class Pair(NamedTuple):
    """The two answers to one request, as token ids."""

    key: str
    first: list[int]
    second: list[int]


class PromptPaths(NamedTuple):
    """The data of a run's prompts, and the file of its few-shot examples if they have one."""

    data: Path
    few_shot: Path | None = None

    def spec(self) -> dict[str, str]:
        """Return what a batch says of these files."""
        own = {"few_shot_path": str(self.few_shot)} if self.few_shot else {}
        return {"path": str(self.data), **own}


def build_parser() -> argparse.ArgumentParser:
    """Return the command line of this program."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--identity", required=True, type=json.loads, help="JSON of the identity")
    parser.add_argument("--run", required=True, type=Path, help="folder of the run")
    parser.add_argument("--prompts", required=True, type=Path, help="prompts file of the run")
    parser.add_argument("--few-shot", type=Path, help="file of few-shot examples of the run")
    parser.add_argument("--environment", default="", help="folder of the environment")
    parser.add_argument("--model", default="", help="folder of the model")
    parser.add_argument("--adapters", default=(), nargs="+", help="folders of LoRA adapters")
    parser.add_argument("--determinism", choices=("fast", "strict"), default="fast")
    parser.add_argument("--tuning", required=True, type=json.loads, help="JSON: placement")
    parser.add_argument("--output", required=True, type=Path, help="manifest.json to write")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Write the replication's folder; the exit code of `generate` if that was interrupted."""
    arguments = build_parser().parse_args(argv)
    folder: Path = arguments.output.parent
    run = read_json(arguments.run / "identity.json")["identity"]
    write_identity(folder, "replications", arguments.identity)
    paths = PromptPaths(arguments.prompts, arguments.few_shot)
    lines = draw_requests(run, paths, arguments.identity["requests"], folder)
    write_text_atomic(folder / "requests.jsonl", "".join(f"{line}\n" for line in lines))
    code = generate.main(generate_arguments(arguments, run, folder))
    if code:
        return code
    record = compare(list(read_pairs(folder, arguments.run)))
    write_json_atomic(folder / "replication.json", {"run": arguments.run.name, **record})
    outputs = [folder / name for name in ("requests.jsonl", "answers.parquet", "replication.json")]
    write_manifest(folder, outputs, record)
    return 0


def draw_requests(
    run: Mapping[str, Any], prompts: PromptPaths, count: int, folder: Path
) -> list[str]:
    """Return `count` requests of a run in an order of their own, both decided by their keys.

    Keys are hashes, so the sample is random, but the same each time.
    """
    with tempfile.TemporaryDirectory(dir=folder, prefix=".scratch-") as scratch:
        path = write_requests(run, prompts, Path(scratch))
        with path.open(encoding="utf-8") as stream:
            drawn = heapq.nsmallest(count, (line.rstrip("\n") for line in stream), key=_draw)
    if not drawn:
        raise WorkflowError(
            f"{prompts.data}: no row of it can be asked, so nothing can be replicated"
        )
    return drawn


def write_requests(run: Mapping[str, Any], prompts: PromptPaths, results: Path) -> Path:
    """Write all requests of a run as `shard_prompts` does where nothing was answered before."""
    identity = {"engine": run["engine"], "runs": [address("runs", run)], "shards": 1}
    batch = {
        "identity": identity,
        "engine": f"engine-{address('engines', run['engine'])}",
        "prompts": {"prompts": {"identity": run["prompts"], **prompts.spec()}},
        "runs": [
            {
                "run": address("runs", run),
                "prompts": "prompts",
                "sampling": run["sampling"],
                **run_adapter(run),
            }
        ],
    }
    folder = results / "batches" / f"batch-{address('batches', identity)}"
    shard_prompts.main(
        [
            "--batch",
            canonical_json(batch),
            "--results",
            str(results),
            "--output",
            str(folder / "manifest.json"),
        ]
    )
    return folder / "requests" / "0.jsonl"


def _draw(line: str) -> str:
    return hashlib.sha256(f"replicate:{json.loads(line)['key']}".encode()).hexdigest()


def generate_arguments(
    arguments: argparse.Namespace, run: Mapping[str, Any], folder: Path
) -> list[str]:
    """Return the command line of `generate` for the second engine."""
    tuning = dict(arguments.tuning)
    company = OTHER_COMPANY[tuning.get("max_num_seqs") == OTHER_COMPANY[0]]
    words = {
        "--requests": folder / "requests.jsonl",
        "--journals": folder / "journals",
        "--journal-name": f"replication-{folder_address(folder)}.0",
        "--environment": arguments.environment,
        "--model": arguments.model,
        "--engine": canonical_json(run["engine"]),
        "--determinism": arguments.determinism,
        "--tuning": canonical_json({**tuning, "max_num_seqs": company}),
        "--completions": folder / "answers.parquet",
        "--facts": folder / "facts.json",
    }
    adapters = ["--adapters", *arguments.adapters] if arguments.adapters else []
    return [str(word) for pair in words.items() for word in pair] + adapters


def read_pairs(folder: Path, run: Path) -> Iterator[Pair]:
    """Yield both answers to each request of the sample that both engines answered."""
    batch = read_json(run / "manifest.json")["facts"]["batch"]
    ledger = run.parent.parent / "batches" / batch / "ledger" / f"{folder_address(run)}.parquet"
    second = pq.read_table(folder / "answers.parquet", columns=["key", "token_ids", "error_type"])
    with duckdb.connect(":memory:") as connection:
        connection.register("second", second)
        rows = connection.execute(
            "SELECT DISTINCT ON (l.key) l.key, c.token_ids, s.token_ids "
            "FROM read_parquet(?) l JOIN read_parquet(?) c ON l.line = c.line "
            "AND l.sample = c.sample JOIN second s ON l.key = s.key "
            "WHERE c.error_type IS NULL AND s.error_type IS NULL ORDER BY l.key",
            [str(ledger), str(run / "completions.parquet")],
        ).fetchall()
    yield from (Pair(*row) for row in rows)


def compare(pairs: Sequence[Pair]) -> dict[str, Any]:
    """Return how many answers are identical (Wilson interval), and where the others part.

    `first_difference` counts, for each position (from 0), the answers whose first differing token
    stands there; an answer that is the beginning of the other parts where it ends.
    """
    parted: dict[int, int] = {}
    for pair in pairs:
        if pair.first != pair.second:
            place = first_difference(pair.first, pair.second)
            parted[place] = parted.get(place, 0) + 1
    identical = len(pairs) - sum(parted.values())
    low, high = (None, None)
    if pairs:
        bounds = proportion_confint(identical, len(pairs), alpha=1 - LEVEL, method="wilson")
        low, high = (round(float(bound), 10) for bound in bounds)
    return {
        "compared": len(pairs),
        "identical": identical,
        "share": identical / len(pairs) if pairs else None,
        "low": low,
        "high": high,
        "level": LEVEL,
        "first_difference": {str(place): parted[place] for place in sorted(parted)},
    }


def first_difference(first: Sequence[int], second: Sequence[int]) -> int:
    """Return the first position where two different token sequences differ."""
    shared = min(len(first), len(second))
    return next((i for i in range(shared) if first[i] != second[i]), shared)


if __name__ == "__main__":
    run_cli(main)
