"""Templates that only name fields are filled without Jinja, and nobody can tell."""

from __future__ import annotations

from typing import Any

import jinja2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.llm_batch.templates import PromptTemplate, TemplateFailure

NAMES = ("a", "b", "question", "self", "range", "loop", "true", "_x")
PIECES = (
    *(f"{{{{ {name} }}}}" for name in NAMES),
    *("{{a}}", "{{- b -}}", "{{ a|upper }}", "{{ a.b }}", "{{ a ~ b }}", "{{ 'text' }}"),
    *("{# note #}", "{% raw %}{{ a }}{% endraw %}", "{% if a %}x{% endif %}", "{% set b = 1 %}"),
    *("{", "}", "{}", "{0}", "{a!r}", "%s", "\n", " \n ", "Q: ", "\r\n", "é\u2028\x00"),
)
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=10**30),
    st.floats(allow_nan=False),
    st.text(),
    st.sampled_from(["{{ a }}", "{0}", "{", "%s", "<&'\">", "\ud800"]),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.sampled_from(["b", "items"]), st.text(), max_size=2),
)
ROWS = st.dictionaries(st.sampled_from(NAMES), VALUES)


def outcome(render: Any, fields: dict[str, Any]) -> str:
    """Return the text, or the failure's message."""
    try:
        return f"text: {render(fields)}"
    except TemplateFailure as failure:
        return f"failure: {failure}"


@given(pieces=st.lists(st.sampled_from(PIECES), max_size=6), fields=ROWS)
def test_every_template_gives_what_jinja_gives(pieces: list[str], fields: dict[str, Any]) -> None:
    try:
        template = PromptTemplate("".join(pieces))
    except jinja2.TemplateSyntaxError:
        return
    expected = outcome(template.render_with_jinja, fields)
    if "\ud800" in expected:
        expected = "failure: the template writes half of a surrogate pair"
    assert outcome(template.render, fields) == expected


@pytest.mark.parametrize(
    ("template", "fields"),
    [
        ("{{ a }}+{{b}}=", {"a": 1, "b": 2.5}),
        ("{}{0}% {{- a -}} }\n", {"a": "{b}"}),
        ("{# note #}{% raw %}{{ a }}{% endraw %}", {}),
        ("", {}),
    ],
)
def test_naming_fields_needs_no_jinja(
    template: str, fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = PromptTemplate(template)
    expected = compiled.render_with_jinja(fields)
    monkeypatch.delattr(PromptTemplate, "render_with_jinja")
    assert compiled.render(fields) == expected
