"""The plot of GPUs over time: utilisation, memory and power, one above the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import altair as alt

from scripts.llm_batch.report import numbers
from scripts.llm_batch.report.drawing import draw_rows
from scripts.llm_batch.report.marks import Plot, Record
from scripts.llm_batch.report.palette import DASHES, LEVELS, MUTED, level_ink
from scripts.llm_batch.report.resources import GIB
from scripts.llm_batch.report.timeline import Timeline

MOST_GPUS = LEVELS
WIDTH, ROW_HEIGHT = 560, 86


class _Row(NamedTuple):
    measure: str
    title: str
    unit: str
    divisor: float


ROWS = (
    _Row("utilization_percent", "utilisation, %", "%", 1),
    _Row("memory_bytes", "memory, GiB", "GiB", GIB),
    _Row("power_w", "power, W", "W", 1),
)


def timeline_plots(timelines: Sequence[Timeline]) -> list[Plot]:
    """Return a plot of each batch that has samples."""
    many = len(timelines) > 1
    return [_plot(timeline, many) for timeline in timelines]


def _plot(timeline: Timeline, many: bool) -> Plot:
    gpus = [f"GPU {number}" for number in range(len(timeline.tracks))][:MOST_GPUS]
    inks = [level_ink(number) for number in range(len(gpus))]
    colours = alt.Scale(domain=gpus, range=[ink.sentinel for ink in inks])
    dashes = alt.Scale(domain=gpus, range=[list(DASHES[n % len(DASHES)]) for n in range(len(gpus))])
    legend = alt.Legend(title=None, orient="bottom", columns=4) if len(gpus) > 1 else None
    colour = alt.Color("gpu:N", scale=colours, sort=gpus, legend=legend)
    dash = alt.StrokeDash("gpu:N", scale=dashes, sort=gpus, legend=legend)
    known = [row for row in ROWS if timeline.knows(row.measure)]
    charts = [_layers(timeline, row, gpus, colour, dash, row is known[-1]) for row in known]
    title = "GPUs over time" + (f" ({timeline.batch.name})" if many else "")
    svg = draw_rows(charts, title, inks, ROW_HEIGHT, WIDTH)
    key = "timeline" + (f"-{timeline.batch.name}" if many else "")
    return Plot(key, title, _caption(timeline, gpus), svg)


def _caption(timeline: Timeline, gpus: Sequence[str]) -> str:
    words = [f"Samples of the driver, means of {numbers.seconds(timeline.step_s)}."]
    if timeline.ready:
        words.append("Dotted: an engine begins to answer.")
    if len(gpus) < len(timeline.tracks):
        words.append(f"The first {len(gpus)} of {len(timeline.tracks)} GPUs.")
    return " ".join(words)


def _layers(
    timeline: Timeline,
    row: _Row,
    gpus: Sequence[str],
    colour: alt.Color,
    dash: alt.StrokeDash,
    last: bool,
) -> list[alt.Chart]:
    title = "seconds since the first sample" if last else None
    axis = alt.Axis(title=title, grid=False, labels=last, ticks=last, tickCount=8)
    x = alt.X("seconds:Q", scale=alt.Scale(nice=False, zero=True), axis=axis)
    scale = alt.Scale(domain=[0, 100]) if row.unit == "%" else alt.Scale(domainMin=0)
    y = alt.Y("value:Q", scale=scale, axis=alt.Axis(title=row.title, tickCount=3))
    lines = (
        alt.Chart(alt.InlineData(values=_records(timeline, row, gpus)))
        .mark_line(strokeWidth=1.5)
        .encode(
            x=x,
            y=y,
            color=colour,
            strokeDash=dash,
            detail=alt.Detail("stretch:N"),
            description=alt.Description("gpu:N"),
        )
    )
    ready = [{"seconds": round(seconds, 2)} for seconds in timeline.ready]
    rules = (
        alt.Chart(alt.InlineData(values=ready))
        .mark_rule(strokeWidth=1, strokeDash=[2, 3], color=MUTED.sentinel)
        .encode(x=x)
    )
    return [lines, *([rules] if ready else [])]


def _records(timeline: Timeline, row: _Row, gpus: Sequence[str]) -> list[Record]:
    records: list[dict[str, Any]] = []
    for gpu, track in zip(gpus, timeline.tracks, strict=False):
        for number, stretch in enumerate(track.stretches):
            for step in stretch:
                value = getattr(step, row.measure)
                if value is not None:
                    record = {"gpu": gpu, "stretch": number, "seconds": step.seconds}
                    records.append({**record, "value": round(value / row.divisor, 3)})
    return records
