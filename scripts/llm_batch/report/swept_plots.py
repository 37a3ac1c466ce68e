"""Figures against swept parameters: one plot a parameter and figure, with intervals.

A second parameter has colours, shapes and dashes of its own; what varies beyond that has panels.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import altair as alt

from scripts.llm_batch.report.drawing import SOLID, Panels, draw
from scripts.llm_batch.report.figures import OFF
from scripts.llm_batch.report.marks import DIVERSITY, Figure, Plot, Record, level_words
from scripts.llm_batch.report.palette import DASHES, LEVELS, SHAPES, Ink, level_ink
from scripts.llm_batch.report.records import Experiment
from scripts.llm_batch.report.swept import Series, Sweep, find_sweeps, value_text

MOST_IN_A_PANEL = 4
"""So many series share one panel, whatever they differ in."""

MOST_PANELS = 9
WIDE_SPAN = 50
"""Values this far apart, as a ratio, have a logarithmic axis."""

WIDTH, HEIGHT = 280, 230
PANEL_WIDTH, PANEL_HEIGHT = 250, 190
LINE_OF_PANELS = 3
LEGEND_CHARACTERS = 30
"""Room of a line of the legend under one panel, signs of the colours left out."""

JOINED = (
    "A line joins runs that differ in nothing else, or only in the seed; a greedy run, at "
    "temperature 0, belongs to each line."
)


def swept_plots(experiment: Experiment) -> list[Plot]:
    """Return the plots of every swept parameter: each metric, pass@k, diversity, length."""
    return [
        plot
        for sweep in find_sweeps(experiment)
        for measure in _measures(experiment)
        if (plot := _plot(sweep, measure)) is not None
    ]


@dataclass(frozen=True)
class _Measure:
    """A figure of runs that is drawn against a parameter."""

    key: str
    metric: str | None
    statistic: str
    k: int | None
    figure: Figure


def _measures(experiment: Experiment) -> Iterator[_Measure]:
    runs = experiment.runs
    for metric in experiment.metrics:
        known = any(run.find(metric, "accuracy") for run in runs)
        main = "accuracy" if known else "mean_score"
        name = main.replace("_", " ")
        yield _Measure(f"{metric}-{main}", metric, main, None, Figure(name, known))
        curves = [run.curve(metric, "pass@k") for run in runs]
        most = max((value.k or 0 for curve in curves for value in curve), default=0)
        if most > 1:
            figure = Figure(f"pass@{most}", share=True)
            yield _Measure(f"{metric}-pass-at-k", metric, "pass@k", most, figure)
    diversity = next((m for m in DIVERSITY if any(run.find(None, m) for run in runs)), None)
    if diversity:
        figure = Figure(diversity.replace("_", " "), share=False)
        yield _Measure(diversity, None, diversity, None, figure)
    length = Figure("tokens in a completion", share=False)
    yield _Measure("length", None, "mean_completion_tokens", None, length)


@dataclass(frozen=True)
class _Layout:
    """Which colour and which panel a series has."""

    sweep: Sweep

    @cached_property
    def coloured(self) -> list[str]:
        """The settings that a colour stands for."""
        varying = self.sweep.varying
        if len(self.sweep.series) <= MOST_IN_A_PANEL or len(varying) <= 1:
            return varying
        sizes = {name: len({one.fixed[name] for one in self.sweep.series}) for name in varying}
        few = [name for name in varying if sizes[name] <= LEVELS] or varying
        return [max(few, key=lambda name: (self._is_number(name), sizes[name]))]

    def _is_number(self, name: str) -> bool:
        return not any(isinstance(one.fixed[name], str) for one in self.sweep.series)

    def colour(self, series: Series) -> str:
        """Return the words that the legend has for a series."""
        return self._words(series, self.coloured)

    def panel(self, series: Series) -> str:
        """Return the title of the panel of a series; empty where there is one panel."""
        rest = [name for name in self.sweep.varying if name not in self.coloured]
        return self._words(series, rest)

    def _words(self, series: Series, names: Sequence[str]) -> str:
        texts = {name: value_text(name, series.fixed[name]) for name in names}
        if len(names) == 1 and names == self.coloured:
            return texts[names[0]]
        words = {
            name: text if isinstance(series.fixed[name], str) else f"{name} {text}"
            for name, text in texts.items()
        }
        told = [words[name] for name in names if texts[name] != OFF] if len(names) > 1 else []
        return ", ".join(told) or ", ".join(words.values())

    @cached_property
    def colours(self) -> list[str]:
        """The words of the legend, numbers in rising order."""
        order = sorted(self.sweep.series, key=lambda one: self._sizes(one, self.coloured))
        return list(dict.fromkeys(self.colour(one) for one in order))

    @cached_property
    def panels(self) -> list[str]:
        """The titles of the panels, numbers in rising order."""
        rest = [name for name in self.sweep.varying if name not in self.coloured]
        order = sorted(self.sweep.series, key=lambda one: self._sizes(one, rest))
        return list(dict.fromkeys(self.panel(one) for one in order))

    def _sizes(self, series: Series, names: Sequence[str]) -> list[float]:
        return [float(value) for n in names if not isinstance(value := series.fixed[n], str)]

    @property
    def title(self) -> str | None:
        """The heading of the legend: the one setting that colours stand for."""
        return self.coloured[0] if len(self.coloured) == 1 else None


class _Axis:
    """Places of a parameter's values: by size, by its logarithm, or in steps where one is off."""

    def __init__(self, sweep: Sweep) -> None:
        self.values, self.parameter = sweep.values, sweep.parameter
        low, high = min(self.values), max(self.values)
        self.steps = math.isinf(high)
        self.logarithmic = not self.steps and low > 0 and high / low >= WIDE_SPAN
        self.places = [self.place(value) for value in self.values]

    def place(self, value: float) -> float:
        """Return where a value stands."""
        if self.steps:
            return float(self.values.index(value))
        return round(math.log10(value), 9) if self.logarithmic else value

    @property
    def width(self) -> float:
        """The distance of the outermost places."""
        return self.places[-1] - self.places[0]

    def encoding(self) -> alt.X:
        """Return the axis: a tick at each value."""
        places = json.dumps(self.places)
        labels = json.dumps([value_text(self.parameter, value) for value in self.values])
        axis = alt.Axis(
            title=self.parameter + (" (logarithmic)" if self.logarithmic else ""),
            values=self.places,
            labelExpr=f"{labels}[indexof({places}, datum.value)]",
            labelOverlap=True,
            grid=False,
        )
        return alt.X("place:Q", scale=alt.Scale(nice=False, zero=False, padding=16), axis=axis)


def _plot(sweep: Sweep, measure: _Measure) -> Plot | None:
    layout = _Layout(sweep)
    panels = layout.panels[:MOST_PANELS]
    records = list(_records(sweep, measure, layout))
    places = {(record["colour"], record["panel"], record["value_of"]) for record in records}
    if len({value for _, _, value in places}) < 2:
        return None
    records = [record for record in records if record["panel"] in panels]
    figure, title = measure.figure, f"{measure.figure.name} against {sweep.parameter}"
    title = title[0].upper() + title[1:] + (f" ({measure.metric})" if measure.metric else "")
    inks = [level_ink(number) for number in _spread(len(layout.colours))]
    few = Panels("panel", panels, LINE_OF_PANELS) if len(panels) > 1 else None
    svg = draw(
        _layers(records, layout, _Axis(sweep), figure, inks),
        title,
        inks,
        *((PANEL_HEIGHT, PANEL_WIDTH, few) if few else (HEIGHT, WIDTH)),
    )
    key = re.sub(r"[^\w+-]+", "-", f"swept-{sweep.parameter}-{measure.key}")
    plot = Plot(key, title, _caption(layout, records), svg)
    return replace(plot, metric=measure.metric or "", wide=len(panels) > 1)


def _caption(layout: _Layout, records: Sequence[Record]) -> str:
    words = []
    if any(record["low"] != record["high"] for record in records):
        words.append(f"{level_words([layout.sweep.series[0].points[0].run])} intervals.")
    if len(layout.panels) > MOST_PANELS:
        words.append(f"The first {MOST_PANELS} of {len(layout.panels)} panels.")
    return " ".join(words)


def _records(sweep: Sweep, measure: _Measure, layout: _Layout) -> Iterator[Record]:
    axis = _Axis(sweep)
    apart = axis.width / 45
    for series in sweep.series:
        colour = layout.colour(series)
        beside = (layout.colours.index(colour) - (len(layout.colours) - 1) / 2) * apart
        for point in series.points:
            found = point.run.find(measure.metric, measure.statistic, measure.k)
            if found is None or found.value is None:
                continue
            at = f"{sweep.parameter} {value_text(sweep.parameter, point.value)}"
            estimate = measure.figure.interval(found)
            yield {
                "colour": colour,
                "panel": layout.panel(series),
                "value_of": point.value if math.isfinite(point.value) else None,
                "place": axis.place(point.value) + beside,
                "value": found.value,
                "low": found.value if found.low is None else found.low,
                "high": found.value if found.high is None else found.high,
                "text": f"{point.run.label}: {at}, {measure.figure.name} {estimate}",
            }


def _layers(
    records: Sequence[Record], layout: _Layout, axis: _Axis, figure: Figure, inks: Sequence[Ink]
) -> list[alt.Chart]:
    several = len(layout.colours) > 1
    room = LEGEND_CHARACTERS * min(len(layout.panels), LINE_OF_PANELS)
    longest = max(len(words) + 4 for words in layout.colours)
    legend = (
        alt.Legend(
            title=layout.title,
            orient="bottom",
            columns=max(1, room // longest),
            symbolOpacity=1,
            symbolStrokeWidth=0,
        )
        if several
        else None
    )
    domain = layout.colours
    numbers = range(len(domain))
    colours = alt.Scale(domain=domain, range=[ink.sentinel for ink in inks])
    shapes = alt.Scale(domain=domain, range=[SHAPES[n % len(SHAPES)] for n in numbers])
    dashes = alt.Scale(domain=domain, range=[list(DASHES[n % len(DASHES)]) for n in numbers])
    colour = alt.Color("colour:N", scale=colours, sort=domain, legend=legend)
    base = alt.Chart(alt.InlineData(values=list(records))).encode(x=axis.encoding(), color=colour)
    y = alt.Y("low:Q", scale=alt.Scale(zero=False), axis=figure.axis())
    told = base.encode(description=alt.Description("text:N"))
    lines = base.mark_line(strokeWidth=1.5, opacity=0.75).encode(
        y=alt.Y("mean(value):Q", scale=alt.Scale(zero=False), axis=figure.axis()),
        strokeDash=alt.StrokeDash("colour:N", scale=dashes, legend=None),
        description=alt.value(""),
    )
    whiskers = told.mark_rule(strokeWidth=2).encode(y=y, y2="high:Q")
    points = told.mark_point(size=70, **SOLID).encode(
        y="value:Q",
        shape=alt.Shape("colour:N", scale=shapes, sort=domain, legend=legend),
    )
    return [lines, whiskers, points]


def _spread(count: int) -> list[int]:
    """Return which of the inks `count` values get: the ends first, so that neighbours differ."""
    if count >= LEVELS:
        return [number % LEVELS for number in range(count)]
    return [round(number * (LEVELS - 2) / max(1, count - 1)) for number in range(count)]
