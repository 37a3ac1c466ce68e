"""Speed on a GPU: our generate stage, one `LLM.generate`, and `vllm bench throughput`."""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from scripts.llm_batch.addresses import write_json_atomic
from scripts.llm_batch.errors import WorkflowError
from tests.peers.gpu_power import Reader, find_reader, wait_until_free, watched
from tests.peers.measuring import number, ratio, rotated, run_measured, table
from tests.peers.shapes import SPECIAL, write_shape
from tests.peers.stage import (
    Engine,
    Result,
    failed,
    make_environment,
    make_model,
    make_request,
    run_bare,
    run_ours,
    share_identical,
    write_requests,
)

BENCH = Path(__file__).with_name("bench.py")

SAMPLINGS: dict[str, dict[str, Any]] = {
    "seeded": {"temperature": 0.8, "seed": 0},
    "greedy": {"temperature": 0.0},
}

WARM_UP_REQUESTS = 64

COLUMNS = (
    "sampling, program",
    "wall (s)",
    "ratio to bare",
    "generate (s)",
    "ratio to bare ",
    "requests/s",
    "tokens/s in + out",
    "import (s)",
    "engine (s)",
    "host memory (MB)",
    "GPU (kJ)",
)


@dataclass
class Bench:
    """What is measured so far."""

    engine: Engine
    folder: Path
    reader: Reader | None
    requests: int
    lengths: tuple[int, int]
    deadline: float
    out: Path | None = None
    longest: float = 0.0
    rows: list[dict[str, Any]] = field(default_factory=list)
    results: dict[tuple[str, str], list[Result]] = field(default_factory=dict)

    def has_time(self) -> bool:
        """Tell whether a run as long as the longest so far would end in time."""
        return time.monotonic() + self.longest < self.deadline

    def run(self, peer: str, sampling: str, requests: Path, kept: bool = True) -> None:
        """Measure one program once."""
        wait_until_free(self.reader)
        folder = self.folder / f"{len(self.rows)}-{peer}-{sampling}"
        began = time.monotonic()
        with watched(self.reader) as power:
            if peer == "bench":
                result = run_bench(self.engine, self.requests, self.lengths, folder)
            elif peer == "bare":
                result = run_bare(self.engine, requests, folder)
            else:
                strict = "strict" if peer == "ours-strict" else "fast"
                result = run_ours(replace(self.engine, determinism=strict), requests, folder)
        if kept:
            self.longest = max(self.longest, time.monotonic() - began)
            self.results.setdefault((sampling, peer), []).append(result)
        row = {"peer": peer, "sampling": sampling, "kept": kept, **row_of(result, power.facts())}
        self.rows.append(row)
        if self.out is not None:
            write_json_atomic(self.out, {"engine": self.engine.arguments(), "runs": self.rows})
        print(f"{sampling} {peer}{'' if kept else ' (warm-up)'}: {brief(row)}", flush=True)


def row_of(result: Result, power: Mapping[str, Any]) -> dict[str, Any]:
    """Return everything measured in one run."""
    facts = {name: value for name, value in result.facts.items() if name != "answers"}
    return {
        "requests": result.requests,
        "wall_s": result.measured.seconds,
        "peak_bytes": result.measured.peak_bytes,
        "facts": facts,
        **power,
    }


def brief(row: Mapping[str, Any]) -> str:
    """Return a line about one run."""
    facts = row["facts"]
    startup = {name: round(value, 1) for name, value in facts["startup_s"].items() if value}
    power = "" if row["energy_kj"] is None else f", {row['energy_kj']:.1f} kJ"
    return (
        f"wall {row['wall_s']:.1f} s, generate {facts['generate_s']:.2f} s, start {startup}{power}"
    )


def measure(arguments: argparse.Namespace, folder: Path) -> None:
    """Measure in turns until the rounds or the time are over; print a table."""
    began = time.monotonic()
    shape = arguments.shape or ("tiny" if arguments.cpu else "8b")
    lengths = arguments.input_len, arguments.output_len
    engine = make_engine(arguments, folder, shape, "dummy")
    count = arguments.requests or 2000
    reader = None if arguments.cpu else find_reader()
    out = None if arguments.out is None else arguments.out.absolute()
    bench = Bench(engine, folder, reader, count, lengths, began + arguments.seconds, out)
    paths = {
        name: write_requests(
            folder / f"{name}.jsonl", requests(engine, count, lengths, SAMPLINGS[name])
        )
        for name in arguments.samplings
    }
    warm_up = requests(engine, WARM_UP_REQUESTS, lengths, SAMPLINGS["seeded"])
    # Compiles, and reads the libraries from the disk, for those that come after.
    bench.run("ours", "seeded", write_requests(folder / "warm-up.jsonl", warm_up), kept=False)
    take_turns(bench, arguments, paths)
    print(report(bench), flush=True)


def take_turns(bench: Bench, arguments: argparse.Namespace, paths: Mapping[str, Path]) -> None:
    """Run all programs, another one first in each round."""
    for turn in range(arguments.rounds):
        for sampling, path in paths.items():
            for peer in rotated(arguments.peers, turn):
                # It has one way of sampling only: temperature 1, no seeds.
                if peer == "bench" and sampling != "seeded":
                    continue
                if not bench.has_time():
                    print(f"round {turn + 1}: no time for {sampling} {peer}", flush=True)
                    continue
                try:
                    bench.run(peer, sampling, path)
                except WorkflowError as error:
                    # What the other programs give is worth having all the same.
                    print(f"{sampling} {peer} FAILED: {error}", flush=True)


def make_engine(arguments: argparse.Namespace, folder: Path, shape: str, weights: str) -> Engine:
    """Make environment and model folders, and return the engine that all programs use."""
    dtype = "float32" if arguments.cpu else "bfloat16"
    cuda = None if arguments.cpu else cuda_version(arguments.engine_python)
    snapshot = write_shape(folder / f"snapshot-{shape}", shape, dtype)
    tuning: dict[str, Any] = {"max_num_seqs": arguments.max_num_seqs}
    if not arguments.cpu:
        tuning.update(max_num_batched_tokens=16384, gpu_memory_utilization=0.9)
    args: dict[str, Any] = {"dtype": dtype, "max_model_len": 1024, "enable_prefix_caching": True}
    if weights == "dummy":
        args["load_format"] = "dummy"
    return Engine(
        environment=make_environment(folder / "environment", arguments.engine_python, cuda),
        model=make_model(folder / f"model-{shape}", snapshot),
        cuda=cuda,
        args=args,
        tuning=tuning,
    )


def cuda_version(python: Path) -> str:
    """Return the CUDA version for which the interpreter's torch was built, such as 13.0."""
    code = "import torch; print(torch.version.cuda or '')"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    version = done.stdout.strip()
    if done.returncode or not version:
        raise WorkflowError(f"{python}: no torch for CUDA there; use --cpu or another interpreter")
    return version


def requests(
    engine: Engine, count: int, lengths: tuple[int, int], sampling: Mapping[str, Any]
) -> Iterable[dict[str, Any]]:
    """Yield requests of random words, one token each; every one has a seed of its own."""
    config = json.loads((engine.model / "snapshot" / "config.json").read_text())
    draw = random.Random(0)
    words = range(len(SPECIAL), config["vocab_size"])
    for place in range(count):
        text = " ".join(f"w{token}" for token in draw.choices(words, k=lengths[0]))
        own = {**sampling, "max_tokens": lengths[1], "ignore_eos": True}
        if "seed" in own:
            own["seed"] = place
        yield make_request(place, {"text": text}, own)


def run_bench(engine: Engine, count: int, lengths: tuple[int, int], folder: Path) -> Result:
    """Run `vllm bench throughput` with as many requests of the same lengths."""
    output = folder / "bench.json"
    command: list[str | Path] = [
        *(engine.python, BENCH, "--model", (engine.model / "snapshot").resolve()),
        *("--dataset-name", "random", "--num-prompts", str(count), "--output-json", output),
        *("--random-input-len", str(lengths[0]), "--random-output-len", str(lengths[1])),
        *options(engine.arguments()),
    ]
    measured = run_measured(command, folder / "log.txt", engine.variables())
    if measured.code != 0:
        raise failed("vllm bench throughput", measured)
    found = json.loads(output.read_text())
    tokens = count * lengths[1]
    facts = {
        "startup_s": {"import": None, "load": measured.seconds - found["elapsed_time"]},
        "generate_s": found["elapsed_time"],
        "prompt_tokens": found["total_num_tokens"] - tokens,
        "completion_tokens": tokens,
    }
    return Result("bench", measured, found["num_requests"], facts, {})


def options(arguments: Mapping[str, Any]) -> list[str]:
    """Return engine arguments as options of a command line."""
    found = []
    for name, value in arguments.items():
        option = name.replace("_", "-")
        if isinstance(value, bool):
            found.append(f"--{option}" if value else f"--no-{option}")
        else:
            found += [f"--{option}", str(value)]
    return found


def report(bench: Bench) -> str:
    """Return the table, and what is worth knowing about the answers."""
    lines = [table(COLUMNS, [cells(bench, *place) for place in bench.results]), ""]
    for sampling in SAMPLINGS:
        pair = [bench.results.get((sampling, peer), [])[:1] for peer in ("bare", "ours")]
        first = [result for found in pair for result in found]
        if len(first) == 2 and (share := share_identical(first, list(first[0].answers))):
            lines.append(f"{sampling}: {share:.1%} of the answers of ours and bare are identical")
    versions = {row["facts"].get("version") for row in bench.rows if row["kept"]} - {None}
    lines.append(f"vLLM {', '.join(sorted(map(str, versions)))}, {bench.requests} requests of ")
    lines[-1] += f"{bench.lengths[0]} + {bench.lengths[1]} tokens; medians"
    return "\n".join(lines)


def cells(bench: Bench, sampling: str, peer: str) -> tuple[str, ...]:
    """Return one row of the table: medians over the rounds."""

    def column(name: str, of: str = peer) -> list[float]:
        rows = [
            row
            for row in bench.rows
            if row["kept"] and row["peer"] == of and row["sampling"] == sampling
        ]
        found = [{**row, **row["facts"], **row["facts"]["startup_s"]}.get(name) for row in rows]
        return [float(value) for value in found if value is not None]

    def median(name: str) -> float | None:
        return ratio(column(name), [1.0])

    generate, tokens = (
        median("generate_s"),
        ((median("prompt_tokens") or 0) + (median("completion_tokens") or 0)),
    )
    energy, memory = median("energy_kj"), median("peak_bytes")
    return (
        f"{sampling} {peer} ({len(column('wall_s'))}×)",
        number(median("wall_s"), 1),
        number(ratio(column("wall_s"), column("wall_s", "bare"))),
        number(generate, 2),
        number(ratio(column("generate_s"), column("generate_s", "bare")), 3),
        number(bench.requests / generate if generate else None, 1),
        number(tokens / generate if generate else None, 0),
        number(median("import"), 1),
        number(median("load"), 1),
        number(None if memory is None else memory / 1e6, 0),
        number(energy, 1),
    )
