"""Make the files of a report from the stage folders of its runs."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.llm_batch.addresses import (
    write_identity,
    write_json_atomic,
    write_manifest,
    write_text_atomic,
)
from scripts.llm_batch.errors import WorkflowError
from scripts.llm_batch.report import numbers
from scripts.llm_batch.report.browser import browser_data
from scripts.llm_batch.report.choose import choose_rows
from scripts.llm_batch.report.comparisons import COLUMNS, Comparison, compare_experiment
from scripts.llm_batch.report.completions import database, failures, lengths
from scripts.llm_batch.report.engines import batches
from scripts.llm_batch.report.figures import headline
from scripts.llm_batch.report.files import markdown, write_csv
from scripts.llm_batch.report.gather import gather
from scripts.llm_batch.report.length_plot import length_plot
from scripts.llm_batch.report.listing import headline_lines, summary
from scripts.llm_batch.report.page import Content, render
from scripts.llm_batch.report.plots import metric_plots
from scripts.llm_batch.report.records import Experiment
from scripts.llm_batch.report.resource_plots import memory_plot, throughput_plot
from scripts.llm_batch.report.resources import engine_lines, resources
from scripts.llm_batch.report.startup_plot import phases_shown, startup_plot
from scripts.llm_batch.report.swept_plots import swept_plots

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sources:
    """What a report is made from."""

    identity: Mapping[str, Any]
    runs: Sequence[Path]
    evaluations: Sequence[Path]
    command: str
    replications: Sequence[Path] = ()


@dataclass(frozen=True)
class Outputs:
    """Where the files of a report go: all into one folder."""

    page: Path
    summary: Path
    headline: Path

    @property
    def folder(self) -> Path:
        """The stage folder of the report."""
        return self.page.parent

    @property
    def engines(self) -> Path:
        """The table of all engine starts."""
        return self.folder / "engines.csv"

    @property
    def markdown(self) -> Path:
        """The headline table for a pull request."""
        return self.folder / "report.md"

    @property
    def comparisons(self) -> Path:
        """The comparisons of runs and the verdicts of gates; beside it the former as CSV."""
        return self.folder / "comparisons.json"


def write_report(sources: Sources, outputs: Outputs) -> None:
    """Write page, CSVs, Markdown, identity and, last, manifest."""
    for path in (outputs.summary, outputs.headline):
        if path.parent != outputs.folder:
            raise WorkflowError(f"{path}: must lie beside {outputs.page}")
    write_identity(outputs.folder, "reports", sources.identity)
    experiment = gather(
        sources.identity,
        sources.runs,
        sources.evaluations,
        sources.command,
        sources.replications,
    )
    content = page_content(experiment, compare_experiment(experiment, sources.identity))
    page = render(content)
    write_text_atomic(outputs.page, page)
    write_csv(outputs.summary, *summary(experiment))
    write_csv(outputs.headline, *headline_lines(experiment))
    write_csv(outputs.engines, *engine_lines(content.resources))
    write_text_atomic(outputs.markdown, markdown(experiment, content.headline, content.comparison))
    write_json_atomic(outputs.comparisons, content.comparison.document)
    table = outputs.comparisons.with_suffix(".csv")
    write_csv(table, COLUMNS, content.comparison.document["comparisons"])
    files = [outputs.page, outputs.summary, outputs.headline, outputs.engines, outputs.markdown]
    files += [outputs.comparisons, table]
    facts = {"runs": len(experiment.runs), "rows": content.choice.kept}
    write_manifest(outputs.folder, files, facts)
    size = numbers.data_size(outputs.page.stat().st_size).replace(numbers.NARROW_SPACE, " ")
    LOG.info("%s: %s. %s", outputs.page, size, content.choice.describe())


def page_content(experiment: Experiment, comparison: Comparison) -> Content:
    """Compute everything that the page shows."""
    if not experiment.runs:
        raise WorkflowError("a report needs at least one run")
    answered_by = batches(experiment)
    taken = resources(experiment, answered_by, experiment.price_per_gpu_hour)
    with database(experiment.runs) as connection:
        choice = choose_rows(connection, experiment.row_limit)
        return Content(
            experiment=experiment,
            headline=headline(experiment),
            plots={metric: metric_plots(experiment, metric) for metric in experiment.metrics},
            swept_plots=swept_plots(experiment),
            length_plot=length_plot(experiment, lengths(connection)),
            startup_plot=startup_plot(answered_by),
            phases=phases_shown(answered_by),
            batches=answered_by,
            resources=taken,
            resource_plots=[
                plot for draw in (memory_plot, throughput_plot) if (plot := draw(taken))
            ],
            failures=failures(connection),
            choice=choice,
            comparison=comparison,
            rows=browser_data(connection, experiment.runs) if choice.kept else None,
        )
