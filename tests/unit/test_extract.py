"""Plots leave a report's page as pictures with its light colours."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from scripts.llm_batch.errors import WorkflowError
from scripts.llm_batch.report.extract import plots_of_page

PAGE = """<style>:root{ --ink:#123456; --card:#ffffff}
@media (prefers-color-scheme:dark){:root{--ink:#abcdef}}</style>
<figure class="plot" id="plot-one"><svg class="swatch"></svg>
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 30 20"><path fill="var(--ink)"/></svg></figure>
<figure class="plot" id="plot-two"></figure>"""


def test_a_plot_stands_alone_in_the_light_colours() -> None:
    (svg,) = plots_of_page(PAGE, ["one"])
    root = ElementTree.fromstring(svg)
    assert (root.get("width"), root.get("height")) == ("30", "20")
    assert [child.get("fill") for child in root] == ["#ffffff", "#123456"]


@pytest.mark.parametrize("key", ["two", "three"])
def test_a_plot_that_is_not_there_is_named_with_those_that_are(key: str) -> None:
    with pytest.raises(WorkflowError, match=rf"no plot '{key}'; it has one, two"):
        list(plots_of_page(PAGE, [key]))
