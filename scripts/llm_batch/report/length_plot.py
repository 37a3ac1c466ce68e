"""The histograms of completion lengths."""

from __future__ import annotations

import json
from collections.abc import Sequence

import altair as alt

from scripts.llm_batch.report import numbers
from scripts.llm_batch.report.completions import Length
from scripts.llm_batch.report.drawing import HEIGHT, draw
from scripts.llm_batch.report.marks import Plot, run_chart, run_inks
from scripts.llm_batch.report.records import Experiment


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
    bars = run_chart(records, runs).mark_rect().encode(x=x, x2="to:Q", y=y, y2="top:Q")
    title = "Length of completions"
    caption = "Share of each run's completions, errors left out; all on one scale."
    if width > 1:
        caption += f" Bins of {width} tokens."
    height = max(HEIGHT, 22 * len(runs) + 60)
    svg = draw([bars], title, run_inks(runs), height)
    return Plot("lengths", title, caption, svg, tall=height > HEIGHT)


def _tokens(low: int, width: int) -> str:
    return f"{low} tokens" if width == 1 else f"{low}–{low + width - 1} tokens"
