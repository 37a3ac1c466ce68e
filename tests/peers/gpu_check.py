"""Are answers the same under another batch? `determinism` fast and strict, each under two."""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from scripts.llm_batch.addresses import write_json_atomic
from scripts.llm_batch.errors import WorkflowError
from tests.peers import shapes
from tests.peers.gpu_power import find_reader, wait_until_free
from tests.peers.gpu_speed import make_engine
from tests.peers.measuring import number, table
from tests.peers.stage import Engine, Result, make_request, run_ours, write_requests

SEQUENCES = (256, 24)
"""`max_num_seqs` of the two runs; the second answers the requests in another order too."""

PROMPT_TOKENS = (40, 400)

COLUMNS = (
    "determinism",
    "sampling",
    "answers",
    "identical",
    "first differing token (median)",
    "generate (s)",
)


def measure(arguments: argparse.Namespace, folder: Path) -> None:
    """Answer the same requests under two batches, fast and strict; print what was identical."""
    shape = arguments.shape or ("tiny" if arguments.cpu else "1b")
    engine = make_engine(arguments, folder, shape, "random")
    snapshot = (engine.model / "snapshot").resolve()
    subprocess.run([engine.python, shapes.__file__, snapshot, "0"], check=True)
    wanted = list(requests(engine, arguments.requests or 300, arguments.output_len))
    reader = None if arguments.cpu else find_reader()
    deadline, longest = time.monotonic() + arguments.seconds, 0.0
    rows, facts = [], []
    for determinism in ("fast", "strict"):
        results = []
        for sequences in SEQUENCES:
            if time.monotonic() + longest > deadline:
                print(f"no time for {determinism}, max_num_seqs {sequences}", flush=True)
                continue
            wait_until_free(reader)
            tuning = {**engine.tuning, "max_num_seqs": sequences}
            one = replace(engine, determinism=determinism, tuning=tuning)
            place = folder / f"{determinism}-{sequences}"
            path = write_requests(place / "requests.jsonl", ordered(wanted, sequences))
            try:
                results.append(run_ours(one, path, place))
            except WorkflowError as error:
                print(f"{determinism}, max_num_seqs {sequences} FAILED: {error}", flush=True)
                continue
            found = results[-1].facts
            longest = max(longest, results[-1].measured.seconds)
            facts.append({"determinism": determinism, "max_num_seqs": sequences, **found})
            print(
                f"{determinism}, max_num_seqs {sequences}: wall "
                f"{results[-1].measured.seconds:.1f} s, generate {found['generate_s']:.2f} s, "
                f"start {found['startup_s']}, switches {found.get('switches')}",
                flush=True,
            )
        rows += compare(determinism, wanted, results)
    print(table(COLUMNS, [cells(row) for row in rows]), flush=True)
    if arguments.out is not None:
        document = {"engine": engine.arguments(), "shape": shape, "rows": rows, "starts": facts}
        write_json_atomic(arguments.out.absolute(), document)


def requests(engine: Engine, count: int, length: int) -> Iterable[dict[str, Any]]:
    """Yield each prompt twice, greedy and seeded; half of the prompts begin with the same words."""
    config = json.loads((engine.model / "snapshot" / "config.json").read_text())
    words = range(len(shapes.SPECIAL), config["vocab_size"])
    draw = random.Random(1)
    shared = draw.choices(words, k=PROMPT_TOKENS[0] // 2)
    for place in range(count):
        tokens = draw.choices(words, k=draw.randint(*PROMPT_TOKENS))
        text = " ".join(f"w{token}" for token in (shared if place % 2 else []) + tokens)
        common = {"max_tokens": length, "ignore_eos": True}
        for sampling in ({"temperature": 0.0}, {"temperature": 0.8, "seed": place}):
            yield make_request(place, {"text": text}, {**sampling, **common})


def ordered(wanted: Sequence[dict[str, Any]], sequences: int) -> list[dict[str, Any]]:
    """Return the requests as they are for the first run, shuffled for the second."""
    found = list(wanted)
    if sequences != SEQUENCES[0]:
        random.Random(2).shuffle(found)
    return found


def compare(
    determinism: str, wanted: Sequence[Mapping[str, Any]], results: Sequence[Result]
) -> list[dict[str, Any]]:
    """Return how many answers are identical in two runs, for each sampling."""
    if len(results) != 2:
        return []
    one, other = (result.answers for result in results)
    rows = []
    for name, greedy in (("greedy", True), ("seeded, T=0.8", False)):
        keys = [r["key"] for r in wanted if (r["sampling"]["temperature"] == 0) is greedy]
        pairs = [(one[key][1], other[key][1]) for key in keys]
        differing = [first_difference(a, b) for a, b in pairs if a != b]
        rows.append(
            {
                "determinism": determinism,
                "sampling": name,
                "answers": len(pairs),
                "identical": len(pairs) - len(differing),
                "first_difference": statistics.median(differing) if differing else None,
                "generate_s": [result.facts["generate_s"] for result in results],
            }
        )
    return rows


def first_difference(one: Sequence[int], other: Sequence[int]) -> int:
    """Return the place, from 0, of the first token that differs."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(one), len(other)))


def cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Return one row of the table."""
    return (
        row["determinism"],
        row["sampling"],
        str(row["answers"]),
        f"{row['identical'] / row['answers']:.1%}",
        number(row["first_difference"], 0),
        " / ".join(f"{seconds:.1f}" for seconds in row["generate_s"]),
    )
