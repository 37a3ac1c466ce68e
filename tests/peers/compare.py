"""Compare our generate stage with other ways to have vLLM answer the same prompts.

    python -m tests.peers.compare --environment results/environments/cpu-0123456789ab

All start an engine with the same settings, on this machine, in turn; start and end are counted.
bare: one `LLM.generate` (`LLM.chat`) in a script; run-batch: `vllm run-batch`, chat only;
lm-eval: lm-evaluation-harness, greedy only. The last two need `--peer-python`, an interpreter with
their packages and the same vLLM.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts.llm_batch.addresses import read_json, write_json_atomic
from scripts.llm_batch.errors import WorkflowError, run_cli
from tests.peers.measuring import ROOT, number, ratio, rotated, table
from tests.peers.others import lm_eval_missing, run_batch_missing, run_lm_eval, run_run_batch
from tests.peers.stage import (
    Engine,
    Result,
    make_environment,
    make_model,
    make_request,
    run_bare,
    run_ours,
    write_requests,
)

QUICKSTART = ROOT / "config" / "quickstart" / "model"

CACHE_BYTES = 256 << 20
"""The KV cache of all engines on a CPU; the default depends on the memory that is free."""

PEERS = ("bare", "ours", "run-batch", "lm-eval")

COLUMNS = (
    "program",
    "wall (s)",
    "of them",
    "CPU (s)",
    "requests/s",
    "memory (MB)",
    "ratio of wall",
    "ratio of CPU",
    "same texts",
)


def build_parser() -> argparse.ArgumentParser:
    """Return the command line of this program."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_engine_options(parser)
    parser.add_argument("--requests", type=int, default=20000)
    parser.add_argument("--form", choices=("text", "chat"), default="text")
    parser.add_argument("--sampling", choices=("greedy", "seeded"), default="greedy")
    parser.add_argument("--peers", default=",".join(PEERS), type=lambda text: text.split(","))
    parser.add_argument("--peer-python", type=Path, help="interpreter of run-batch and lm-eval")
    return parser


def add_engine_options(parser: argparse.ArgumentParser) -> None:
    """Add what says which engine to use, and how often."""
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--environment", type=Path, help="folder under results/environments")
    where.add_argument("--engine-python", type=Path, help="any interpreter with vLLM for the CPU")
    parser.add_argument("--model", type=Path, default=QUICKSTART, help="default: the quickstart's")
    parser.add_argument("--max-tokens", type=int, default=16)
    parser.add_argument("--max-num-seqs", type=int, default=256)
    parser.add_argument("--max-model-len", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where to work; default: temporary")
    parser.add_argument("--out", type=Path, help="JSON with everything measured")


def make_engine(arguments: argparse.Namespace, folder: Path) -> Engine:
    """Return the engine that all programs use."""
    environment = arguments.environment
    if environment is None:
        environment = make_environment(folder / "environment", arguments.engine_python, None)
    cuda = read_json(environment / "environment.json").get("cuda")
    own = arguments.model / "snapshot"
    model = arguments.model if own.exists() else make_model(folder / "model", arguments.model)
    tuning: dict[str, Any] = {"max_num_seqs": arguments.max_num_seqs}
    if cuda is None:
        tuning["kv_cache_memory_bytes"] = CACHE_BYTES
    dtype = "float32" if cuda is None else "bfloat16"
    return Engine(
        environment=environment,
        model=model,
        cuda=cuda,
        args={"dtype": dtype, "max_model_len": arguments.max_model_len},
        tuning=tuning,
    )


def requests(count: int, form: str, sampling: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield `count` different questions; with a seed in `sampling` each has one of its own."""
    for place in range(count):
        question = f"What is {place // 1000} + {place % 1000}?"
        prompt = (
            {"text": question}
            if form == "text"
            else {"messages": [{"role": "user", "content": question}]}
        )
        own = dict(sampling)
        if "seed" in own:
            own["seed"] = place
        yield make_request(place, prompt, own)


def main(argv: Sequence[str] | None = None) -> int:
    """Compare; 0 on success."""
    arguments = build_parser().parse_args(argv)
    if unknown := set(arguments.peers) - set(PEERS):
        raise WorkflowError(f"--peers: {', '.join(sorted(unknown))}; known: {', '.join(PEERS)}")
    if arguments.folder is not None:
        compare(arguments, arguments.folder.absolute())
        return 0
    with tempfile.TemporaryDirectory(prefix="peers-") as folder:
        compare(arguments, Path(folder))
    return 0


def compare(arguments: argparse.Namespace, folder: Path) -> None:
    """Run all programs in turn and print the table."""
    engine = make_engine(arguments, folder)
    sampling: dict[str, Any] = {"temperature": 0.0, "max_tokens": arguments.max_tokens}
    if arguments.sampling == "seeded":
        sampling.update(temperature=0.8, seed=0)
    path = write_requests(
        folder / "requests.jsonl", requests(arguments.requests, arguments.form, sampling)
    )
    peers = startable(arguments)
    # Fills caches for those that come after.
    few = write_requests(folder / "few.jsonl", requests(32, arguments.form, sampling))
    run_bare(engine, few, folder / "warm-up")
    results: dict[str, list[Result]] = {peer: [] for peer in peers}
    for turn in range(arguments.rounds):
        for peer in rotated(peers, turn):
            place = folder / f"{turn}-{peer}"
            result = run(peer, engine, path, place, arguments)
            results[peer].append(result)
            print(f"round {turn + 1}: {peer}: {result.measured.seconds:.1f} s", file=sys.stderr)
            if arguments.out is not None:
                write_json_atomic(arguments.out.absolute(), document(engine, results))
    print(table(COLUMNS, [cells(peer, results) for peer in peers]))
    print(
        f"\n{arguments.requests} requests, {arguments.form}, {arguments.sampling}, at most "
        f"{arguments.max_tokens} tokens; medians of {arguments.rounds} rounds"
    )


def startable(arguments: argparse.Namespace) -> list[str]:
    """Return the programs that can be run; says why others cannot."""
    reasons = {
        "run-batch": run_batch_missing(arguments.peer_python, arguments.form),
        "lm-eval": lm_eval_missing(arguments.peer_python, arguments.sampling),
    }
    found = []
    for peer in arguments.peers:
        if reason := reasons.get(peer):
            print(f"{peer} is left out: {reason}", file=sys.stderr)
        else:
            found.append(peer)
    return found


def run(
    peer: str, engine: Engine, path: Path, folder: Path, arguments: argparse.Namespace
) -> Result:
    """Run one program once."""
    if peer == "bare":
        return run_bare(engine, path, folder)
    if peer == "ours":
        return run_ours(engine, path, folder)
    if peer == "run-batch":
        return run_run_batch(arguments.peer_python, engine, path, folder)
    return run_lm_eval(arguments.peer_python, engine, path, folder)


def document(engine: Engine, results: Mapping[str, Sequence[Result]]) -> dict[str, Any]:
    """Return everything measured."""
    runs = [
        {
            "peer": peer,
            "round": turn,
            "wall_s": result.measured.seconds,
            "cpu_s": result.measured.cpu_seconds,
            "peak_bytes": result.measured.peak_bytes,
            "requests": result.requests,
            "facts": dict(result.facts),
        }
        for peer, found in results.items()
        for turn, result in enumerate(found, start=1)
    ]
    return {"engine": engine.arguments(), "runs": runs}


def cells(peer: str, results: Mapping[str, Sequence[Result]]) -> tuple[str, ...]:
    """Return one row of the table; ratio and texts are compared with bare."""
    own, bare = results[peer], results.get("bare", [])
    seconds = [result.measured.seconds for result in own]
    used = [result.measured.cpu_seconds for result in own]
    wall = ratio(seconds, [1.0])
    memory = ratio([result.measured.peak_bytes / 1e6 for result in own], [1.0])
    return (
        peer,
        number(wall, 1),
        " ".join(f"{one:.1f}" for one in seconds),
        number(ratio(used, [1.0]), 1),
        number(own[0].requests / wall if own and wall else None, 0),
        number(memory, 0),
        number(ratio(seconds, [result.measured.seconds for result in bare]), 3),
        number(ratio(used, [result.measured.cpu_seconds for result in bare]), 3),
        "–" if not (own and bare) else f"{same_texts(own[0], bare[0]):.2%}",
    )


def same_texts(one: Result, other: Result) -> float:
    """Return the share of the requests to which both give the same text."""
    same = sum(
        key in one.answers and one.answers[key][0] == text
        for key, (text, _) in other.answers.items()
    )
    return same / len(other.answers)


if __name__ == "__main__":
    run_cli(main)
