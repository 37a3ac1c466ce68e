"""Show what a config asks for, before anything runs: runs, requests, reuse, tokens, GPU-hours.

    python -m scripts.plan
    python -m scripts.plan --configfile mine.yaml --config shards=4
    python -m scripts.plan --json

Settings are those of snakemake. Nothing is written below results/. Requests and reuse are counted
exactly; expected tokens and hours come from what the same engine did before.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from scripts.llm_batch.config.automatic import Chooser
from scripts.llm_batch.config.load import choose_auto, load_config
from scripts.llm_batch.config.records import Config
from scripts.llm_batch.config.syntax import check_readable
from scripts.llm_batch.digests import DigestMemo
from scripts.llm_batch.doctor.start import look_ahead
from scripts.llm_batch.errors import ConfigError, run_cli
from scripts.llm_batch.gpus.present import visible_count
from scripts.llm_batch.plan.forecast import EngineForecast, RunForecast, forecast
from scripts.llm_batch.plan.make import make_plan
from scripts.llm_batch.plan.records import Plan
from scripts.show_experiment import aligned

ROOT = Path(__file__).resolve().parents[1]
DEFAULT_CONFIG = Path("config/config.yaml")
UNKNOWN = "?"


def build_parser() -> argparse.ArgumentParser:
    """Return the command line of this program."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--configfile", type=Path, nargs="+", default=[], help="as for snakemake")
    parser.add_argument("--config", nargs="+", default=[], metavar="KEY=VALUE", help="likewise")
    parser.add_argument("--results", type=Path, default=Path("results"), help="the results folder")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Print the forecast; 0 on success."""
    arguments = build_parser().parse_args(argv)
    config = read_config(arguments.configfile, arguments.config)
    memo = DigestMemo(arguments.results / ".digests.json")
    plan = make_plan(config, ROOT / "envs", memo, gpus=max(1, visible_count(os.environ)))
    found = list(forecast(plan, arguments.results))
    engines = [engine for engine, _ in found]
    by_folder = {run.folder: run for _, runs in found for run in runs}
    runs = [by_folder[folder] for folder in plan.runs]
    replications = open_replications(plan, arguments.results)
    impossible = look_ahead(plan.engines.values(), ROOT / "envs", arguments.results)
    if arguments.json:
        more = {"replications": replications, "impossible": impossible}
        print(json.dumps(document(plan, engines, runs) | more, indent=2))
    else:
        print(text(plan, engines, runs, replications))
        if impossible:
            print("\nOn this machine it would be refused:", *impossible, sep="\n  ")
    return 0


def open_replications(plan: Plan, results: Path) -> int:
    """Return how many runs have still to be asked again, each by an engine start of its own."""
    stages = {run.replication.folder for run in plan.runs.values() if run.replication}
    return sum(not (results / "replications" / name / "manifest.json").is_file() for name in stages)


def read_config(
    files: Sequence[Path], settings: Sequence[str], choose: Chooser = choose_auto
) -> Config:
    """Return the checked config, merged as snakemake merges files and `--config` settings.

    `choose` says what `environment: auto` is.
    """
    # Takes most of a second, so not for --help.
    from snakemake.cli import parse_config
    from snakemake.common.configfile import load_configfile
    from snakemake.exceptions import WorkflowError as SnakemakeError
    from snakemake.utils import update_config

    sources = list(files) or [DEFAULT_CONFIG]
    check_readable(sources)
    raw: dict[str, Any] = {}
    try:
        for path in sources:
            update_config(raw, load_configfile(str(path)))
        update_config(raw, parse_config(list(settings)))
    except (SnakemakeError, ValueError) as error:
        raise ConfigError(" ".join(str(error).split())) from None
    return load_config(raw, sources, choose)


def document(
    plan: Plan, engines: Sequence[EngineForecast], runs: Sequence[RunForecast]
) -> dict[str, Any]:
    """Return everything as one JSON object."""
    return {
        "experiment": plan.experiment,
        "runs": [asdict(run) for run in runs],
        "engines": [{**asdict(one), "gpu_hours": one.gpu_hours} for one in engines],
        "total": asdict(total(engines)) | {"gpu_hours": total_gpu_hours(engines)},
    }


def total(engines: Sequence[EngineForecast]) -> EngineForecast:
    """Return the sum over all engines; what one of them does not know, the sum does not know."""
    return EngineForecast(
        engine="all",
        folder="",
        runs=sum(one.runs for one in engines),
        requests=sum(one.requests for one in engines),
        reused=sum(one.reused for one in engines),
        open=sum(one.open for one in engines),
        engine_starts=sum(one.engine_starts for one in engines),
        gpus=max((one.gpus for one in engines), default=0),
        at_most_tokens=sum(one.at_most_tokens for one in engines),
        expected_tokens=_sum(one.expected_tokens for one in engines),
        rate=None,
        start_s=None,
        engine_hours=_sum(one.engine_hours for one in engines),
    )


def total_gpu_hours(engines: Iterable[EngineForecast]) -> float | None:
    """Return the GPU-hours of all engines; None if those of one are unknown."""
    return _sum(one.gpu_hours for one in engines)


_Number = TypeVar("_Number", int, float)


def _sum(values: Iterable[_Number | None]) -> _Number | None:
    known = list(values)
    present = [value for value in known if value is not None]
    return sum(present) if len(present) == len(known) else None


class Column(NamedTuple):
    """A heading, and the cell below it for one record."""

    heading: str
    cell: Callable[[Any], str]


def count(value: int | None) -> str:
    """Return a number with thin groups of three digits; a question mark if it is unknown."""
    return UNKNOWN if value is None else f"{value:,}".replace(",", "\u2009")


def hours(value: float | None) -> str:
    """Return hours with two digits that count."""
    if value is None:
        return UNKNOWN
    return f"{value:.0f}" if value >= 100 else f"{value:.2g}" if value else "0"


RUN_COLUMNS = (
    Column("run", lambda run: run.run),
    Column("completions", lambda run: count(run.completions)),
    Column("requests", lambda run: count(run.requests)),
    Column("reused", lambda run: count(run.reused)),
    Column("open", lambda run: count(run.open)),
    Column("tokens, at most", lambda run: count(run.at_most_tokens)),
    Column("tokens, expected", lambda run: count(run.expected_tokens)),
)

ENGINE_COLUMNS = (
    Column("engine", lambda one: one.engine),
    Column("runs", lambda one: count(one.runs)),
    Column("requests", lambda one: count(one.requests)),
    Column("reused", lambda one: count(one.reused)),
    Column("open", lambda one: count(one.open)),
    Column("tokens, expected", lambda one: count(one.expected_tokens)),
    Column("engine starts", lambda one: count(one.engine_starts)),
    Column("GPUs each", lambda one: count(one.gpus)),
    Column("tokens/s each", lambda one: hours(one.rate) if one.engine != "all" else ""),
    Column("engine-hours", lambda one: hours(one.engine_hours)),
    Column("GPU-hours", lambda one: hours(one.gpu_hours)),
)


def text(
    plan: Plan,
    engines: Sequence[EngineForecast],
    runs: Sequence[RunForecast],
    replications: int = 0,
) -> str:
    """Return the tables, and what their figures mean."""
    summed = total(engines)
    lines = list(engines)
    table = _table(ENGINE_COLUMNS, lines)
    if len(engines) > 1:
        row = [column.cell(summed) for column in ENGINE_COLUMNS]
        row[-1] = hours(total_gpu_hours(engines))
        table.append(row)
    notes = [
        "reused: answers that are in results/ already. A request that several runs of an engine "
        "ask is one request of the engine.",
        "expected: at the mean length of the engine's answers so far, at most max_tokens each.",
    ]
    if summed.expected_tokens is None:
        notes.append(f"{UNKNOWN}: this engine has answered nothing yet; a small run tells.")
    if replications:
        notes.append(
            f"replicate: {count(replications)} runs are asked again, each in an engine start of "
            "its own; these are not in the tables."
        )
    return "\n\n".join(
        [
            f"{plan.experiment}: {len(runs)} runs, "
            f"{sum(run.complete for run in runs)} of them complete",
            aligned(_table(RUN_COLUMNS, runs)),
            aligned(table),
            "\n".join(notes),
        ]
    )


def _table(columns: Sequence[Column], records: Sequence[Any]) -> list[list[str]]:
    head = [column.heading for column in columns]
    return [head, *([column.cell(record) for column in columns] for record in records)]


if __name__ == "__main__":
    run_cli(main)
