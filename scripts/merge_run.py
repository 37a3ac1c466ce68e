"""Sort the answers of a batch back to one run, in the order of its prompts.

In: the run's ledger, the batch's reused answers and the completions of its shards.
Out: `completions.parquet`, `completions.jsonl`, `failures.jsonl` and `facts.json`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb

from scripts.llm_batch.addresses import (
    atomic_path,
    folder_address,
    read_json,
    write_identity,
    write_json_atomic,
    write_manifest,
)
from scripts.llm_batch.errors import WorkflowError, run_cli
from scripts.llm_batch.sharding import RECORD_ROWS, database, first_row, write_table
from scripts.llm_batch.tables import COMPLETIONS

MERGED = """
CREATE VIEW merged AS
SELECT l.row, l.line, l.sample, l.prompt, a.rendered_prompt, l.reference, l.seed,
       CASE WHEN failed IS NULL THEN a.text END AS text,
       CASE WHEN failed IS NULL THEN a.token_ids END AS token_ids,
       CASE WHEN failed IS NULL THEN a.finish_reason ELSE 'error' END AS finish_reason,
       a.stop_reason, a.prompt_tokens, a.truncated_prompt_tokens,
       CASE WHEN failed IS NULL THEN len(a.token_ids) ELSE 0 END::INTEGER AS completion_tokens,
       a.cumulative_logprob, a.logprobs, a.prompt_logprobs, l.tags,
       failed AS error_type,
       coalesce(l.error_message, a.error_message) AS error_message
FROM ledger l
LEFT JOIN answers a ON l.key = a.key AND l.max_tokens = a.max_tokens,
LATERAL (SELECT coalesce(l.error_type, a.error_type) AS failed)
ORDER BY l.file_row_number
"""

AS_JSON = """
SELECT * EXCLUDE (error_type, error_message) REPLACE (
    reference::JSON AS reference, tags::JSON AS tags, stop_reason::JSON AS stop_reason,
    logprobs::JSON AS logprobs, prompt_logprobs::JSON AS prompt_logprobs
),
CASE WHEN error_type IS NOT NULL
     THEN {'type': error_type, 'message': error_message} END AS error
FROM result
"""

AS_FAILURES = """
SELECT row, line, sample, prompt, {'type': error_type, 'message': error_message} AS error
FROM result WHERE error_type IS NOT NULL
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the command line of this program."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--identity", required=True, type=json.loads, help="JSON of the identity")
    parser.add_argument("--batch", required=True, type=Path, help="folder of the batch")
    parser.add_argument("--completions", required=True, type=Path, nargs="+", help="of the shards")
    parser.add_argument("--output", required=True, type=Path, help="manifest.json to write")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Write the run's folder; 0 on success."""
    arguments = build_parser().parse_args(argv)
    folder: Path = arguments.output.parent
    write_identity(folder, "runs", arguments.identity)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".scratch-") as scratch:
        with database(Path(scratch)) as connection:
            ledger = arguments.batch / "ledger" / f"{folder_address(folder)}.parquet"
            join_answers(connection, ledger, [arguments.batch / "reused.parquet"], arguments)
            write_outputs(connection, folder)
            counts = count_completions(connection)
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


def join_answers(
    connection: duckdb.DuckDBPyConnection,
    ledger: Path,
    reused: Sequence[Path],
    arguments: argparse.Namespace,
) -> None:
    """Make view `result`; raise `WorkflowError` unless each request has exactly one answer."""
    if not ledger.is_file():
        raise WorkflowError(f"{ledger}: missing; delete its batch's folder and run again")
    for name, paths in (
        ("ledger", [ledger]),
        ("reused_answers", reused),
        ("new_answers", arguments.completions),
    ):
        files = [str(path) for path in paths]
        connection.read_parquet(files, file_row_number=name == "ledger").create_view(name)
    connection.execute(
        "CREATE VIEW answers AS SELECT * FROM reused_answers UNION ALL SELECT * FROM new_answers"
    )
    check_one_answer_each(connection, ledger)
    connection.execute(MERGED)
    connection.execute("CREATE TABLE result AS SELECT * FROM merged")


def check_one_answer_each(connection: duckdb.DuckDBPyConnection, ledger: Path) -> None:
    """Raise `WorkflowError` for requests without an answer or with two."""
    for sql, what in (
        (
            "SELECT key FROM ledger ANTI JOIN answers USING (key, max_tokens) "
            "WHERE key IS NOT NULL",
            "no answer",
        ),
        (
            "SELECT key FROM answers SEMI JOIN ledger USING (key, max_tokens) "
            "GROUP BY key, max_tokens HAVING count(*) > 1",
            "more than one answer",
        ),
    ):
        count, first = first_row(connection, f"SELECT count(*), min(key) FROM ({sql})")
        if count:
            raise WorkflowError(
                f"{ledger}: {count} requests have {what} (the first: {first}); "
                "delete the completions of this batch and run again: its journals are kept"
            )


def write_outputs(connection: duckdb.DuckDBPyConnection, folder: Path) -> None:
    """Write the merged table as Parquet and JSON lines, and its failures."""
    batches = connection.sql("SELECT * FROM result").to_arrow_reader(RECORD_ROWS)
    write_table(folder / "completions.parquet", batches, COMPLETIONS)
    for name, sql in (("completions.jsonl", AS_JSON), ("failures.jsonl", AS_FAILURES)):
        with atomic_path(folder / name) as temporary:
            connection.execute(f"COPY ({sql}) TO '{temporary}' (FORMAT json)")


def count_completions(connection: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    """Return the counts of facts.json."""

    def grouped(column: str) -> dict[str, int]:
        sql = f"SELECT {column}, count(*) FROM result WHERE {column} IS NOT NULL GROUP BY ALL"
        return dict(sorted(connection.execute(sql).fetchall()))

    completions, rows, samples, completion_tokens, prompt_tokens = first_row(
        connection,
        "SELECT count(*), count(DISTINCT line), max(sample) + 1, sum(completion_tokens), "
        "sum(prompt_tokens) FROM result",
    )
    requested, reused = first_row(
        connection,
        "SELECT count(l.key), count(r.key) FROM ledger l "
        "LEFT JOIN reused_answers r ON l.key = r.key AND l.max_tokens = r.max_tokens",
    )
    return {
        "completions": completions,
        "rows": rows,
        "samples": samples or 0,
        "tokens": {"prompt": int(prompt_tokens or 0), "completion": int(completion_tokens or 0)},
        "requested": requested,
        "reused": reused,
        "errors": grouped("error_type"),
        "finish_reasons": grouped("finish_reason"),
    }


if __name__ == "__main__":
    run_cli(main)
