"""What `determinism: strict` costs on the CPU engine, and what it buys.

    python -m tests.peers.strict --environment results/environments/cpu-0123456789ab

The same prompts go to one `LLM.generate` under three settings, in turn, in another order of the
prompts each round: vLLM's own way to share attention among threads in bfloat16 and in float32, and
strict, which does not share it and needs float32. "same answers" is the share of prompts that all
rounds answered with the same tokens. Our own `fast` is strict's switch without its condition on
the dtype, because the switch was found to cost nothing.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from scripts.llm_batch.errors import run_cli
from tests.peers.compare import add_engine_options, make_engine
from tests.peers.measuring import number, ratio, rotated, table
from tests.peers.stage import (
    Engine,
    Result,
    make_request,
    run_bare,
    share_identical,
    write_requests,
)

SWITCH = "VLLM_CPU_ATTN_SPLIT_KV"

WAYS = ("bfloat16, shared", "float32, shared", "strict")

COLUMNS = (
    *("way", "generating (s)", "of them", "CPU (s)"),
    *("ratio of generating", "ratio of CPU", "same answers"),
)

EXAMPLES = "".join(f"{a}+{b}={a + b}\n" for a, b in ((3, 9), (15, 27), (48, 5), (61, 34), (7, 88)))
"""Before each question: attention is only shared where there is something to attend to."""


@dataclass(frozen=True)
class SharedEngine(Engine):
    """An engine whose threads share the attention of a sequence, as vLLM's own default is."""

    def variables(self) -> dict[str, str]:
        """Return the environment variables of the engine."""
        return {**super().variables(), SWITCH: "1"}


def engine_of(way: str, strict: Engine) -> Engine:
    """Return the engine of one of `WAYS`."""
    if way == "strict":
        return strict
    args = {**strict.args, "dtype": way.partition(",")[0]}
    return SharedEngine(strict.environment, strict.model, strict.cuda, args, strict.tuning)


def requests(count: int, sampling: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield `count` different questions after the examples."""
    for place in range(count):
        text = f"{EXAMPLES}{place % 97}+{place * 7 % 89}="
        yield make_request(place, {"text": text}, {**sampling, "seed": place})


def build_parser() -> argparse.ArgumentParser:
    """Return the command line of this program."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_engine_options(parser)
    parser.add_argument("--requests", type=int, default=2000)
    parser.set_defaults(max_model_len=192)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; 0 on success."""
    arguments = build_parser().parse_args(argv)
    # Alone a thread has nobody to share with, so a small model, too, gets all processors.
    threads = len(os.sched_getaffinity(0))
    os.environ.update(OMP_NUM_THREADS=str(threads), VLLM_CPU_OMP_THREADS_BIND="nobind")
    with tempfile.TemporaryDirectory(prefix="strict-", dir=arguments.folder) as folder:
        results = measure(arguments, Path(folder))
    print(table(COLUMNS, [cells(way, results) for way in WAYS]))
    print(
        f"\n{arguments.requests} seeded requests, {threads} threads; medians of "
        f"{arguments.rounds} rounds, each in another order of the prompts"
    )
    return 0


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, list[Result]]:
    """Return the results of each way, one a round."""
    strict = replace(make_engine(arguments, folder), determinism="strict")
    sampling = {"temperature": 1.0, "max_tokens": arguments.max_tokens, "ignore_eos": True}
    made = list(requests(arguments.requests, sampling))
    few = write_requests(folder / "few.jsonl", made[:8])
    results: dict[str, list[Result]] = {way: [] for way in WAYS}
    for way in WAYS:
        run_bare(engine_of(way, strict), few, folder / f"warm-up {way}")
    for turn in range(arguments.rounds):
        # Steps of another size through the list: another company for every request.
        starts = range(turn + 1)
        order = [one for start in starts for one in made[start :: turn + 1]]
        path = write_requests(folder / f"{turn}.jsonl", order)
        for way in rotated(WAYS, turn):
            result = run_bare(engine_of(way, strict), path, folder / f"{turn} {way}")
            results[way].append(result)
            print(f"round {turn + 1}: {way}: {result.facts['generate_s']:.1f} s", file=sys.stderr)
    return results


def cells(way: str, results: dict[str, list[Result]]) -> tuple[str, ...]:
    """Return a row of the table; ratios are to float32 with shared attention."""
    own, other = results[way], results[WAYS[1]]
    times, others = ([r.facts["generate_s"] for r in one] for one in (own, other))
    used, used_others = ([r.measured.cpu_seconds for r in one] for one in (own, other))
    same = share_identical(own, list(own[0].answers))
    return (
        way,
        number(ratio(times, [1.0]), 1),
        " ".join(f"{one:.1f}" for one in times),
        number(ratio(used, [1.0]), 1),
        number(ratio(times, others), 3),
        number(ratio(used, used_others), 3),
        "–" if same is None else f"{same:.2%}",
    )


if __name__ == "__main__":
    run_cli(main)
