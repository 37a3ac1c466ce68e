"""The plot of what each engine start cost, phase by phase."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt

from scripts.llm_batch.report import numbers
from scripts.llm_batch.report.drawing import draw
from scripts.llm_batch.report.engines import PHASES, Batch
from scripts.llm_batch.report.marks import Plot
from scripts.llm_batch.report.palette import phase_ink
from scripts.llm_batch.report.resource_plots import LEGEND, WIDTH, height_of

MOST_STARTS = 24
"""More engine starts than this are not drawn: the figures beside the plot add them up."""

ANSWERING = "answering"
BARS = (*PHASES, ANSWERING)


def startup_plot(batches: Sequence[Batch]) -> Plot | None:
    """Return the seconds of every engine start as one bar each; None if nothing is known."""
    starts = [
        (f"{batch.engine}, {start.label}" if len(batches) > 1 else start.label, start)
        for batch in batches
        for start in batch.starts
    ]
    records = []
    for label, start in starts[:MOST_STARTS]:
        known = {**start.phases, ANSWERING: start.generate_s}
        for order, phase in enumerate(BARS):
            if known.get(phase):
                text = f"{label}: {_words(phase)} {numbers.seconds(known[phase])}"
                record = {"engine": label, "phase": _words(phase), "order": order}
                records.append({**record, "seconds": known[phase], "text": text})
    if not records:
        return None
    told = {record["phase"] for record in records}
    shown = [_words(phase) for phase in BARS if _words(phase) in told]
    inks = [phase_ink(number) for number, phase in enumerate(BARS) if _words(phase) in told]
    colour = alt.Color(
        "phase:N",
        scale=alt.Scale(domain=shown, range=[ink.sentinel for ink in inks]),
        legend=LEGEND,
    )
    axis = alt.Axis(title=None, labelLimit=170, grid=False, ticks=False, domain=False)
    labels = list(dict.fromkeys(str(record["engine"]) for record in records))
    bars = (
        alt.Chart(alt.InlineData(values=records))
        .mark_bar(height=15)
        .encode(
            x=alt.X("seconds:Q", stack="zero", axis=alt.Axis(title="seconds", tickCount=5)),
            y=alt.Y("engine:O", sort=labels, axis=axis),
            color=colour,
            order=alt.Order("order:Q"),
            description=alt.Description("text:N"),
        )
    )
    title = "Time of each engine start"
    caption = "Start-up by phase, then answering."
    if len(starts) > MOST_STARTS:
        caption += f" The first {MOST_STARTS} of {len(starts)} engine starts."
    svg = draw([bars], title, inks, height_of(len(labels), len(shown)), WIDTH)
    return Plot("startup", title, caption, svg)


def _words(phase: str) -> str:
    return phase.replace("_", " ")
