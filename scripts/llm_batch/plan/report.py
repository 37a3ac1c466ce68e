"""What is made of the answers: evaluations, replications and the report of an experiment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Protocol

from scripts.llm_batch.config.records import Comparisons, Config, ReportOptions, Run
from scripts.llm_batch.environments.identity import LM_EVAL
from scripts.llm_batch.plan.stages import Stage, make_stage


class PlannedRun(Protocol):
    """What a report needs to know of a run."""

    @property
    def stage(self) -> Stage:
        """The run."""

    @property
    def evaluation(self) -> Stage:
        """Its evaluation."""

    @property
    def replication(self) -> Stage | None:
        """Its replication, if one was asked for."""

    @property
    def max_error_rate(self) -> float:
        """Share of its completions that may be errors."""


def plan_evaluation(run: Run, stage: Stage, config: Config) -> Stage:
    metrics = {
        name: {"type": config.metrics[name].type, **config.metrics[name].settings}
        for name in run.metrics
    }
    identity: dict[str, Any] = {"run": stage.address, "metrics": metrics}
    if config.prompts[run.prompts].lm_eval is not None:
        identity["scored_by"] = LM_EVAL
    return make_stage("evaluations", run.name, identity)


def plan_replication(run: Run, stage: Stage) -> Stage | None:
    if not run.replicate:
        return None
    return make_stage("replications", run.name, {"run": stage.address, "requests": run.replicate})


def report_options(report: ReportOptions) -> dict[str, Any]:
    """Return what decides the look of a report; a price only where there is one."""
    options: dict[str, Any] = {"title": report.title, "rows": report.rows}
    if report.price_per_gpu_hour is not None:
        options["price_per_gpu_hour"] = report.price_per_gpu_hour
        options["currency"] = report.currency
    return options


def _comparison_identity(config: Config) -> dict[str, Any]:
    """Return what is not as it is without saying so: a report without it keeps its address."""
    identity: dict[str, Any] = {}
    if config.comparisons != Comparisons():
        identity["comparisons"] = asdict(config.comparisons)
    if config.gates:
        identity["gates"] = [dict(gate) for gate in config.gates]
    return identity


def plan_report(config: Config, runs: Sequence[PlannedRun]) -> Stage:
    identity = {
        "experiment": config.experiment,
        "evaluations": [
            {
                "run": run.stage.name,
                "evaluation": run.evaluation.address,
                "max_error_rate": run.max_error_rate,
                **({"replication": run.replication.address} if run.replication else {}),
            }
            for run in runs
        ],
        "options": report_options(config.report),
        **_comparison_identity(config),
    }
    return make_stage("reports", config.experiment, identity)
