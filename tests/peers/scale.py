"""Measure `shard_prompts` and `merge_run` on millions of prompts, with answers in between.

    python -m tests.peers.scale --rows 10000000

Everything is made in a temporary folder (some 1.5 kB a prompt) and removed afterwards. By default
the answers are simulated: written straight to completions tables without any engine, because their
cost is not what is measured. With `--answers dummy` the real `generate` asks the dummy engine.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from scripts.llm_batch.addresses import address, canonical_json, file_sha256
from scripts.llm_batch.tables import ANSWERS
from tests.peers.measuring import ROOT, number, run_measured, table

CHUNK_ROWS = 50_000
COLUMNS = ("step", "rows", "wall (s)", "rows/s", "CPU (s)", "CPU (µs a row)", "memory (MB)")


@contextmanager
def folder_for(arguments: argparse.Namespace) -> Iterator[Path]:
    """Yield an empty folder, removed afterwards unless `--keep`."""
    if arguments.keep:
        yield Path(tempfile.mkdtemp(prefix="scale-", dir=arguments.folder))
        return
    with tempfile.TemporaryDirectory(prefix="scale-", dir=arguments.folder) as name:
        yield Path(name)


def write_prompts(path: Path, rows: int) -> None:
    """Write distinct questions in random order, some 100 bytes each."""
    numbers = random.Random(0)
    with path.open("wb") as stream:
        for start in range(0, rows, CHUNK_ROWS):
            lines = []
            for row in range(start, min(start + CHUNK_ROWS, rows)):
                a, b = numbers.randrange(10**9), row
                lines.append(
                    f'{{"id":"q{row:08}","question":"What is {a} + {b}? Answer with a number.",'
                    f'"answer":"{a + b}","kind":"addition"}}\n'
                )
            stream.write("".join(lines).encode())


class Batch:
    """A batch of one run, as the plan would describe it to the programs."""

    def __init__(self, folder: Path, prompts: Path, shards: int, samples: int) -> None:
        sampling = {"params": {"max_tokens": 16, "temperature": 0}, "n": 1}
        if samples > 1:
            params = {"max_tokens": 16, "temperature": 0.7}
            sampling = {"params": params, "n": samples, "seed": 0}
        section = {
            "data": file_sha256(prompts),
            "format": ".jsonl",
            "template": "{{ question }}",
            "reference": "answer",
            "id": "id",
        }
        self.results = folder / "results"
        self.shards = shards
        self.engine = {"backend": "dummy", "model": "toy", "environment": "cpu", "args": {}}
        self.identity = {"engine": self.engine, "prompts": section, "sampling": sampling}
        run = address("runs", self.identity)
        batch = {"engine": self.engine, "runs": [run], "shards": shards}
        self.folder = self.results / f"batches/toy-{address('batches', batch)}"
        self.run = self.results / f"runs/scale-{run}"
        self.spec: dict[str, Any] = {
            "identity": batch,
            "engine": f"toy-{address('engines', self.engine)}",
            "prompts": {"p": {"identity": section, "path": str(prompts)}},
            "runs": [{"run": run, "prompts": "p", "sampling": sampling}],
        }

    def completions(self) -> list[Path]:
        """Return the tables of answers, one a shard."""
        return [self.folder / f"completions/{shard}.parquet" for shard in range(self.shards)]

    def shard_command(self) -> list[str]:
        """Return the arguments of `shard_prompts`."""
        output = str(self.folder / "manifest.json")
        spec = canonical_json(self.spec)
        return ["--batch", spec, "--results", str(self.results), "--output", output]

    def merge_command(self) -> list[str]:
        """Return the arguments of `merge_run`."""
        command = ["--identity", canonical_json(self.identity), "--batch", str(self.folder)]
        command += ["--completions", *map(str, self.completions())]
        return [*command, "--output", str(self.run / "manifest.json")]

    def generate_command(self, shard: int) -> list[str]:
        """Return the arguments of `generate` for one shard."""
        return [
            *("--requests", str(self.folder / f"requests/{shard}.jsonl")),
            *("--journals", str(self.results / "engines" / self.spec["engine"] / "journals")),
            *("--journal-name", f"{self.folder.name}.{shard}", "--environment", "", "--model", ""),
            *("--engine", canonical_json(self.engine), "--tuning", "{}"),
            *("--completions", str(self.completions()[shard])),
            *("--facts", str(self.folder / f"facts/{shard}.json")),
        ]


def simulate_answers(batch: Batch) -> None:
    """Write an answer of eight tokens to every request, as `generate` would lay them down."""
    (batch.folder / "completions").mkdir()
    (batch.folder / "facts").mkdir()
    for shard, path in enumerate(batch.completions()):
        requests = batch.folder / f"requests/{shard}.jsonl"
        with requests.open("rb") as lines, pq.ParquetWriter(path, ANSWERS) as writer:
            while chunk := simulated_chunk(lines):
                writer.write_batch(chunk)
        (batch.folder / f"facts/{shard}.json").write_text(json.dumps({"shard": shard}))


def simulated_chunk(lines: BinaryIO) -> pa.RecordBatch | None:
    """Return the answers to the next requests, None after the last."""
    requests = [orjson.loads(line) for line in islice(lines, CHUNK_ROWS)]
    if not requests:
        return None
    count = len(requests)
    values: dict[str, list[Any]] = {
        "key": [request["key"] for request in requests],
        "max_tokens": [request["max_tokens"] for request in requests],
        "text": [f"The answer is {int(request['key'][:7], 16)}." for request in requests],
        "token_ids": [[int(r["key"][i : i + 3], 16) for i in range(8)] for r in requests],
        "finish_reason": ["stop"] * count,
        "prompt_tokens": [20] * count,
        "truncated_prompt_tokens": [0] * count,
        "cumulative_logprob": [int(request["key"][:7], 16) / -1e7 for request in requests],
    }
    arrays = [pa.array(values.get(f.name, [None] * count), type=f.type) for f in ANSWERS]
    return pa.RecordBatch.from_arrays(arrays, schema=ANSWERS)


class Scale:
    """Runs the programs of one checkout one after another, and keeps what each took."""

    def __init__(self, arguments: argparse.Namespace, folder: Path) -> None:
        self.rows: list[tuple[str, ...]] = []
        self._source: Path = arguments.source.resolve()
        self._threads: int | None = arguments.threads
        self._folder = folder

    def program(self, name: str, rows: int, command: Sequence[str]) -> None:
        """Run `python -m scripts.<name>` and add it to the table."""
        words = [sys.executable, "-P", "-m", f"scripts.{name}", *command]
        if self._threads is not None and name != "generate":
            words += ["--threads", str(self._threads)]
        environment = {**os.environ, "PYTHONPATH": str(self._source)}
        took = run_measured(words, self._folder / f"{name}.log", environment)
        if took.code != 0:
            raise SystemExit(f"scripts.{name} failed:\n{took.tail()}")
        self.add(name, rows, took.seconds, took.cpu_seconds, took.peak_bytes)

    def add(self, name: str, rows: int, seconds: float, cpu: float, peak: int | None) -> None:
        """Add a row to the table."""
        self.rows.append(
            (
                name,
                f"{rows:,}",
                number(seconds, 1),
                number(rows / seconds, 0),
                number(cpu, 1),
                number(cpu / rows * 1e6, 1),
                number(None if peak is None else peak / 1e6, 0),
            )
        )


def measure(arguments: argparse.Namespace, folder: Path) -> list[tuple[str, ...]]:
    """Run the programs and return the rows of the table."""
    prompts = folder / "prompts.jsonl"
    write_prompts(prompts, arguments.rows)
    batch = Batch(folder, prompts, arguments.shards, arguments.samples)
    rows = arguments.rows * arguments.samples
    scale = Scale(arguments, folder)
    scale.program("shard_prompts", rows, batch.shard_command())
    if arguments.answers == "simulated":
        began, used = time.perf_counter(), time.process_time()
        simulate_answers(batch)
        seconds, cpu = time.perf_counter() - began, time.process_time() - used
        scale.add("simulated answers", rows, seconds, cpu, None)
    else:
        for shard in range(arguments.shards):
            scale.program("generate", rows // arguments.shards, batch.generate_command(shard))
    scale.program("merge_run", rows, batch.merge_command())
    return scale.rows


def build_parser() -> argparse.ArgumentParser:
    """Return the command line of this program."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="prompts (1 000 000)")
    parser.add_argument("--samples", type=int, default=1, help="completions a prompt (1)")
    parser.add_argument("--shards", type=int, default=4, help="shards of the batch (4)")
    parser.add_argument("--threads", type=int, help="passed to the programs")
    parser.add_argument(
        "--answers", choices=("simulated", "dummy"), default="simulated", help="see above"
    )
    parser.add_argument(
        "--source", type=Path, default=ROOT, help="measure the programs of this checkout"
    )
    parser.add_argument("--folder", type=Path, help="where to make the temporary folder")
    parser.add_argument("--keep", action="store_true", help="do not remove the folder")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; 0 on success."""
    arguments = build_parser().parse_args(argv)
    before = os.getloadavg()[0]
    with folder_for(arguments) as folder:
        rows = measure(arguments, folder)
    print(table(COLUMNS, rows))
    threads = len(os.sched_getaffinity(0))
    print(f"\n{threads} processors; load {before:.1f} before and {os.getloadavg()[0]:.1f} after.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
