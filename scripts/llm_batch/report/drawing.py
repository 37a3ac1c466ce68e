"""From an Altair chart to an SVG that lives in the page: its colours are the page's variables."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

import altair as alt
import vl_convert

from scripts.llm_batch.report.palette import CARD, GRID, INKS, MUTED, TEXT, Ink

WIDTH = 340
HEIGHT = 250
FONT = "Arial"
"""Its widths equal those of Liberation Sans, so bytes do not depend on the machine's fonts."""

_PLACES = re.compile(r' (?:d|transform|x|x2|y|y2|width|height)="[^"]*"')
_NUMBER = re.compile(r"-?\d+\.\d{3,}")
_HIDDEN_TEXT = re.compile(r'<text [^>]*opacity="0">[^<]*</text>')
_EMPTY_GROUP_PARTS = re.compile(r'<path class="(?:background|foreground)"[^>]*display="none"/>')
_FONT_FAMILY = re.compile(r' font-family="[^"]*"')
_NOISE = re.compile(r' (?:aria-roledescription|role|pointer-events|class)="[^"]*"')


class Panels(NamedTuple):
    """Small plots beside each other: the field that tells them apart, its values, and columns."""

    field: str
    titles: Sequence[str]
    columns: int


def draw(
    layers: Sequence[alt.Chart],
    title: str,
    inks: Iterable[Ink],
    height: float = HEIGHT,
    width: float = WIDTH,
    panels: Panels | None = None,
) -> str:
    """Return the layers, the lowest first, as an SVG element without fixed colours or fonts.

    `width` and `height` are those of the whole, with `panels` those of one panel inside its axes.
    """
    return _finish(_framed(layers, height, width, panels), title, inks)


def draw_rows(
    rows: Sequence[Sequence[alt.Chart]],
    title: str,
    inks: Iterable[Ink],
    height: float,
    width: float,
) -> str:
    """Return plots one above the other, each of its layers; sizes are those inside the axes."""
    charts = [
        alt.LayerChart(layer=list(layers)).properties(width=width, height=height) for layers in rows
    ]
    return _finish(alt.VConcatChart(vconcat=charts, spacing=12), title, inks)


def _finish(chart: alt.TopLevelMixin, title: str, inks: Iterable[Ink]) -> str:
    framed = (
        chart.properties(padding={"left": 2, "right": 9, "top": 9, "bottom": 2})
        .configure(background="transparent", font=FONT)
        .configure_view(stroke=None, fill=None)
        .configure_axis(
            labelColor=MUTED.sentinel,
            titleColor=MUTED.sentinel,
            gridColor=GRID.sentinel,
            domainColor=GRID.sentinel,
            tickColor=GRID.sentinel,
            labelFontSize=11,
            titleFontSize=11.5,
            titleFontWeight="normal",
            titlePadding=8,
            labelPadding=5,
            tickSize=4,
        )
        .configure_text(color=TEXT.sentinel, fontSize=11)
        .configure_legend(
            labelColor=TEXT.sentinel,
            titleColor=MUTED.sentinel,
            labelFontSize=11,
            titleFontSize=11.5,
            titleFontWeight="normal",
        )
        .configure_header(
            labelColor=TEXT.sentinel, labelFontSize=11.5, labelFontWeight="bold", title=None
        )
    )
    svg = vl_convert.vegalite_to_svg(framed.to_dict(), vl_version=_version())
    return _for_page(svg, title, [*INKS, *inks])


def _framed(
    layers: Sequence[alt.Chart], height: float, width: float, panels: Panels | None
) -> alt.LayerChart | alt.FacetChart:
    layered = alt.LayerChart(layer=list(layers)).properties(width=width, height=height)
    if panels is None:
        return layered.properties(autosize=alt.AutoSizeParams(type="fit", contains="padding"))
    facet = alt.Facet(f"{panels.field}:N", sort=list(panels.titles))
    return layered.facet(facet=facet, columns=panels.columns)


def _version() -> str:
    major, minor = alt.SCHEMA_VERSION.lstrip("v").split(".")[:2]
    return f"{major}.{minor}"


def _for_page(svg: str, title: str, inks: Iterable[Ink]) -> str:
    """Tidy Vega's SVG: colours become variables, ids the plot's own, fonts those of the page."""
    found = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)
    width, height = found.groups() if found else (str(WIDTH), str(HEIGHT))
    body = svg[svg.index(">") + 1 : svg.rindex("</svg>")]
    for pattern in (_HIDDEN_TEXT, _EMPTY_GROUP_PARTS, _FONT_FAMILY, _NOISE):
        body = pattern.sub("", body)
    # Only places are rounded: labels and descriptions are figures.
    body = _PLACES.sub(lambda match: _NUMBER.sub(_rounded, match[0]), body)
    for ink in inks:
        body = body.replace(f'"{ink.sentinel}"', f'"var({ink.variable})"')
    slug = re.sub(r"\W+", "-", title.lower())
    body = re.sub(r'(id="|url\(#)clip', rf"\1{slug}-clip", body)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'role="img" aria-label="{escape(title)}">{body}</svg>'
    )


def _rounded(match: re.Match[str]) -> str:
    return f"{float(match[0]):.2f}".rstrip("0").rstrip(".")


SOLID: Mapping[str, Any] = {"filled": True, "opacity": 1}
"""Points on whiskers."""

HALO: Mapping[str, Any] = {**SOLID, "stroke": CARD.sentinel, "strokeWidth": 1}
"""Points that stand off from the lines they lie on."""
