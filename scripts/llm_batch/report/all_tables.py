"""The tables of a report, in the order of its page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from scripts.llm_batch.addresses import folder_address
from scripts.llm_batch.report import comparisons
from scripts.llm_batch.report.comparisons import Comparison
from scripts.llm_batch.report.completions import Failure, Length
from scripts.llm_batch.report.listing import headline_lines, summary
from scripts.llm_batch.report.records import Experiment
from scripts.llm_batch.report.resources import Resources, engine_lines
from scripts.llm_batch.report.tables import Line, Table, make_table
from scripts.llm_batch.report.timeline import Step, Timeline, timeline_lines

SEEDS = (
    *("setting", "metric", "statistic", "seeds", "value", "low", "high", "interval", "rows"),
    *("between_seed_sd", "lowest", "highest"),
)
GATES = ("metric", "run", "baseline", "passed", "message", "rows", "value", "bound", "level")
USAGE = (
    *("batch", "engine", "allocated_gpu_s", "starting_gpu_s", "generating_gpu_s", "other_gpu_s"),
    *("idle_gpu_s", "energy_j", "output_tokens", "energy_of_1000_tokens_j", "cost"),
)
RUN_USAGE = ("run", "batch", "generated_tokens", "energy_j", "cost")
DETERMINISM = ("run", "declared", "asked_again", "identical", "share", "low", "high")
PROVENANCE = (
    *("run", "run_address", "engine", "engine_address", "prompts", "prompts_address"),
    *("evaluation_address", "batch", "requested", "answered", "reused"),
)


def all_tables(
    experiment: Experiment,
    comparison: Comparison,
    resources: Sequence[Resources],
    failures: Sequence[Failure],
    lengths: Sequence[Length],
    timelines: Sequence[Timeline],
) -> list[Table]:
    """Return every table of a report."""
    document = comparison.document
    names = [run.name for run in experiment.runs]
    return [
        make_table(
            "headline", "a run: its settings and every estimate", *headline_lines(experiment)
        ),
        make_table("summary", "a figure of a run, with interval and counts", *summary(experiment)),
        make_table("seeds", "a setting with several seeds, pooled", SEEDS, document["seeds"]),
        make_table(
            "comparisons",
            "two runs on the same rows: difference, test, detectable difference",
            comparisons.COLUMNS,
            document["comparisons"],
        ),
        make_table("gates", "a gate of the config and its verdict", *_gates(comparison)),
        make_table(
            "lengths",
            "a bin of a run's histogram: completions of low to low + width - 1 tokens",
            ("run", "low", "width", "share"),
            [{**vars(bin_), "run": names[bin_.run]} for bin_ in lengths],
        ),
        make_table(
            "failures",
            "a type of failure in a run",
            ("type", "run", "completions"),
            [
                {"type": failure.type, "run": names[run], "completions": count}
                for failure in failures
                for run, count in failure.counts.items()
            ],
        ),
        make_table("engines", "an engine start", *engine_lines(resources)),
        make_table("usage", "GPU time, energy and cost of a batch", USAGE, _usage(resources)),
        make_table("run_usage", "a run's part of them", RUN_USAGE, _run_usage(resources)),
        make_table(
            "gpu_timeline",
            "a GPU during one step of time: what it did on average",
            ("batch", "gpu", "step_s", *Step._fields),
            timeline_lines(timelines),
        ),
        make_table(
            "determinism",
            "what a run declares, and how far a second engine agreed",
            DETERMINISM,
            _determinism(experiment),
        ),
        make_table(
            "provenance",
            "a run: its addresses, and where its answers came from",
            PROVENANCE,
            _provenance(experiment),
        ),
    ]


def _gates(comparison: Comparison) -> tuple[list[str], list[Line]]:
    lines: list[Line] = list(comparison.gates)
    return list(dict.fromkeys([*GATES, *(key for line in lines for key in line)])), lines


def _usage(resources: Sequence[Resources]) -> Iterator[Line]:
    for one in resources:
        used = one.usage
        if used is not None:
            yield {
                "batch": one.batch.name,
                "engine": one.batch.engine,
                "allocated_gpu_s": used.allocated_s,
                "starting_gpu_s": used.starting_s,
                "generating_gpu_s": used.generating_s,
                "other_gpu_s": used.other_s,
                "idle_gpu_s": used.idle_s,
                "energy_j": used.energy_j,
                "output_tokens": used.tokens,
                "energy_of_1000_tokens_j": used.energy_of_1000_tokens_j,
                "cost": used.cost,
            }


def _run_usage(resources: Sequence[Resources]) -> Iterator[Line]:
    for one in resources:
        used = one.usage
        for run in one.batch.runs if used is not None else ():
            tokens = run.facts.get("generated_tokens")
            yield {
                "run": run.name,
                "batch": one.batch.name,
                "generated_tokens": tokens,
                "energy_j": used and used.of_run(used.energy_j, tokens),
                "cost": used and used.of_run(used.cost, tokens),
            }


def _determinism(experiment: Experiment) -> Iterator[Line]:
    for run in experiment.runs:
        second: dict[str, Any] = dict(run.replication or {})
        yield {
            "run": run.name,
            "declared": None if run.is_dummy else run.engine.get("determinism", "fast"),
            "asked_again": second.get("compared"),
            "identical": second.get("identical"),
            "share": second.get("share"),
            "low": second.get("low"),
            "high": second.get("high"),
        }


def _provenance(experiment: Experiment) -> Iterator[Line]:
    for run in experiment.runs:
        engine, prompts, _ = run.parts
        yield {
            "run": run.name,
            "run_address": run.address,
            "engine": engine,
            "engine_address": run.engine_address,
            "prompts": prompts,
            "prompts_address": run.prompts_address,
            "evaluation_address": folder_address(run.evaluation) if run.evaluation else None,
            **{key: run.facts.get(key) for key in ("batch", "requested", "answered", "reused")},
        }
