"""Turn the prompts of a batch's runs into requests, and cut those still open into shards.

In: the prompts files of all runs of one engine, and the journals of that engine.
Out, in the batch's folder: `ledger/<run>.parquet` (what each run expects), `reused.parquet`
(answers that were there already), `requests/<shard>.jsonl` (the rest) and `batch.json` (counts).
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq

from scripts.llm_batch.addresses import (
    address,
    atomic_path,
    write_identity,
    write_json_atomic,
    write_manifest,
)
from scripts.llm_batch.answers import engine_journals, read_journals
from scripts.llm_batch.config.records import Prompts
from scripts.llm_batch.digests import DigestMemo
from scripts.llm_batch.errors import WorkflowError, run_cli
from scripts.llm_batch.ledger import REQUESTS, PromptRow, Requester, RowNumbering, chunks
from scripts.llm_batch.prompts import Renderer
from scripts.llm_batch.requests import sampling_key
from scripts.llm_batch.rows import read_rows
from scripts.llm_batch.sharding import (
    PARQUET,
    create_table,
    database,
    first_row,
    insert,
    load_answers,
    unite_requests,
    write_reused,
    write_shards,
)
from scripts.llm_batch.tables import LEDGER

log = logging.getLogger(__name__)


def build_parser() -> argparse.ArgumentParser:
    """Return the command line of this program."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", required=True, type=json.loads, help="JSON of the batch")
    parser.add_argument("--results", required=True, type=Path, help="the results folder")
    parser.add_argument("--output", required=True, type=Path, help="manifest.json to write")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Write the batch's folder; 0 on success."""
    arguments = build_parser().parse_args(argv)
    batch: dict[str, Any] = arguments.batch
    folder: Path = arguments.output.parent
    folder.mkdir(parents=True, exist_ok=True)
    write_identity(folder, "batches", batch["identity"])
    engine = arguments.results / "engines" / batch["engine"]
    write_identity(engine, "engines", batch["identity"]["engine"])
    with tempfile.TemporaryDirectory(dir=folder, prefix=".scratch-") as scratch:
        with database(Path(scratch)) as connection:
            counts = fill_batch(connection, batch, folder, arguments.results)
    write_json_atomic(folder / "batch.json", counts)
    log.info(
        "%d requests: %d answered before, %d open in %d shards",
        counts["requests"],
        counts["reused"],
        counts["requests"] - counts["reused"],
        len(counts["shards"]),
    )
    outputs = [folder / "batch.json", folder / "reused.parquet"]
    outputs += sorted(folder.glob("ledger/*.parquet")) + sorted(folder.glob("requests/*.jsonl"))
    write_manifest(folder, outputs, counts)
    return 0


def fill_batch(
    connection: duckdb.DuckDBPyConnection, batch: Mapping[str, Any], folder: Path, results: Path
) -> dict[str, Any]:
    """Write ledgers, reused answers and shards of `batch`; return the counts of batch.json."""
    create_table(connection, "requests", REQUESTS)
    rows: dict[str, int] = {}
    for name, prompts in batch["prompts"].items():
        runs = [run for run in batch["runs"] if run["prompts"] == name]
        rows |= write_ledgers(connection, prompts, runs, folder / "ledger", results)
    unite_requests(connection)
    requests = int(first_row(connection, "SELECT count(*) FROM wanted")[0])
    engine = address("engines", batch["identity"]["engine"])
    load_answers(connection, read_journals(engine_journals(results / "engines", engine)))
    reused = write_reused(connection, folder / "reused.parquet")
    shards = write_shards(connection, folder / "requests", int(batch["identity"]["shards"]))
    return {
        "runs": rows,
        "requests": requests,
        "reused": reused,
        "shards": [shard._asdict() for shard in shards],
    }


def write_ledgers(
    connection: duckdb.DuckDBPyConnection,
    prompts: Mapping[str, Any],
    runs: Sequence[Mapping[str, Any]],
    folder: Path,
    results: Path,
) -> dict[str, int]:
    """Render one prompts file, and write the ledgers and requests of the runs that use it.

    Returns the number of ledger rows of each run, by address.
    """
    identity = prompts["identity"]
    path = Path(prompts["path"])
    check_unchanged(path, identity["data"], results)
    on_too_long = identity.get("on_too_long", "error")
    requesters = {run["run"]: Requester(sampling_key(run["sampling"]), on_too_long) for run in runs}
    rows = dict.fromkeys(requesters, 0)
    with ExitStack() as stack:
        writers = {
            run: stack.enter_context(
                pq.ParquetWriter(
                    stack.enter_context(atomic_path(folder / f"{run}.parquet")), LEDGER, **PARQUET
                )
            )
            for run in requesters
        }
        for chunk in chunks(prompt_rows(path, identity)):
            for run, requester in requesters.items():
                expanded = requester.expand(chunk)
                writers[run].write_batch(expanded.ledger)
                insert(connection, "requests", expanded.requests)
                rows[run] += expanded.ledger.num_rows
    return rows


def prompt_rows(path: Path, identity: Mapping[str, Any]) -> Iterator[PromptRow]:
    """Yield the rendered rows of a prompts file, up to the limit of its identity."""
    renderer = Renderer(prompts_of(path, identity))
    numbering = RowNumbering()
    limit = identity.get("limit")
    for count, row in enumerate(read_rows(path)):
        if limit is not None and count >= limit:
            return
        yield numbering.number(row.line, renderer.render(row))


def prompts_of(path: Path, identity: Mapping[str, Any]) -> Prompts:
    """Return the prompts section that `identity` was made from."""
    messages = identity.get("messages")
    return Prompts(
        name=path.stem,
        path=str(path),
        template=identity.get("template"),
        messages=tuple(messages) if messages is not None else None,
        reference=identity.get("reference"),
        id=identity.get("id"),
        limit=identity.get("limit"),
        on_too_long=identity.get("on_too_long", "error"),
        chat_template_kwargs=identity.get("chat_template_kwargs", {}),
    )


def check_unchanged(path: Path, digest: str, results: Path) -> None:
    """Raise `WorkflowError` if the prompts file is not the one the plan saw."""
    if DigestMemo(results / ".digests.json").sha256(path) != digest:
        raise WorkflowError(
            f"{path}: changed since the workflow was planned; run it again, the changed file "
            "gets addresses of its own"
        )


if __name__ == "__main__":
    run_cli(main)
