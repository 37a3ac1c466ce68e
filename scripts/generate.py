"""Answer one shard of a batch with one engine.

In: requests/<shard>.jsonl and the journals of all that was answered before.
Out: completions/<shard>.parquet (the ANSWERS table, in the order of the requests) and
facts/<shard>.json. Exit codes: 0; 1 with one line of error; 130 and 143 after SIGINT and SIGTERM.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts.llm_batch.addresses import read_json, utc_now, write_json_atomic
from scripts.llm_batch.doctor.start import refuse_job
from scripts.llm_batch.environments.prefixes import keep_in_place
from scripts.llm_batch.environments.variables import resolved
from scripts.llm_batch.errors import WorkflowError, run_cli
from scripts.llm_batch.generate.attempt import Interrupted, Shard, StopFlag
from scripts.llm_batch.generate.company import own_places
from scripts.llm_batch.generate.facts import Totals, earlier_records, total_of
from scripts.llm_batch.generate.gpus import Lease, engine_size, lease
from scripts.llm_batch.generate.journal import AnswerIndex, find_journals
from scripts.llm_batch.generate.process import adopt_orphans
from scripts.llm_batch.generate.progress import Progress
from scripts.llm_batch.generate.requests import Requests
from scripts.llm_batch.generate.settings import EngineSpec
from scripts.llm_batch.generate.state import ShardFolder
from scripts.llm_batch.generate.supervisor import Supervisor
from scripts.llm_batch.models.adapters import check_fit, staged_adapter
from scripts.llm_batch.retries import read_marks

ENVS = Path(__file__).resolve().parents[1] / "envs"

log = logging.getLogger(__name__)


def build_parser() -> argparse.ArgumentParser:
    """Return the command line of this program."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", required=True, type=Path, help="JSON Lines, one a request")
    parser.add_argument("--journals", required=True, type=Path, help="folder of the journals")
    parser.add_argument("--journal-name", required=True, help="<batch>.<shard>")
    parser.add_argument("--model", default="", help="folder under results/models, '' for a dummy")
    parser.add_argument(
        "--environment", default="", help="folder under results/environments, '' for a dummy"
    )
    parser.add_argument(
        "--adapters",
        default=(),
        nargs="+",
        type=Path,
        help="folders under results/adapters, of the LoRA adapters that requests name",
    )
    parser.add_argument("--engine", required=True, type=json.loads, help="JSON: identity")
    parser.add_argument("--tuning", default={}, type=json.loads, help="JSON: placement")
    parser.add_argument(
        "--determinism",
        choices=("fast", "strict"),
        help="taken from the engine's identity if left out",
    )
    parser.add_argument("--completions", required=True, type=Path, help="Parquet to write")
    parser.add_argument("--facts", required=True, type=Path, help="JSON to write")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Answer a shard; 0 on success."""
    arguments = build_parser().parse_args(argv)
    stop = StopFlag()
    stop.install()
    adopt_orphans()
    try:
        generate(arguments, stop)
    except Interrupted as error:
        log.warning("stopped by %s; every finished answer is kept", error)
        return 128 + error.number
    except OSError as error:
        where = error.filename or arguments.journals
        raise WorkflowError(
            f"{where}: {error.strerror or error}; answers so far are kept, mend it and run again"
        ) from error
    return 0


def generate(arguments: argparse.Namespace, stop: StopFlag) -> None:
    """Answer a shard and write its table and facts."""
    began, started = time.monotonic(), utc_now()
    spec = engine_spec(arguments)
    arguments.journals.mkdir(parents=True, exist_ok=True)
    with ShardFolder(arguments.journals, arguments.journal_name) as folder:
        requests = Requests(arguments.requests)
        index = AnswerIndex(requests)
        for journal, void in read_marks(find_journals(arguments.journals)).items():
            index.add(journal, void)
            stop.check()
        recovered = index.count()
        earlier = earlier_records(folder, arguments.journals)
        header = {"engine": arguments.engine}
        shard = Shard(arguments.journal_name, requests, arguments.journals, folder, header)
        records, leased = answer_open(spec, shard, index, stop)
        totals = table_of(index, arguments.completions)
        facts = {
            "shard": arguments.requests.stem,
            "requests": len(requests),
            "answered": len(requests) - recovered,
            "recovered": recovered,
            **shard_facts(totals, [*earlier, *records]),
            "gpu_lease": leased,
            "wall_s": round(time.monotonic() - began, 3),
            "host": platform.node(),
            "python": platform.python_version(),
            "started": started,
            "finished": utc_now(),
        }
        write_json_atomic(arguments.facts, facts)
    log.info(
        "%s: %d answered, %d recovered, %d errors, %d engine starts, %.1f s",
        arguments.journal_name,
        facts["answered"],
        recovered,
        totals.errors.total(),
        len(records),
        facts["wall_s"],
    )


def table_of(index: AnswerIndex, path: Path) -> Totals:
    """Write the table of answers; what that needs was imported while the engine started."""
    from scripts.llm_batch.generate.results import write_completions

    return write_completions(index, path)


def answer_open(
    spec: EngineSpec, shard: Shard, index: AnswerIndex, stop: StopFlag
) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
    """Have what is open answered; return the records of the engine starts, and of the lease.

    The latter is None where no GPU was needed.
    """
    progress = Progress(shard.name, len(shard.requests), index.count(), shard.folder)
    records: list[dict[str, Any]] = []
    leased: dict[str, Any] | None = None
    state = "failed"
    try:
        if index.count() < len(shard.requests):
            size = engine_size(spec)
            refuse_job(spec, ENVS, size)
            with (
                lease(
                    size // spec.nodes, shard.name, os.environ, stop.check, progress.waiting
                ) as gpus,
                own_places(spec, shard.folder, os.environ) as places,
            ):
                gpus = gpus._replace(environment={**gpus.environment, **places})
                supervisor = Supervisor(spec, shard, index, stop, progress, gpus)
                records = supervisor.records
                began, since = time.monotonic(), utc_now()
                supervisor.run()
                leased = lease_facts(gpus, spec.nodes, since, time.monotonic() - began)
        else:
            log.info("%s: all requests are answered; no engine is needed", shard.name)
        state = "finished"
    except Interrupted:
        state = "stopped"
        raise
    finally:
        progress.end(state, index.count(), index.errors())
    return records, leased


def lease_facts(gpus: Lease, nodes: int, since: str, held_s: float) -> dict[str, Any] | None:
    """Return what a shard's facts say about its GPUs; None for a CPU.

    `gpus` are those of this node, and each of `nodes` has as many.
    """
    if not gpus.size:
        return None
    return {
        "gpus": gpus.size * nodes,
        "uuids": list(gpus.uuids),
        "scheduled": gpus.scheduled,
        "waited_s": gpus.waited_s,
        "since": since,
        "held_s": round(held_s, 3),
    }


def shard_facts(totals: Totals, records: list[dict[str, Any]]) -> dict[str, Any]:
    """Return errors, tokens and engine starts of a shard."""
    return {
        "errors": dict(sorted(totals.errors.items())),
        "tokens": {
            "prompt": totals.prompt_tokens,
            "completion": totals.completion_tokens,
            "cached_prompt": total_of(records, "cached_prompt_tokens"),
        },
        "engines": records,
        "deaths": sum(record["exit"] in ("crashed", "hung") for record in records),
    }


def engine_spec(arguments: argparse.Namespace) -> EngineSpec:
    """Return the engine that the command line describes; raises `WorkflowError`."""
    engine: Mapping[str, Any] = arguments.engine
    backend = engine.get("backend", "vllm")
    common = {
        "backend": backend,
        "args": engine.get("args") or {},
        "dummy": engine.get("dummy") or {},
        "tuning": arguments.tuning,
        "determinism": determinism_of(engine, arguments.determinism),
    }
    if backend == "dummy":
        interpreter = Path(sys.executable)
        return EngineSpec(**common, model=None, adapters=(), interpreter=interpreter, device="cpu")
    model, environment = Path(arguments.model), Path(arguments.environment)
    snapshot = model / "snapshot"
    if not arguments.model or not (snapshot / "config.json").is_file():
        raise WorkflowError(
            f"{snapshot}: no model there (config.json); `python -m scripts.verify --refetch` "
            f"brings it back, or delete {model} and run again"
        )
    refuse_unpinned_code(model, common["args"])
    interpreter = environment / "bin" / "python"
    if not arguments.environment or shutil.which(interpreter) is None:
        raise WorkflowError(
            f"{interpreter}: no interpreter there; delete {environment} and run again"
        )
    keep_in_place(environment)
    record = read_json(environment / "environment.json")
    adapters = tuple(staged_adapter(folder) for folder in arguments.adapters)
    for adapter in adapters:
        check_fit(adapter, snapshot)
    return EngineSpec(
        **common,
        model=snapshot.resolve(),
        adapters=adapters,
        interpreter=interpreter.absolute(),
        device="cpu" if record.get("cuda") is None else "cuda",
        variables=resolved(record.get("variables", {}), environment.absolute()),
    )


def refuse_unpinned_code(model: Path, args: Mapping[str, Any]) -> None:
    """Raise `WorkflowError` if the engine would run code of a repository without a commit."""
    description = read_json(model / "model.json") if (model / "model.json").is_file() else {}
    foreign = description.get("foreign_code")
    if foreign and args.get("trust_remote_code"):
        name = model.name.rpartition("-")[0]
        raise WorkflowError(
            f"models.{name}: its config runs code of {foreign[0]}, at whatever is there; write "
            f"models.{name}.code: {{{foreign[0]}: main}} and `python -m scripts.pin CONFIG` makes "
            "a commit of it"
        )


def determinism_of(engine: Mapping[str, Any], asked: str | None) -> str:
    """Return the determinism of an engine; it is part of its identity, absent if fast."""
    own = str(engine.get("determinism", "fast"))
    if asked is not None and "determinism" in engine and asked != own:
        raise WorkflowError(
            f"--determinism {asked}: the engine's identity says {own}; leave it out"
        )
    return asked or own


if __name__ == "__main__":
    run_cli(main)
