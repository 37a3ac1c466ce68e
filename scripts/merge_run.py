"""Sort the answers of a batch back to one run, in the order of its prompts.

In: the run's ledger, the batch's reused answers and the completions of its shards.
Out: `completions.parquet`, `completions.jsonl`, `failures.jsonl` and `facts.json`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from scripts.llm_batch.addresses import (
    atomic_path,
    folder_address,
    read_json,
    write_identity,
    write_json_atomic,
    write_manifest,
)
from scripts.llm_batch.errors import run_cli
from scripts.llm_batch.expansion import available_threads
from scripts.llm_batch.lines import LinesWriter
from scripts.llm_batch.merging import Tally, check_readable, merged_batches
from scripts.llm_batch.parquet import write_table
from scripts.llm_batch.sharding import database, first_row
from scripts.llm_batch.tables import COMPLETIONS

AS_JSON = """
SELECT * EXCLUDE (error_type, error_message) REPLACE (
    reference::JSON AS reference, tags::JSON AS tags, stop_reason::JSON AS stop_reason,
    logprobs::JSON AS logprobs, prompt_logprobs::JSON AS prompt_logprobs
),
CASE WHEN error_type IS NOT NULL
     THEN {'type': error_type, 'message': error_message} END AS error
FROM rows
"""

AS_FAILURES = """
SELECT row, line, sample, prompt, {'type': error_type, 'message': error_message} AS error
FROM completions WHERE error_type IS NOT NULL
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the command line of this program."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--identity", required=True, type=json.loads, help="JSON of the identity")
    parser.add_argument("--batch", required=True, type=Path, help="folder of the batch")
    parser.add_argument("--completions", required=True, type=Path, nargs="+", help="of the shards")
    parser.add_argument("--output", required=True, type=Path, help="manifest.json to write")
    parser.add_argument(
        "--threads", type=int, default=available_threads(), help="threads at a time"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Write the run's folder; 0 on success."""
    arguments = build_parser().parse_args(argv)
    folder: Path = arguments.output.parent
    write_identity(folder, "runs", arguments.identity)
    ledger = arguments.batch / "ledger" / f"{folder_address(folder)}.parquet"
    reused = arguments.batch / "reused.parquet"
    check_readable(ledger, [reused, *arguments.completions])
    with (
        tempfile.TemporaryDirectory(dir=folder, prefix=".scratch-") as scratch,
        database(Path(scratch), max(1, arguments.threads)) as connection,
    ):
        tally = Tally()
        merged = merged_batches(connection, ledger, reused, arguments.completions, tally)
        write_completions(merged, folder)
        write_failures(connection, folder)
        counts = count_completions(connection, tally)
    shards = [read_json(path) for path in shard_facts(arguments.completions)]
    facts = {"run": folder.name, "batch": arguments.batch.name, **counts, "shards": shards}
    facts["answered"] = facts["requested"] - facts["reused"]
    write_json_atomic(folder / "facts.json", facts)
    names = ("completions.parquet", "completions.jsonl", "failures.jsonl", "facts.json")
    headline = {name: facts[name] for name in ("batch", "rows", "completions", "errors")}
    write_manifest(folder, [folder / name for name in names], headline)
    return 0


def shard_facts(completions: Sequence[Path]) -> list[Path]:
    """Return the facts files that lie beside the completions of shards."""
    return [path.parent.parent / "facts" / f"{path.stem}.json" for path in completions]


def write_completions(merged: Iterable[pa.RecordBatch], folder: Path) -> None:
    """Write the completions as a table and, at the same time, as JSON lines."""
    with (
        atomic_path(folder / "completions.jsonl") as temporary,
        LinesWriter(temporary, AS_JSON, COMPLETIONS) as lines,
    ):
        write_table(folder / "completions.parquet", lines.passing(merged), COMPLETIONS)


def write_failures(connection: duckdb.DuckDBPyConnection, folder: Path) -> None:
    """Write the failures among the completions as JSON lines; leave a view `completions`."""
    connection.read_parquet(str(folder / "completions.parquet")).create_view("completions")
    with atomic_path(folder / "failures.jsonl") as temporary:
        connection.execute(
            f"COPY ({AS_FAILURES}) TO '{temporary}' (FORMAT json, USE_TMP_FILE false)"
        )


def count_completions(connection: duckdb.DuckDBPyConnection, tally: Tally) -> dict[str, Any]:
    """Return the counts of facts.json."""

    def grouped(column: str) -> dict[str, int]:
        sql = f"SELECT {column}, count(*) FROM completions WHERE {column} IS NOT NULL GROUP BY ALL"
        return dict(sorted(connection.execute(sql).fetchall()))

    completions, samples, completion_tokens, prompt_tokens = first_row(
        connection,
        "SELECT count(*), max(sample) + 1, sum(completion_tokens), sum(prompt_tokens) "
        "FROM completions",
    )
    return {
        "completions": completions,
        "rows": tally.rows,
        "samples": samples or 0,
        "tokens": {"prompt": int(prompt_tokens or 0), "completion": int(completion_tokens or 0)},
        "requested": tally.requested,
        "reused": tally.reused,
        "generated_tokens": tally.generated_tokens,
        "errors": grouped("error_type"),
        "finish_reasons": grouped("finish_reason"),
    }


if __name__ == "__main__":
    run_cli(main)
