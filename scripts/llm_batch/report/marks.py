"""What the plots of runs share: the drawn plot itself, figures as text, colours and shapes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from scripts.llm_batch.report import numbers
from scripts.llm_batch.report.palette import DASHES, SHAPES, Ink, run_ink, run_shape
from scripts.llm_batch.report.records import Run, Value

PLAIN = "format(datum.value, '~g')"
"""Writes ticks as they are; an axis's own format rounds to the distance between ticks."""

DIVERSITY = ("unique_answers", "distinct-2", "distinct-1")
"""Measures of diversity within a row, the first that is known is drawn."""

Record = dict[str, Any]


@dataclass(frozen=True)
class Plot:
    """A drawn plot and the sentence under it; `by_colour`: only a legend names its runs."""

    key: str
    title: str
    caption: str
    svg: str
    tall: bool = False
    wide: bool = False
    metric: str = ""
    by_colour: bool = False


@dataclass(frozen=True)
class Figure:
    """A statistic as plots write it."""

    name: str
    share: bool

    def number(self, value: float | None) -> str:
        """Return a value as text."""
        return f"{numbers.percent(value)} %" if self.share else numbers.decimal(value)

    def interval(self, value: Value) -> str:
        """Return an estimate and its interval as text."""
        text = self.number(value.value)
        if value.low is None or value.high is None:
            return text
        return f"{text} [{self.number(value.low)}, {self.number(value.high)}]"

    def axis(self, **settings: Any) -> alt.Axis:
        """Return the axis of the statistic."""
        title = f"{self.name}, %" if self.share else self.name
        # Percent signs at every tick only cost room.
        labels = "format(datum.value * 100, '~r')" if self.share else PLAIN
        return alt.Axis(title=title, labelExpr=labels, tickCount=5, **settings)


def colour(runs: Sequence[Run]) -> alt.Color:
    """Return the colour of each run."""
    inks = [run_ink(run.index).sentinel for run in runs]
    scale = alt.Scale(domain=[run.label for run in runs], range=inks)
    return alt.Color("run:N", scale=scale, legend=None)


def shape(runs: Sequence[Run]) -> alt.Shape:
    """Return the shape of each run's points."""
    shapes = [SHAPES[run_shape(run.index)] for run in runs]
    scale = alt.Scale(domain=[run.label for run in runs], range=shapes)
    return alt.Shape("run:N", scale=scale, legend=None)


def dash(runs: Sequence[Run]) -> alt.StrokeDash:
    """Return the dashes of each run's lines."""
    dashes = [list(DASHES[run.index % len(DASHES)]) for run in runs]
    scale = alt.Scale(domain=[run.label for run in runs], range=dashes)
    return alt.StrokeDash("run:N", scale=scale, legend=None)


def run_inks(runs: Sequence[Run]) -> list[Ink]:
    """Return the inks that `runs` are drawn with."""
    return [run_ink(run.index) for run in runs]


def run_chart(records: Sequence[Record], runs: Sequence[Run]) -> alt.Chart:
    """Return a chart of records that have keys `run` and `text`, coloured by run."""
    chart = alt.Chart(alt.InlineData(values=list(records)))
    return chart.encode(color=colour(runs), description=alt.Description("text:N"))


def level_words(runs: Sequence[Run]) -> str:
    """Return the level of the intervals as text."""
    return f"{runs[0].level:.0%}".replace("%", " %")
