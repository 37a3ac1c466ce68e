"""Questions to the completions of all runs at once, answered by DuckDB from their Parquet files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import duckdb

from scripts.llm_batch.errors import WorkflowError
from scripts.llm_batch.report.records import Run

EXAMPLES = 3
"""Examples shown of each type of failure."""

BINS = 40


@dataclass(frozen=True)
class Length:
    """A bin of the length histogram: completions of `low` to `low + width - 1` tokens."""

    run: int
    low: int
    width: int
    share: float


@dataclass(frozen=True)
class Failure:
    """A type of failure: completions by run, and examples."""

    type: str
    counts: dict[int, int]
    examples: tuple[Example, ...]


@dataclass(frozen=True)
class Example:
    """A row that failed, the first run in which it did, and what was said."""

    run: int
    row: str
    prompt: str | None
    message: str | None


def run_view(run: Run) -> str:
    """Return the name of the view of the completions of `run`."""
    return f"run_{run.index}"


@contextmanager
def database(runs: Sequence[Run]) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield a connection with view `completions`: the columns of all runs, with run and data.

    The completions of one run are the view `run_view(run)`, too.
    `data` numbers the prompts files, `position` the completions of a run in their order.
    """
    connection = duckdb.connect(config={"threads": 2, "preserve_insertion_order": True})
    try:
        data = {text: number for number, text in enumerate(dict.fromkeys(r.data for r in runs))}
        selects = []
        for run in runs:
            path = run.folder / "completions.parquet"
            if not path.is_file():
                raise WorkflowError(f"{path}: missing; run the workflow again to make it")
            table = connection.read_parquet(str(path), file_row_number=True).project(
                f"{run.index} AS run, {data[run.data]} AS data, file_row_number AS position, "
                "* EXCLUDE (file_row_number)"
            )
            table.create_view(run_view(run))
            selects.append(f"SELECT * FROM {run_view(run)}")
        connection.execute("CREATE VIEW completions AS " + " UNION ALL ".join(selects))
        yield connection
    except (duckdb.IOException, duckdb.InvalidInputException) as error:
        text = str(error).splitlines()[0]
        raise WorkflowError(f"completions of the runs cannot be read: {text}") from error
    finally:
        connection.close()


def lengths(connection: duckdb.DuckDBPyConnection) -> list[Length]:
    """Return the length histogram of each run, in shares of its completions without an error."""
    bounds = connection.execute(
        "SELECT min(completion_tokens), max(completion_tokens) FROM completions "
        "WHERE error_type IS NULL"
    ).fetchone()
    if not bounds or bounds[0] is None:
        return []
    width = max(1, -(-(bounds[1] - bounds[0] + 1) // BINS))
    found = connection.execute(
        "SELECT run, bin, counted / sum(counted) OVER (PARTITION BY run) FROM ("
        "SELECT run, (completion_tokens - $low) // $width * $width + $low AS bin, "
        "count(*) AS counted FROM completions WHERE error_type IS NULL GROUP BY run, bin"
        ") ORDER BY run, bin",
        {"low": bounds[0], "width": width},
    ).fetchall()
    return [Length(run, int(low), width, float(share)) for run, low, share in found]


def failures(connection: duckdb.DuckDBPyConnection) -> list[Failure]:
    """Return the failures by type, the most frequent first, each with a few examples."""
    counted = connection.execute(
        "SELECT error_type, run, count(*) FROM completions WHERE error_type IS NOT NULL "
        "GROUP BY ALL ORDER BY error_type, run"
    ).fetchall()
    counts: dict[str, dict[int, int]] = {}
    for kind, run, number in counted:
        counts.setdefault(kind, {})[run] = number
    order = sorted(counts, key=lambda kind: (-sum(counts[kind].values()), kind))
    return [Failure(kind, counts[kind], _examples(connection, kind)) for kind in order]


def _examples(connection: duckdb.DuckDBPyConnection, kind: str) -> tuple[Example, ...]:
    """Return rows that failed so, each data file's row once, in the order of the prompts."""
    found = connection.execute(
        "SELECT arg_min(run, (run, sample)) AS first, row, arg_min(prompt, (run, sample)), "
        "arg_min(error_message, (run, sample)) FROM completions WHERE error_type = ? "
        "GROUP BY data, line, row ORDER BY first, data, line LIMIT ?",
        [kind, EXAMPLES],
    ).fetchall()
    return tuple(
        Example(run, row, readable_prompt(prompt), message) for run, row, prompt, message in found
    )


def readable_prompt(prompt: str | None) -> str | None:
    """Return a prompt as text: of a chat its messages, each after its role."""
    try:
        messages = json.loads(prompt or "")
        return "\n".join(f"{message['role']}: {message['content']}" for message in messages)
    except (ValueError, TypeError, KeyError):
        return prompt
