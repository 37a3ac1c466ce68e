"""Make the files of a report from the stage folders of its runs."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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
from scripts.llm_batch.report.all_tables import all_tables
from scripts.llm_batch.report.browser import browser_data
from scripts.llm_batch.report.choose import choose_rows
from scripts.llm_batch.report.comparisons import Comparison, compare_experiment
from scripts.llm_batch.report.completions import database, failures, lengths
from scripts.llm_batch.report.engines import batches
from scripts.llm_batch.report.figures import headline
from scripts.llm_batch.report.gather import gather
from scripts.llm_batch.report.length_plot import length_plot
from scripts.llm_batch.report.markdown import markdown
from scripts.llm_batch.report.page import MOST_DRAWN, PLOTS, TABLES, Content, config_yaml, render
from scripts.llm_batch.report.plot_files import write_plots
from scripts.llm_batch.report.plots import metric_plots
from scripts.llm_batch.report.records import Experiment
from scripts.llm_batch.report.resource_plots import energy_plot, memory_plot, throughput_plot
from scripts.llm_batch.report.resources import resources
from scripts.llm_batch.report.startup_plot import startup_plot
from scripts.llm_batch.report.swept_plots import swept_plots
from scripts.llm_batch.report.tables import write_tables
from scripts.llm_batch.report.timeline import read_timelines
from scripts.llm_batch.report.timeline_plot import timeline_plots

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sources:
    """What a report is made from; `config` is shown, the identity decides."""

    identity: Mapping[str, Any]
    runs: Sequence[Path]
    evaluations: Sequence[Path]
    command: str
    replications: Sequence[Path] = ()
    config: Mapping[str, Any] = field(default_factory=dict)


def write_report(sources: Sources, page: Path) -> None:
    """Write `page` and all that lies beside it: Markdown, tables, plots, config, manifest last."""
    folder = page.parent
    write_identity(folder, "reports", sources.identity)
    experiment = gather(
        sources.identity,
        sources.runs,
        sources.evaluations,
        sources.command,
        sources.replications,
        sources.config,
    )
    content = page_content(experiment, compare_experiment(experiment, sources.identity))
    write_text_atomic(page, render(content))
    files = [page, *_write_texts(folder, content)]
    files += write_tables(folder / TABLES, experiment.title, content.tables)
    files += write_plots(folder / PLOTS, content.all_plots, experiment.runs)
    facts = {"runs": len(experiment.runs), "rows": content.choice.kept}
    write_manifest(folder, files, facts)
    size = numbers.data_size(page.stat().st_size).replace(numbers.NARROW_SPACE, " ")
    LOG.info("%s: %s. %s", page, size, content.choice.describe())


def _write_texts(folder: Path, content: Content) -> list[Path]:
    """Write what is neither the page nor a table nor a plot."""
    experiment, comparison = content.experiment, content.comparison
    text = markdown(
        experiment,
        content.headline,
        comparison,
        content.failures,
        content.batches,
        content.resources,
    )
    write_text_atomic(folder / "report.md", text)
    write_text_atomic(folder / "config.yaml", config_yaml(experiment))
    write_json_atomic(folder / "comparisons.json", comparison.document)
    return [folder / name for name in ("report.md", "config.yaml", "comparisons.json")]


def page_content(experiment: Experiment, comparison: Comparison) -> Content:
    """Compute everything that the page shows."""
    if not experiment.runs:
        raise WorkflowError("a report needs at least one run")
    answered_by = batches(experiment)
    taken = resources(experiment, answered_by, experiment.price_per_gpu_hour)
    timelines = read_timelines(answered_by)
    drawn = [memory_plot(taken), throughput_plot(taken), energy_plot(taken)]
    drawn += [startup_plot(answered_by), *timeline_plots(timelines)]
    with database(experiment.runs) as connection:
        choice = choose_rows(connection, experiment.row_limit)
        failed, bins = failures(connection), lengths(connection)
        few = len(experiment.runs) <= MOST_DRAWN
        return Content(
            experiment=experiment,
            headline=headline(experiment),
            plots={m: metric_plots(experiment, m) for m in experiment.metrics} if few else {},
            swept_plots=swept_plots(experiment),
            length_plot=length_plot(experiment, bins) if few else None,
            batches=answered_by,
            resources=taken,
            engine_plots=list(filter(None, drawn)),
            failures=failed,
            choice=choice,
            comparison=comparison,
            tables=all_tables(experiment, comparison, taken, failed, bins, timelines),
            rows=browser_data(connection, experiment.runs) if choice.kept else None,
        )
