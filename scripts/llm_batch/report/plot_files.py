"""The plots of a report as files: the page's drawings with the colours that the page gives them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from scripts.llm_batch.addresses import write_text_atomic
from scripts.llm_batch.report.marks import Plot
from scripts.llm_batch.report.palette import SHAPE_PATHS, css_variables, run_shape
from scripts.llm_batch.report.records import Run

STYLE = Path(__file__).parent / "templates" / "report.css"
LINE = 18
"""Height of a line of the legend."""

_BOX = re.compile(r'viewBox="0 0 ([\d.]+) ([\d.]+)"')
_COLOURS = re.compile(r"(?:@media screen[^{]*\{)?:root\{.*?\n\}+", re.DOTALL)


def write_plots(folder: Path, plots: Iterable[Plot], runs: Sequence[Run]) -> list[Path]:
    """Write each plot as `<key>.svg`, for light and dark; return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    colours = "".join(_COLOURS.findall(STYLE.read_text("utf-8"))) + css_variables(len(runs))
    written = []
    for plot in plots:
        path = folder / f"{plot.key}.svg"
        write_text_atomic(path, _standalone(plot, colours, runs))
        written.append(path)
    return written


def _standalone(plot: Plot, colours: str, runs: Sequence[Run]) -> str:
    """Return a plot as an SVG file: with its size, title, colours and, if it needs one, legend."""
    found = _BOX.search(plot.svg)
    if found is None:
        raise ValueError(f"{plot.key}: a plot without a size")
    shown = [run for run in runs if f"var(--run-{run.index})" in plot.svg] if plot.by_colour else []
    width, height = found.groups()
    total = float(height) + LINE * len(shown)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {total:g}" width="{width}" '
        f'height="{total:g}" role="img" aria-label="{escape(plot.title)}">'
        f"<title>{escape(plot.title)}</title><desc>{escape(plot.caption)}</desc>"
        f"<style>{colours}svg{{font-family:system-ui,sans-serif;background:var(--card)}}</style>"
    )
    drawing = plot.svg.partition(">")[2].removesuffix("</svg>")
    legend = "".join(
        f'<g transform="translate(8,{float(height) + LINE * place:g})">'
        f'<path fill="var(--run-{run.index})" d="{SHAPE_PATHS[run_shape(run.index)]}"/>'
        f'<text x="22" y="12" font-size="11" fill="var(--text)">{escape(run.label)}</text></g>'
        for place, run in enumerate(shown)
    )
    return f"{head}{drawing}{legend}</svg>\n"
