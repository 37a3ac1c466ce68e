"""The plots of one metric: each run, pass@k, diversity against quality."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import altair as alt

from scripts.llm_batch.report import numbers
from scripts.llm_batch.report.drawing import HALO, HEIGHT, SOLID, draw
from scripts.llm_batch.report.marks import (
    DIVERSITY,
    PLAIN,
    Figure,
    Plot,
    Record,
    dash,
    level_words,
    run_chart,
    run_inks,
    shape,
)
from scripts.llm_batch.report.records import Experiment, Run

MOST_BANDS = 8
"""More bands over each other hide the lines."""


def metric_plots(experiment: Experiment, metric: str) -> list[Plot]:
    """Return the plots of one metric: by run, pass@k, diversity."""
    known = any(run.find(metric, "accuracy") for run in experiment.runs)
    statistic = "accuracy" if known else "mean_score"
    figure = Figure(statistic.replace("_", " "), known)
    runs = [run for run in experiment.runs if run.find(metric, statistic)]
    if not runs:
        return []
    found = [
        _by_run(runs, metric, statistic, figure),
        _pass_at_k(runs, metric),
        _diversity(runs, metric, statistic, figure),
    ]
    return [replace(plot, metric=metric) for plot in found if plot]


def _records(
    runs: Sequence[Run], metric: str | None, statistic: str, figure: Figure
) -> list[Record]:
    return [
        {
            "run": run.label,
            "value": value.value,
            "low": value.value if value.low is None else value.low,
            "high": value.value if value.high is None else value.high,
            "text": f"{run.label}: {figure.name} {figure.interval(value)}",
        }
        for run in runs
        if (value := run.find(metric, statistic)) and value.value is not None
    ]


def _by_run(runs: Sequence[Run], metric: str, statistic: str, figure: Figure) -> Plot:
    order = [run.label for run in runs]
    axis = alt.Axis(title=None, labelLimit=150, grid=False, ticks=False, domain=False)
    y = alt.Y("run:O", sort=order, axis=axis)
    x = alt.X("low:Q", scale=alt.Scale(zero=False), axis=figure.axis())
    base = run_chart(_records(runs, metric, statistic, figure), runs).encode(y=y)
    whiskers = base.mark_rule(strokeWidth=2).encode(x=x, x2="high:Q")
    points = base.mark_point(size=80, **SOLID).encode(x="value:Q", shape=shape(runs))
    title = f"{figure.name.capitalize()} of each run ({metric})"
    height = max(HEIGHT, 22 * len(runs) + 60)
    svg = draw([whiskers, points], title, run_inks(runs), height)
    caption = f"Mean over rows and its {level_words(runs)} interval."
    return Plot(f"{metric}-by-run", title, caption, svg, tall=height > HEIGHT)


def _pass_at_k(runs: Sequence[Run], metric: str) -> Plot | None:
    figure = Figure("pass@k", share=True)
    drawn = [run for run in runs if run.curve(metric, "pass@k")]
    records = [
        {
            "run": run.label,
            "k": value.k,
            "value": value.value,
            "low": value.value if value.low is None else value.low,
            "high": value.value if value.high is None else value.high,
            "text": f"{run.label}: pass@{value.k} {figure.interval(value)}",
        }
        for run in drawn
        for value in run.curve(metric, "pass@k")
    ]
    ks = sorted({v.k for run in drawn for v in run.curve(metric, "pass@k") if v.k is not None})
    if len(ks) < 2:
        return None
    x = alt.X(
        "k:Q",
        scale=alt.Scale(type="log", base=2, nice=False, padding=14),
        axis=alt.Axis(title="k, samples a row", values=ks, grid=False, format="d"),
    )
    y = alt.Y("value:Q", scale=alt.Scale(zero=False), axis=figure.axis())
    base = run_chart(records, drawn).encode(x=x)
    band = base.mark_area(opacity=0.13).encode(y=alt.Y("low:Q", axis=figure.axis()), y2="high:Q")
    lines = base.mark_line(strokeWidth=2).encode(y=y, strokeDash=dash(drawn))
    points = base.mark_point(size=60, **HALO).encode(y=y, shape=shape(drawn))
    title = f"pass@k ({metric})"
    caption = "Chance that k samples of a row hold a right one"
    if len(drawn) <= MOST_BANDS:
        caption += f"; bands: {level_words(runs)} intervals"
    layers = [band, lines, points] if len(drawn) <= MOST_BANDS else [lines, points]
    svg = draw(layers, title, run_inks(drawn))
    return Plot(f"{metric}-pass-at-k", title, f"{caption}.", svg, by_colour=True)


def _diversity(runs: Sequence[Run], metric: str, statistic: str, figure: Figure) -> Plot | None:
    measure = next((m for m in DIVERSITY if any(run.find(None, m) for run in runs)), None)
    if measure is None:
        return None
    name = measure.replace("_", " ")
    shown = [run for run in runs if run.find(None, measure)]
    across = _records(shown, None, measure, Figure(name, share=False))
    upright = _records(shown, metric, statistic, figure)
    records = [
        {**up, "x": a["value"], "x_low": a["low"], "x_high": a["high"], "text": _both(up, a)}
        for up, a in zip(upright, across, strict=True)
    ]
    axis = alt.Axis(title=f"{name}, share", tickCount=5, labelExpr=PLAIN)
    x = alt.X("x_low:Q", scale=alt.Scale(zero=False), axis=axis)
    y = alt.Y("low:Q", scale=alt.Scale(zero=False), axis=figure.axis())
    base = run_chart(records, shown)
    level = base.mark_rule(strokeWidth=1.5).encode(x=x, x2="x_high:Q", y="value:Q")
    whiskers = base.mark_rule(strokeWidth=1.5).encode(x="x:Q", y=y, y2="high:Q")
    points = base.mark_point(size=80, **SOLID).encode(x="x:Q", y="value:Q", shape=shape(shown))
    title = f"Diversity and {figure.name} ({metric})"
    left_out = len(runs) - len(shown)
    caption = f"{name.capitalize()} among the samples of a row, and {figure.name}."
    if left_out:
        caption += (
            f" {left_out} {numbers.plural(left_out, 'run')} with one sample a row: not defined."
        )
    svg = draw([level, whiskers, points], title, run_inks(shown))
    return Plot(f"{metric}-diversity", title, caption, svg, by_colour=True)


def _both(upright: Record, across: Record) -> str:
    return f"{upright['text']}; {across['text'].partition(': ')[2]}"
