"""Compare 24 samplings over one model and the same prompts, answered in three ways.

    python -m tests.peers.sweep --environment results/environments/cpu-0123456789ab

ours: one batch, one engine start of the generate stage; pooled: all requests in one
`LLM.generate`; separate: a script run once for each sampling, as sweeps are usually done.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from scripts.llm_batch.addresses import write_json_atomic
from scripts.llm_batch.errors import run_cli
from tests.peers.compare import add_engine_options, make_engine, requests
from tests.peers.measuring import number, ratio, rotated, table
from tests.peers.stage import Engine, Result, run_bare, run_ours, share_identical, write_requests

TEMPERATURES = (0.2, 0.4, 0.6, 0.8, 1.0, 1.2)
TOP_PS = (1.0, 0.95, 0.9, 0.8)

COLUMNS = (
    "way",
    "engine starts",
    "wall (s)",
    "of them",
    "CPU (s)",
    "requests/s",
    "ratio of wall",
    "ratio of CPU",
)


def build_parser() -> argparse.ArgumentParser:
    """Return the command line of this program."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_engine_options(parser)
    parser.add_argument("--prompts", type=int, default=500, help="prompts of each sampling")
    parser.add_argument("--samplings", type=int, default=24)
    parser.add_argument(
        "--extrapolate",
        type=int,
        metavar="N",
        help="run only N of the separate starts, and multiply",
    )
    return parser


def samplings(count: int, max_tokens: int) -> list[dict[str, Any]]:
    """Return `count` ways to sample."""
    grid = itertools.cycle(itertools.product(TEMPERATURES, TOP_PS))
    return [
        {"temperature": temperature, "top_p": top_p, "seed": 0, "max_tokens": max_tokens}
        for temperature, top_p in itertools.islice(grid, count)
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Compare; 0 on success."""
    arguments = build_parser().parse_args(argv)
    if arguments.folder is not None:
        compare(arguments, arguments.folder.absolute())
        return 0
    with tempfile.TemporaryDirectory(prefix="peers-") as folder:
        compare(arguments, Path(folder))
    return 0


def compare(arguments: argparse.Namespace, folder: Path) -> None:
    """Run ours and pooled in turn, then the separate starts once; print the table."""
    engine = make_engine(arguments, folder)
    count = arguments.prompts
    runs = [
        list(requests(count, "text", sampling))
        for sampling in samplings(arguments.samplings, arguments.max_tokens)
    ]
    paths = [write_requests(folder / f"run-{place}.jsonl", run) for place, run in enumerate(runs)]
    everything = write_requests(folder / "all.jsonl", itertools.chain.from_iterable(runs))
    run_bare(engine, write_requests(folder / "few.jsonl", runs[0][:32]), folder / "warm-up")
    results: dict[str, list[Result]] = {"pooled": [], "ours": []}
    for turn in range(arguments.rounds):
        for way in rotated(list(results), turn):
            place = folder / f"{turn}-{way}"
            answer = run_bare if way == "pooled" else run_ours
            results[way].append(answer(engine, everything, place))
            print(f"{way}: {results[way][-1].measured.seconds:.1f} s", file=sys.stderr)
    separate = run_separate(engine, paths[: arguments.extrapolate], folder)
    takes = {way: [took(result) for result in found] for way, found in results.items()}
    rows = [cells(way, "1", takes[way], takes["pooled"], arguments) for way in results]
    rows.append(separate_cells(separate, takes["pooled"], arguments))
    print(table(COLUMNS, rows))
    pair = [found[0] for found in results.values()]
    share = share_identical(pair, list(pair[0].answers))
    print(
        f"\n{arguments.samplings} samplings of {count} prompts, at most {arguments.max_tokens} "
        f"tokens; medians of {arguments.rounds} rounds; {share or 0:.2%} of the answers of ours "
        "and pooled are identical"
    )
    if arguments.out is not None:
        write_json_atomic(arguments.out.absolute(), {**takes, "separate": separate})


class Took(NamedTuple):
    """Seconds of one way to answer everything, or a part of it."""

    wall: float
    cpu: float


def took(result: Result) -> Took:
    """Return the seconds of one run."""
    return Took(result.measured.seconds, result.measured.cpu_seconds)


def run_separate(engine: Engine, paths: Sequence[Path], folder: Path) -> list[Took]:
    """Return the seconds of one start for each file."""
    found: list[Took] = []
    for place, path in enumerate(paths):
        found.append(took(run_bare(engine, path, folder / f"separate-{place}")))
        print(f"separate {place + 1}: {found[-1].wall:.1f} s", file=sys.stderr)
    return found


def cells(
    way: str,
    starts: str,
    takes: Sequence[Took],
    pooled: Sequence[Took],
    arguments: argparse.Namespace,
) -> tuple[str, ...]:
    """Return one row of the table."""
    wall, cpu = [one.wall for one in takes], [one.cpu for one in takes]
    return (
        way,
        starts,
        number(statistics.median(wall), 1),
        " ".join(f"{one:.1f}" for one in wall),
        number(statistics.median(cpu), 1),
        number(arguments.samplings * arguments.prompts / statistics.median(wall), 0),
        number(ratio(wall, [one.wall for one in pooled]), 3),
        number(ratio(cpu, [one.cpu for one in pooled]), 3),
    )


def separate_cells(
    separate: Sequence[Took], pooled: Sequence[Took], arguments: argparse.Namespace
) -> tuple[str, ...]:
    """Return the row of the separate starts, which says so if most of them were not run."""
    starts, measured = arguments.samplings, len(separate)
    way = "separate" if measured == starts else f"separate (extrapolated from {measured})"
    factor = starts / measured
    total = Took(
        sum(one.wall for one in separate) * factor, sum(one.cpu for one in separate) * factor
    )
    return cells(way, str(starts), [total], pooled, arguments)


if __name__ == "__main__":
    run_cli(main)
