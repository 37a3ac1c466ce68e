"""Take plots out of a report's page: pictures for documents that are always light.

The files in a report's folder plots/ follow the reader's dark mode and name every run in a legend,
which suits neither a page of text nor eighty runs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from scripts.llm_batch.errors import WorkflowError

_SVG = re.compile(r"<svg xmlns=.*?</svg>", re.DOTALL)
_VARIABLE = re.compile(r"(--[\w-]+):\s*([^;{}]+)[;}]")
_USE = re.compile(r"var\((--[\w-]+)\)")
_SIZE = re.compile(r'viewBox="0 0 ([\d.]+) ([\d.]+)"')


def plots_of_page(page: str, keys: Sequence[str]) -> Iterator[str]:
    """Yield the plots of these keys as SVG documents; `WorkflowError` for one that is not there."""
    colours: dict[str, str] = {}
    for name, value in _VARIABLE.findall(page):
        # Those of the light page come first.
        colours.setdefault(name, value.strip())
    for key in keys:
        figure = re.search(rf'<figure [^>]*id="plot-{re.escape(key)}".*?</figure>', page, re.DOTALL)
        found = _SVG.search(figure[0]) if figure else None
        if found is None:
            raise WorkflowError(f"report.html has no plot '{key}'; it has {_keys(page)}")
        yield _standing_alone(found[0], colours)


def _keys(page: str) -> str:
    return ", ".join(re.findall(r'<figure [^>]*id="plot-([^"]+)"', page))


def _standing_alone(svg: str, colours: Mapping[str, str]) -> str:
    """Return a plot of the page with colours, font, size and ground filled in."""
    svg = _USE.sub(lambda match: colours[match[1]], svg)
    found = _SIZE.search(svg)
    width, height = found.groups() if found else ("0", "0")
    end = svg.index(">") + 1
    head = svg[: end - 1] + f' width="{width}" height="{height}" font-family="Arial, sans-serif">'
    return f'{head}<rect width="{width}" height="{height}" fill="#ffffff"/>{svg[end:]}\n'
