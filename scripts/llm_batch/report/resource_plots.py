"""Plots of engines side by side: what fills a GPU's memory, and tokens a second."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import altair as alt

from scripts.llm_batch.report import numbers
from scripts.llm_batch.report.drawing import draw
from scripts.llm_batch.report.marks import Plot
from scripts.llm_batch.report.palette import phase_ink
from scripts.llm_batch.report.resources import GIB, MEMORY, Resources, labelled, mean_rate

WIDTH = 400
BAR = 15
LEGEND_COLUMNS = 2
LEGEND = alt.Legend(title=None, orient="top", columns=LEGEND_COLUMNS, columnPadding=14)
LEGEND_LINE = 16

ENERGY = ("starting", "answering")
THROUGHPUT = {"input": "prompt_tokens", "output": "completion_tokens"}


def memory_plot(found: Sequence[Resources]) -> Plot | None:
    """Return the parts of one GPU's memory as one bar an engine; None if nothing is known."""
    records = [
        _record(label, part, order, one.first(column) / GIB, "GiB")
        for label, one in labelled(found)
        for order, (part, column) in enumerate(MEMORY.items())
        if one.first(column)
    ]
    caption = "GiB on the first GPU of each engine, from vLLM's own log; what it does not tell is "
    caption += "left out."
    return _bars("resource-memory", "Memory of a GPU", "GiB", list(MEMORY), records, caption)


def throughput_plot(found: Sequence[Resources]) -> Plot | None:
    """Return tokens a second of each engine, in and out; None if nothing is known."""
    records = [
        _record(label, part, order, value, "tokens/s")
        for label, one in labelled(found)
        for order, (part, column) in enumerate(THROUGHPUT.items())
        if (value := mean_rate(one, column)) is not None
    ]
    caption = "Of one engine, while it was answering; several engines of a batch add up."
    title = "Tokens a second"
    return _bars("resource-throughput", title, "tokens/s", list(THROUGHPUT), records, caption)


def energy_plot(found: Sequence[Resources]) -> Plot | None:
    """Return the energy of each batch, before and while it answered; None if nothing is known."""
    records = []
    for label, one in labelled(found):
        energy, starting = one.total("energy_j"), one.total("startup_energy_j")
        if energy is None or starting is None:
            continue
        for order, (part, value) in enumerate(
            zip(ENERGY, (starting, energy - starting), strict=True)
        ):
            records.append(_record(label, part, order, value / 1000, "kJ"))
    caption = "All engine starts of a batch together, by the driver's counters or samples of power."
    return _bars("resource-energy", "Energy", "kJ", list(ENERGY), records, caption)


def height_of(bars: int, words: int) -> float:
    """Return the height of a plot with so many bars, and words in its legend."""
    return 62 + 28 * bars + LEGEND_LINE * math.ceil(words / LEGEND_COLUMNS)


def _record(label: str, part: str, order: int, value: float, unit: str) -> dict[str, Any]:
    text = f"{label}: {part} {numbers.significant(value)} {unit}"
    return {"engine": label, "part": part, "order": order, "value": value, "text": text}


def _bars(
    name: str,
    title: str,
    unit: str,
    parts: Sequence[str],
    records: Sequence[dict[str, Any]],
    caption: str,
) -> Plot | None:
    if not records:
        return None
    inks = [phase_ink(number) for number in range(len(parts))]
    labels = list(dict.fromkeys(str(record["engine"]) for record in records))
    scale = alt.Scale(domain=list(parts), range=[ink.sentinel for ink in inks])
    axis = alt.Axis(title=None, labelLimit=170, grid=False, ticks=False, domain=False)
    bars = (
        alt.Chart(alt.InlineData(values=list(records)))
        .mark_bar(height=BAR)
        .encode(
            x=alt.X("value:Q", stack="zero", axis=alt.Axis(title=unit, tickCount=5)),
            y=alt.Y("engine:O", sort=labels, axis=axis),
            color=alt.Color("part:N", scale=scale, legend=LEGEND),
            order=alt.Order("order:Q"),
            description=alt.Description("text:N"),
        )
    )
    svg = draw([bars], title, inks, height_of(len(labels), len(parts)), WIDTH)
    return Plot(name, title, caption, svg)
