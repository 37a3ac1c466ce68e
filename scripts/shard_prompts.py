"""Turn the prompts of a batch's runs into requests, and cut those still open into shards.

In: the prompts files of all runs of one engine, and the journals of that engine.
Out, in the batch's folder: `ledger/<run>.parquet` (what each run expects), `reused.parquet`
(answers that were there already), `requests/<shard>.jsonl` (the rest) and `batch.json` (counts).
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from scripts.llm_batch.addresses import (
    address,
    write_identity,
    write_json_atomic,
    write_manifest,
)
from scripts.llm_batch.answers import engine_journals, read_journals
from scripts.llm_batch.arguments import json_argument
from scripts.llm_batch.config.records import Prompts
from scripts.llm_batch.cycles import cycles_ignored
from scripts.llm_batch.data.source import prompt_source
from scripts.llm_batch.digests import DigestMemo
from scripts.llm_batch.errors import WorkflowError, run_cli
from scripts.llm_batch.expansion import (
    Expansion,
    available_threads,
    expand_file,
    useful_processes,
)
from scripts.llm_batch.ledger import Requester, SamplingText
from scripts.llm_batch.parquet import TableWriter, table_writer
from scripts.llm_batch.plan.prompts_identity import prompts_of
from scripts.llm_batch.requests import BY_TASK, sampling_key
from scripts.llm_batch.sharding import (
    database,
    load_answers,
    load_requests,
    wanted_answers,
    write_reused,
    write_shards,
)
from scripts.llm_batch.tables import LEDGER
from scripts.llm_batch.tasks.requester import TaskRequester, task_requester

log = logging.getLogger(__name__)


def build_parser() -> argparse.ArgumentParser:
    """Return the command line of this program."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", required=True, type=json_argument, help="JSON, or - for stdin")
    parser.add_argument("--results", required=True, type=Path, help="the results folder")
    parser.add_argument("--output", required=True, type=Path, help="manifest.json to write")
    parser.add_argument(
        "--threads", type=int, default=available_threads(), help="processes and threads at a time"
    )
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
        place = Place(arguments.results, folder, Path(scratch), max(1, arguments.threads))
        counts = fill_batch(batch, place)
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


class Place(NamedTuple):
    """Where and with how many threads a batch is made."""

    results: Path
    folder: Path
    scratch: Path
    threads: int


class Written(NamedTuple):
    """What the prompts sections of a batch have become.

    `rows` are the ledger rows of each run, by address; `requests` are files of REQUESTS, and
    `samplings` the texts that they refer to.
    """

    rows: dict[str, int]
    requests: list[Path]
    samplings: list[SamplingText]


def fill_batch(batch: Mapping[str, Any], place: Place) -> dict[str, Any]:
    """Write ledgers, reused answers and shards of `batch`; return the counts of batch.json."""
    written = Written({}, [], [])
    for name, prompts in batch["prompts"].items():
        runs = [run for run in batch["runs"] if run["prompts"] == name]
        check_data(prompts, place.results)
        write_ledgers(expansion_of(prompts, runs, place.scratch / name, written), place, written)
    engine = address("engines", batch["identity"]["engine"])
    journals = engine_journals(place.results / "engines", engine)
    shards = int(batch["identity"]["shards"])
    # Not before: each process of the expansion needs memory of its own.
    with database(place.scratch, place.threads) as connection:
        load_requests(connection, written.requests)
        wanted = wanted_answers(connection) if journals else None
        with cycles_ignored():
            load_answers(connection, read_journals(journals, wanted), place.scratch)
        reused = write_reused(connection, place.folder / "reused.parquet")
        counts = write_shards(connection, place.folder / "requests", shards, written.samplings)
    return {
        "runs": written.rows,
        "requests": reused + sum(count.requests for count in counts),
        "reused": reused,
        "shards": [count._asdict() for count in counts],
    }


def expansion_of(
    prompts: Mapping[str, Any], runs: Sequence[Mapping[str, Any]], scratch: Path, written: Written
) -> Expansion:
    """Return how one prompts section is expanded; its samplings are added to `written`."""
    section = prompts_of(Path(prompts["path"]), prompts["identity"])
    few_shot = Path(prompts["few_shot_path"]) if "few_shot_path" in prompts else None
    source = prompt_source(section, few_shot)
    requesters = {}
    for run in runs:
        requester = requester_of(run, section, len(written.samplings))
        requesters[run["run"]] = requester
        written.samplings.extend(requester.texts)
    return Expansion(section, requesters, scratch, source)


def requester_of(
    run: Mapping[str, Any], section: Prompts, number: int
) -> Requester | TaskRequester:
    """Return what expands the rows of one run; `number` is the place of its first sampling."""
    if run["sampling"].get(BY_TASK):
        return task_requester(Path(section.path), run["sampling"], number, run.get("adapter"))
    sampling = sampling_key(run["sampling"])
    return Requester(sampling, section.on_too_long, number, run.get("adapter"))


def write_ledgers(expansion: Expansion, place: Place, written: Written) -> None:
    """Render one prompts file and write the ledgers of the runs that use it.

    The numbers of rows and the files of requests are added to `written`.
    """
    processes = useful_processes(expansion.data.files, place.threads)
    with ExitStack() as stack:
        writers = {
            run: stack.enter_context(
                table_writer(place.folder / "ledger" / f"{run}.parquet", LEDGER)
            )
            for run in expansion.requesters
        }
        for block in expand_file(expansion, processes):
            written.requests.append(expansion.requests(block))
            for run, writer in writers.items():
                move_rows(expansion.ledger(block, run), writer)
    for run in writers:
        check_ledger(place.folder / "ledger" / f"{run}.parquet", expansion.prompts)
    written.rows.update({run: writer.rows for run, writer in writers.items()})


def check_ledger(path: Path, prompts: Prompts) -> None:
    """Raise `WorkflowError` for what makes a whole prompts file useless: before any engine starts.

    That is one without rows, a reference that no row has, and a template that no row can fill.
    """
    ledger = pq.ParquetFile(path)
    filled = dict.fromkeys(("key", "reference"), 0)
    for group in range(ledger.metadata.num_row_groups):
        for name in filled:
            column = ledger.metadata.row_group(group).column(LEDGER.get_field_index(name))
            filled[name] += column.num_values - column.statistics.null_count
    if not ledger.metadata.num_rows:
        raise WorkflowError(
            f"{prompts.path}: holds no rows, so there is nothing to ask; write one JSON object a "
            "line, or take the prompts section out of runs"
        )
    if not filled["key"]:
        first = ledger.read_row_group(0, ["error_type", "error_message"]).slice(0, 1).to_pylist()[0]
        raise WorkflowError(
            f"{prompts.path}: none of its {ledger.metadata.num_rows} rows makes a prompt "
            f"({first['error_type']}; {first['error_message']}); mend the file or the prompts "
            "section of the config"
        )
    if prompts.reference is not None and not filled["reference"]:
        raise WorkflowError(
            f"{prompts.path}: no row has the field '{prompts.reference}' that the config names "
            "as reference; name the field that has, or leave reference out"
        )


def move_rows(source: Path, writer: TableWriter) -> None:
    """Append the rows of an Arrow stream, and delete it."""
    with pa.memory_map(str(source)) as file, pa.ipc.open_stream(file) as stream:
        for batch in stream:
            writer.write(batch)
    source.unlink()


def check_data(prompts: Mapping[str, Any], results: Path) -> None:
    """Raise `WorkflowError` if a local file is not the one the plan saw.

    Data sets of the hub were checked when they were fetched.
    """
    identity = prompts["identity"]
    if "data" in identity:
        check_unchanged(Path(prompts["path"]), identity["data"], results)
    if "few_shot_path" in prompts:
        check_unchanged(Path(prompts["few_shot_path"]), identity["few_shot"]["data"], results)


def check_unchanged(path: Path, digest: str, results: Path) -> None:
    """Raise `WorkflowError` if the prompts file is not the one the plan saw."""
    if DigestMemo(results / ".digests.json").sha256(path) != digest:
        raise WorkflowError(
            f"{path}: changed since the workflow was planned; run it again, the changed file "
            "gets addresses of its own"
        )


if __name__ == "__main__":
    run_cli(main)
