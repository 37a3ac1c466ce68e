"""Write the quickstart's prompts: questions that its model never saw while it was trained.

Standard library only. `scripts.train_quickstart_model` imports the split from here, so that
the model and the prompts cannot disagree about which problems are held out.

    python -m scripts.make_quickstart_prompts --output config/quickstart/prompts.jsonl
"""

import argparse
import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from scripts.llm_batch.addresses import write_text_atomic
from scripts.llm_batch.errors import run_cli

LOG = logging.getLogger(__name__)

LARGEST = 99
OPERATORS = ("+", "-")
KINDS = {"+": "addition", "-": "subtraction"}
HELD_OUT_ONE_IN = 5

GOOD_ROWS = 1000
TOO_LONG_ROWS = 5
EMPTY_ROWS = 3
# Rows that fail are spread over the file, or the first shard would hold them all.
FAILING_ROW_DISTANCE = 121

# 150 to 250 characters, one token each: too long for the engine of the quickstart, which takes 64,
# and short enough for the model, which takes 256.
LONG_WINDED = (
    "This question comes from an old examination paper on whole numbers of at most two digits,"
    " which was printed once, copied by hand twice and then read out to the whole class:"
    " what is {a} {op} {b}?"
)


@dataclass(frozen=True, order=True)
class Problem:
    """An addition or subtraction of two whole numbers from 0 to `LARGEST`."""

    a: int
    op: str
    b: int

    @property
    def answer(self) -> str:
        """The result as the model is to write it: no sign but a leading minus, no spaces."""
        return str(self.a + self.b if self.op == "+" else self.a - self.b)

    @property
    def question(self) -> str:
        """The problem as a sentence."""
        return f"What is {self.a} {self.op} {self.b}?"


def all_problems() -> Iterator[Problem]:
    """Every problem there is: 2 x 100 x 100."""
    numbers = range(LARGEST + 1)
    for op, a, b in product(OPERATORS, numbers, numbers):
        yield Problem(a, op, b)


def digest(text: str) -> int:
    """The first 8 bytes of the SHA-256 of `text` as a number: the source of every choice here."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def is_held_out(problem: Problem) -> bool:
    """Whether `problem` is kept from training: one pair of numbers in `HELD_OUT_ONE_IN`.

    `a + b` and `b + a` stand or fall together, and so do `a - b` and `b - a`: knowing one of
    them gives the other away.
    """
    low, high = sorted((problem.a, problem.b))
    return digest(f"{low}{problem.op}{high}") % HELD_OUT_ONE_IN == 0


def held_out_problems() -> list[Problem]:
    """All held-out problems, in an order that is fixed but looks like chance."""
    problems = [problem for problem in all_problems() if is_held_out(problem)]
    return sorted(problems, key=lambda problem: digest(f"order {problem.question}"))


def row(identifier: str, problem: Problem, question: str, kind: str) -> dict[str, str | int]:
    """One line of the prompts file."""
    return {
        "id": identifier,
        "question": question,
        "a": problem.a,
        "op": problem.op,
        "b": problem.b,
        "answer": problem.answer,
        "kind": kind,
    }


def make_rows() -> list[dict[str, str | int]]:
    """All rows of the prompts file; each problem is held out and occurs once."""
    problems = held_out_problems()
    by_op = {op: [p for p in problems if p.op == op] for op in OPERATORS}
    half = GOOD_ROWS // len(OPERATORS)
    rows = [
        row(f"{KINDS[p.op]}-{p.a}-{p.b}", p, p.question, KINDS[p.op])
        for pair in zip(by_op["+"][:half], by_op["-"][:half], strict=True)
        for p in pair
    ]
    spare = [p for pair in zip(by_op["+"][half:], by_op["-"][half:], strict=False) for p in pair]
    failing = [
        row(f"too-long-{i + 1}", p, LONG_WINDED.format(a=p.a, op=p.op, b=p.b), "too_long")
        for i, p in enumerate(spare[:TOO_LONG_ROWS])
    ] + [
        row(f"empty-{i + 1}", p, "", "empty")
        for i, p in enumerate(spare[TOO_LONG_ROWS : TOO_LONG_ROWS + EMPTY_ROWS])
    ]
    for i, bad in enumerate(failing):
        rows.insert((i + 1) * FAILING_ROW_DISTANCE, bad)
    return rows


def as_json_lines(rows: Sequence[dict[str, str | int]]) -> str:
    """The text of the prompts file: one JSON object a line."""
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in rows)


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description="Write the quickstart's prompts.")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("config/quickstart/prompts.jsonl"),
        help="the file to write (default: %(default)s)",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Write the file and say how many rows it holds."""
    arguments = build_parser().parse_args(argv)
    rows = make_rows()
    write_text_atomic(arguments.output, as_json_lines(rows))
    LOG.info("%s: %d rows", arguments.output, len(rows))
    return 0


if __name__ == "__main__":
    run_cli(main)
