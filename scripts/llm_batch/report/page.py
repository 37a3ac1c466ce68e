"""Put the page together: one HTML file that asks nobody for anything."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import yaml
from markupsafe import Markup

from scripts.llm_batch.report import numbers
from scripts.llm_batch.report.browser import script_json
from scripts.llm_batch.report.chain import chain_svg, identities, identity_id
from scripts.llm_batch.report.choose import Choice
from scripts.llm_batch.report.comparisons import Comparison, p_text
from scripts.llm_batch.report.completions import Failure
from scripts.llm_batch.report.engines import Batch
from scripts.llm_batch.report.figures import Headline
from scripts.llm_batch.report.marks import Plot
from scripts.llm_batch.report.palette import SHAPE_PATHS, css_variables, run_shape
from scripts.llm_batch.report.records import Experiment
from scripts.llm_batch.report.resource_table import run_rows, table
from scripts.llm_batch.report.resources import Resources, labelled
from scripts.llm_batch.report.swept_plots import JOINED
from scripts.llm_batch.report.tables import INDEX, Table
from scripts.llm_batch.report.unscored import failed_scores
from scripts.llm_batch.report.usage import SHARING

TABLES, PLOTS = "tables", "plots"
"""Folders beside the page."""

TEMPLATES = Path(__file__).parent / "templates"
MOST_DRAWN = 200
"""Runs in a plot: more are a page of 4 000 pixels, and Vega ends with a RangeError at 2 000."""

SCRIPTS = ("table.js", "plots.js", "rows.js", "text.js", "list.js", "detail.js", "browser.js")


@dataclass(frozen=True)
class Content:
    """What the page shows, ready to be written down."""

    experiment: Experiment
    headline: Headline
    plots: Mapping[str, list[Plot]]
    swept_plots: list[Plot]
    length_plot: Plot | None
    batches: list[Batch]
    resources: list[Resources]
    engine_plots: list[Plot]
    failures: list[Failure]
    choice: Choice
    comparison: Comparison
    tables: Sequence[Table]
    rows: Mapping[str, Any] | None

    @property
    def all_plots(self) -> Iterator[Plot]:
        """Every plot of the page, in its order."""
        for plots in self.plots.values():
            yield from plots
        yield from filter(None, [self.length_plot, *self.swept_plots])
        yield from self.engine_plots


def render(content: Content) -> str:
    """Return the page as HTML."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        n=numbers, zip=zip, shape_paths=SHAPE_PATHS, run_shape=run_shape, identity_id=identity_id
    )
    environment.filters["pretty"] = _pretty
    experiment = content.experiment
    style = (TEMPLATES / "report.css").read_text("utf-8") + css_variables(len(experiment.runs))
    script = _script()
    template = environment.get_template("report.html.j2")
    values: dict[str, Any] = {
        "experiment": experiment,
        "content": content,
        "comparison": content.comparison,
        "most_drawn": MOST_DRAWN,
        "totals": _totals(experiment, content.choice),
        "intervals": _intervals(experiment),
        "definitions": _definitions(experiment),
        "failed_scores": failed_scores(experiment),
        "whisker": _Whiskers(experiment),
        "resource_table": table(content.resources),
        "resource_labels": [label for label, _ in labelled(content.resources)],
        "run_usage": run_rows(content.resources),
        "sharing": SHARING,
        "joined": JOINED,
        "p_text": p_text,
        "index": f"{TABLES}/{INDEX}",
        "config": config_yaml(experiment) if experiment.config else "",
        "chain": Markup(chain_svg(experiment)),
        "identities": identities(experiment, experiment.runs),
        "dummy": any(run.is_dummy for run in experiment.runs),
        "mixed": len({run.is_dummy for run in experiment.runs}) > 1,
        "modes": {r.engine.get("determinism", "fast") for r in experiment.runs if not r.is_dummy},
        "policy": _policy(style, script),
        "style": Markup(style),
        "script": Markup(script),
        "data": Markup(script_json(content.rows)) if content.rows is not None else None,
    }
    # The page states its own weight, which is known once it has been written.
    weight = len(template.render(values, weight="").encode())
    return template.render(values, weight=numbers.data_size(weight))


def config_yaml(experiment: Experiment) -> str:
    """Return the config as it was read, options of the command line put in."""
    return yaml.safe_dump(dict(experiment.config), sort_keys=False, allow_unicode=True)


def _script() -> str:
    parts = [(TEMPLATES / name).read_text("utf-8") for name in SCRIPTS]
    return '(() => {\n"use strict";\n' + "\n".join(parts) + "})();\n"


def _policy(style: str, script: str) -> str:
    """Allow nothing but the page's own style and script, by their digests."""
    allowed = f"style-src '{_digest(style)}'; script-src '{_digest(script)}'"
    return f"default-src 'none'; {allowed}; base-uri 'none'; form-action 'none'"


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False)


@dataclass(frozen=True)
class _Totals:
    runs: int
    rows: int
    completions: int | None
    errors: int | None
    reused: int | None
    requested: int | None


def _totals(experiment: Experiment, choice: Choice) -> _Totals:

    def add(values: list[int | None]) -> int | None:
        return None if None in values else sum(value or 0 for value in values)

    return _Totals(
        runs=len(experiment.runs),
        rows=choice.rows,
        completions=add([run.completions for run in experiment.runs]),
        errors=add([run.errors for run in experiment.runs]),
        reused=experiment.reused,
        requested=experiment.requested,
    )


def _intervals(experiment: Experiment) -> list[str]:
    found = (value.interval for run in experiment.runs for value in run.values)
    return sorted({text for text in found if text})


def _definitions(experiment: Experiment) -> dict[str, str]:
    """Return what the evaluations say their statistics mean."""
    return {k: v for run in experiment.runs for k, v in run.metrics.get("definitions", {}).items()}


class _Whiskers:
    """Places estimates on one scale for each column of the headline table."""

    WIDTH = 84

    def __init__(self, experiment: Experiment) -> None:
        self._ends: dict[str, tuple[float, float]] = {}
        for run in experiment.runs:
            for value in run.values:
                if value.statistic in ("accuracy", "mean_score") and value.value is not None:
                    ends = [value.value, *(v for v in (value.low, value.high) if v is not None)]
                    key = f"{value.metric}.{value.statistic}"
                    low, high = self._ends.get(key, (ends[0], ends[0]))
                    self._ends[key] = (min(low, *ends), max(high, *ends))

    def place(self, key: str, value: float) -> float:
        """Return how far from the left, in units of the drawing, `value` lies."""
        low, high = self._ends[key]
        return round(5 + (self.WIDTH - 10) * (value - low) / ((high - low) or 1), 1)
