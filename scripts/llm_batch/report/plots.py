"""The plots of the page, each with a sentence that says what it shows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import altair as alt

from scripts.llm_batch.report import numbers
from scripts.llm_batch.report.completions import Length
from scripts.llm_batch.report.drawing import HALO, HEIGHT, SOLID, draw
from scripts.llm_batch.report.palette import DASHES, SHAPES, Ink, run_ink, run_shape
from scripts.llm_batch.report.records import Experiment, Run, Value

MOST_BANDS = 8
"""More bands over each other hide the lines."""

PLAIN = "format(datum.value, '~g')"
"""Writes ticks as they are; an axis's own format rounds to the distance between ticks."""

DIVERSITY = ("unique_answers", "distinct-2", "distinct-1")
"""Measures of diversity within a row, the first that is known is drawn."""

Record = dict[str, Any]


@dataclass(frozen=True)
class Plot:
    """A drawn plot and the sentence under it."""

    key: str
    title: str
    caption: str
    svg: str
    tall: bool = False
    metric: str = ""


@dataclass(frozen=True)
class _Figure:
    """A statistic as plots write it."""

    name: str
    share: bool

    def number(self, value: float | None) -> str:
        return f"{numbers.percent(value)} %" if self.share else numbers.decimal(value)

    def interval(self, value: Value) -> str:
        text = self.number(value.value)
        if value.low is None or value.high is None:
            return text
        return f"{text} [{self.number(value.low)}, {self.number(value.high)}]"

    def axis(self, **settings: Any) -> alt.Axis:
        title = f"{self.name}, %" if self.share else self.name
        # Percent signs at every tick only cost room.
        labels = "format(datum.value * 100, '~r')" if self.share else PLAIN
        return alt.Axis(title=title, labelExpr=labels, tickCount=5, **settings)


def metric_plots(experiment: Experiment, metric: str) -> list[Plot]:
    """Return the plots of one metric: by run, against temperature, pass@k, diversity."""
    known = any(run.find(metric, "accuracy") for run in experiment.runs)
    statistic = "accuracy" if known else "mean_score"
    figure = _Figure(statistic.replace("_", " "), known)
    runs = [run for run in experiment.runs if run.find(metric, statistic)]
    if not runs:
        return []
    found = [
        _by_run(runs, metric, statistic, figure),
        _by_temperature(runs, metric, statistic, figure),
        _pass_at_k(runs, metric),
        _diversity(runs, metric, statistic, figure),
    ]
    return [replace(plot, metric=metric) for plot in found if plot]


def _colour(runs: Sequence[Run]) -> alt.Color:
    inks = [run_ink(run.index).sentinel for run in runs]
    scale = alt.Scale(domain=[run.label for run in runs], range=inks)
    return alt.Color("run:N", scale=scale, legend=None)


def _shape(runs: Sequence[Run]) -> alt.Shape:
    shapes = [SHAPES[run_shape(run.index)] for run in runs]
    scale = alt.Scale(domain=[run.label for run in runs], range=shapes)
    return alt.Shape("run:N", scale=scale, legend=None)


def _dash(runs: Sequence[Run]) -> alt.StrokeDash:
    dashes = [list(DASHES[run.index % len(DASHES)]) for run in runs]
    scale = alt.Scale(domain=[run.label for run in runs], range=dashes)
    return alt.StrokeDash("run:N", scale=scale, legend=None)


def _inks(runs: Sequence[Run]) -> list[Ink]:
    return [run_ink(run.index) for run in runs]


def _chart(records: Sequence[Record], runs: Sequence[Run]) -> alt.Chart:
    chart = alt.Chart(alt.InlineData(values=list(records)))
    return chart.encode(color=_colour(runs), description=alt.Description("text:N"))


def _records(
    runs: Sequence[Run], metric: str | None, statistic: str, figure: _Figure
) -> list[Record]:
    return [
        {
            "run": run.label,
            "temperature": run.params.get("temperature"),
            "value": value.value,
            "low": value.value if value.low is None else value.low,
            "high": value.value if value.high is None else value.high,
            "text": f"{run.label}: {figure.name} {figure.interval(value)}",
        }
        for run in runs
        if (value := run.find(metric, statistic)) and value.value is not None
    ]


def _level(runs: Sequence[Run]) -> str:
    return f"{runs[0].level:.0%}".replace("%", " %")


def _by_run(runs: Sequence[Run], metric: str, statistic: str, figure: _Figure) -> Plot:
    order = [run.label for run in runs]
    axis = alt.Axis(title=None, labelLimit=150, grid=False, ticks=False, domain=False)
    y = alt.Y("run:O", sort=order, axis=axis)
    x = alt.X("low:Q", scale=alt.Scale(zero=False), axis=figure.axis())
    base = _chart(_records(runs, metric, statistic, figure), runs).encode(y=y)
    whiskers = base.mark_rule(strokeWidth=2).encode(x=x, x2="high:Q")
    points = base.mark_point(size=80, **SOLID).encode(x="value:Q", shape=_shape(runs))
    title = f"{figure.name.capitalize()} of each run ({metric})"
    height = max(HEIGHT, 22 * len(runs) + 60)
    svg = draw([whiskers, points], title, _inks(runs), height)
    caption = f"Mean over rows and its {_level(runs)} interval."
    return Plot(f"{metric}-by-run", title, caption, svg, tall=height > HEIGHT)


def _by_temperature(
    runs: Sequence[Run], metric: str, statistic: str, figure: _Figure
) -> Plot | None:
    records = _records(runs, metric, statistic, figure)
    known = [record for record in records if record["temperature"] is not None]
    temperatures = sorted({float(record["temperature"]) for record in known})
    if len(temperatures) < 2:
        return None
    _set_apart(known, (temperatures[-1] - temperatures[0]) / 32)
    x = alt.X(
        "beside:Q",
        scale=alt.Scale(nice=False, padding=18),
        axis=alt.Axis(title="temperature", values=temperatures, grid=False, labelExpr=PLAIN),
    )
    y = alt.Y("low:Q", scale=alt.Scale(zero=False), axis=figure.axis())
    base = _chart(known, runs).encode(x=x)
    whiskers = base.mark_rule(strokeWidth=2).encode(y=y, y2="high:Q")
    points = base.mark_point(size=80, **SOLID).encode(y="value:Q", shape=_shape(runs))
    title = f"{figure.name.capitalize()} against temperature ({metric})"
    svg = draw([whiskers, points], title, _inks(runs))
    caption = f"{_level(runs)} intervals; runs of one temperature stand side by side."
    return Plot(f"{metric}-by-temperature", title, caption, svg)


def _set_apart(records: Sequence[Record], step: float) -> None:
    """Give records of one temperature places beside each other."""
    groups: dict[float, list[Record]] = {}
    for record in records:
        groups.setdefault(record["temperature"], []).append(record)
    for temperature, members in groups.items():
        for place, record in enumerate(members):
            record["beside"] = temperature + (place - (len(members) - 1) / 2) * step


def _pass_at_k(runs: Sequence[Run], metric: str) -> Plot | None:
    figure = _Figure("pass@k", share=True)
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
    base = _chart(records, drawn).encode(x=x)
    band = base.mark_area(opacity=0.13).encode(y=alt.Y("low:Q", axis=figure.axis()), y2="high:Q")
    lines = base.mark_line(strokeWidth=2).encode(y=y, strokeDash=_dash(drawn))
    points = base.mark_point(size=60, **HALO).encode(y=y, shape=_shape(drawn))
    title = f"pass@k ({metric})"
    caption = "Chance that k samples of a row hold a right one"
    if len(drawn) <= MOST_BANDS:
        caption += f"; bands: {_level(runs)} intervals"
    layers = [band, lines, points] if len(drawn) <= MOST_BANDS else [lines, points]
    svg = draw(layers, title, _inks(drawn))
    return Plot(f"{metric}-pass-at-k", title, f"{caption}.", svg)


def _diversity(runs: Sequence[Run], metric: str, statistic: str, figure: _Figure) -> Plot | None:
    measure = next((m for m in DIVERSITY if any(run.find(None, m) for run in runs)), None)
    if measure is None:
        return None
    name = measure.replace("_", " ")
    shown = [run for run in runs if run.find(None, measure)]
    across = _records(shown, None, measure, _Figure(name, share=False))
    upright = _records(shown, metric, statistic, figure)
    records = [
        {**up, "x": a["value"], "x_low": a["low"], "x_high": a["high"], "text": _both(up, a)}
        for up, a in zip(upright, across, strict=True)
    ]
    axis = alt.Axis(title=f"{name}, share", tickCount=5, labelExpr=PLAIN)
    x = alt.X("x_low:Q", scale=alt.Scale(zero=False), axis=axis)
    y = alt.Y("low:Q", scale=alt.Scale(zero=False), axis=figure.axis())
    base = _chart(records, shown)
    level = base.mark_rule(strokeWidth=1.5).encode(x=x, x2="x_high:Q", y="value:Q")
    whiskers = base.mark_rule(strokeWidth=1.5).encode(x="x:Q", y=y, y2="high:Q")
    points = base.mark_point(size=80, **SOLID).encode(x="x:Q", y="value:Q", shape=_shape(shown))
    title = f"Diversity and {figure.name} ({metric})"
    left_out = len(runs) - len(shown)
    caption = f"{name.capitalize()} among the samples of a row, and {figure.name}."
    if left_out:
        caption += (
            f" {left_out} {numbers.plural(left_out, 'run')} with one sample a row: not defined."
        )
    svg = draw([level, whiskers, points], title, _inks(shown))
    return Plot(f"{metric}-diversity", title, caption, svg)


def _both(upright: Record, across: Record) -> str:
    return f"{upright['text']}; {across['text'].partition(': ')[2]}"


def length_plot(experiment: Experiment, lengths: Sequence[Length]) -> Plot | None:
    """Return the histograms of completion lengths, one above the other."""
    if not lengths:
        return None
    runs, width = experiment.runs, lengths[0].width
    tallest = max(bin_.share for bin_ in lengths)
    bar = 0.8 if width == 1 else width
    records = [
        {
            "run": runs[bin_.run].label,
            "from": bin_.low - (0.4 if width == 1 else 0.5),
            "to": bin_.low - (0.4 if width == 1 else 0.5) + bar,
            "base": -bin_.run,
            "top": -bin_.run + 0.82 * bin_.share / tallest,
            "text": f"{runs[bin_.run].label}: {_tokens(bin_.low, width)}, "
            f"{numbers.percent(bin_.share)} % of completions",
        }
        for bin_ in lengths
    ]
    labels = json.dumps([run.label for run in runs])
    axis = alt.Axis(
        title=None,
        values=[-run.index for run in runs],
        labelExpr=f"{labels}[-datum.value]",
        labelLimit=150,
        labelBaseline="bottom",
        domain=False,
        ticks=False,
    )
    y = alt.Y("base:Q", scale=alt.Scale(domain=[1 - len(runs), 1], nice=False), axis=axis)
    tokens = alt.Axis(title="tokens in a completion", grid=False, tickCount=6, format="~s")
    x = alt.X("from:Q", scale=alt.Scale(zero=False, nice=False, padding=6), axis=tokens)
    bars = _chart(records, runs).mark_rect().encode(x=x, x2="to:Q", y=y, y2="top:Q")
    title = "Length of completions"
    caption = "Share of each run's completions, errors left out; all on one scale."
    if width > 1:
        caption += f" Bins of {width} tokens."
    height = max(HEIGHT, 22 * len(runs) + 60)
    svg = draw([bars], title, _inks(runs), height)
    return Plot("lengths", title, caption, svg, tall=height > HEIGHT)


def _tokens(low: int, width: int) -> str:
    return f"{low} tokens" if width == 1 else f"{low}–{low + width - 1} tokens"
