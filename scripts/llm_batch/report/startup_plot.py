"""The plot of what each engine start cost, phase by phase."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt

from scripts.llm_batch.report import numbers
from scripts.llm_batch.report.drawing import draw
from scripts.llm_batch.report.engines import PHASES, Batch
from scripts.llm_batch.report.marks import Plot
from scripts.llm_batch.report.palette import phase_ink

MOST_STARTS = 24
"""More engine starts than this are not drawn: the figures beside the plot add them up."""

WIDTH = 400
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
                record = {"engine": label, "phase": phase, "order": order}
                records.append({**record, "seconds": known[phase], "text": text})
    if not records:
        return None
    inks = [phase_ink(number) for number in range(len(BARS))]
    colour = alt.Color(
        "phase:N",
        scale=alt.Scale(domain=list(BARS), range=[ink.sentinel for ink in inks]),
        legend=None,
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
    svg = draw([bars], title, inks, height=56 + 28 * len(labels), width=WIDTH)
    return Plot("startup", title, caption, svg)


def phases_shown(batches: Sequence[Batch]) -> list[tuple[int, str]]:
    """Return the number and the name of each phase that some engine start tells, for a legend."""
    starts = [start for batch in batches for start in batch.starts]
    known = {phase for start in starts for phase, spent in start.phases.items() if spent > 0}
    shown = known | {ANSWERING}
    return [(number, _words(phase)) for number, phase in enumerate(BARS) if phase in shown]


def _words(phase: str) -> str:
    return phase.replace("_", " ")
