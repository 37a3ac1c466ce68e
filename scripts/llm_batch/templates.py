"""Prompt templates: Jinja over a row's fields, sandboxed, and the same on every machine and day."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jinja2
from jinja2 import nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from scripts.llm_batch.config.errors import nearest

_UNDEFINED = re.compile(r"^'(?P<name>.+)' is undefined$", re.DOTALL)
_NEEDS_FILES = (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)


MAX_NAMES = 20
MAX_NAME_TEXT = 60


class TemplateFailure(Exception):
    """A template could not be filled with the fields of a row."""


class TemplateProblem(NamedTuple):
    """Why a template is not valid, and the 1-based line within it."""

    message: str
    line: int


class _Environment(ImmutableSandboxedEnvironment):
    """Jinja for data: `row.items` is the field "items", not Python's method."""

    def getattr(self, obj: Any, attribute: str) -> Any:
        if isinstance(obj, Mapping) and attribute in obj:
            return obj[attribute]
        return super().getattr(obj, attribute)


def _printable(value: Any) -> Any:
    """Refuse what would print as None or as an address in memory."""
    if value is None:
        raise TemplateFailure("the template prints a field that is null; use {{ field or '' }}")
    if callable(value) and not isinstance(value, jinja2.Undefined):
        raise TemplateFailure("the template prints a function; are the parentheses missing?")
    return value


def _environment() -> jinja2.Environment:
    environment = _Environment(
        undefined=jinja2.StrictUndefined,
        autoescape=False,
        keep_trailing_newline=True,
        finalize=_printable,
    )
    # Both are random: the same config would ask another question each time.
    del environment.globals["lipsum"]
    del environment.filters["random"]
    return environment


_ENVIRONMENT = _environment()


def template_problem(text: str) -> TemplateProblem | None:
    """Return what is wrong with a template before any row is seen, None if nothing is."""
    try:
        tree = _ENVIRONMENT.parse(text)
        for node in tree.find_all(_NEEDS_FILES):
            what = type(node).__name__.lower()
            message = f"a template cannot {what} files; write everything into this one"
            return TemplateProblem(message, node.lineno)
        # Code generation, which knows the filters, without compiling the code.
        _ENVIRONMENT.compile(text, raw=True)
    except jinja2.TemplateSyntaxError as error:
        message = f"not a Jinja template: {error.message or 'syntax error'}"
        return TemplateProblem(f"{_one_line(message)} (line {error.lineno} of it)", error.lineno)
    except (RecursionError, MemoryError, ValueError, OverflowError) as error:
        return TemplateProblem(f"not a Jinja template: {_one_line(str(error))}", 1)
    return None


def filter_problem(expression: str) -> str | None:
    """Return what is wrong with a filter before any row is seen, None if nothing is."""
    try:
        _ENVIRONMENT.compile_expression(expression)
    except jinja2.TemplateSyntaxError as error:
        return f"not a Jinja expression: {_one_line(error.message or 'syntax error')}"
    except (RecursionError, MemoryError, ValueError, OverflowError) as error:
        return f"not a Jinja expression: {_one_line(str(error))}"
    return None


class RowFilter:
    """A compiled filter: a Jinja expression over a row's fields, sandboxed like a template."""

    def __init__(self, expression: str) -> None:
        """Compile `expression`; raises `jinja2.TemplateSyntaxError`, see `filter_problem`."""
        self._expression = _ENVIRONMENT.compile_expression(expression, undefined_to_none=False)

    def keeps(self, fields: dict[str, Any]) -> bool:
        """Tell whether the expression is true; raise `TemplateFailure` for what a row has not."""
        try:
            return bool(self._expression(**{str(key): value for key, value in fields.items()}))
        except jinja2.UndefinedError as error:
            raise TemplateFailure(_undefined(str(error), fields)) from None
        except Exception as error:
            reason = _one_line(str(error)) or "no reason given"
            raise TemplateFailure(f"{type(error).__name__}: {reason}") from None


Filler = Callable[[Mapping[str, Any]], str | None]
"""Returns what Jinja would, several times as fast; None where Jinja is to decide."""

_PRINTED_AS_THEY_ARE = frozenset({str, int, float, bool})


def _filler(tree: nodes.Template) -> Filler | None:
    """Return what fills a template of text and field names, None for one that does more."""
    texts, names = [""], []
    for output in tree.body:
        if not isinstance(output, nodes.Output):
            return None
        for node in output.nodes:
            if isinstance(node, nodes.TemplateData):
                texts[-1] += node.data
            elif isinstance(node, nodes.Name) and node.name not in _NOT_FIELDS:
                names.append(node.name)
                texts.append("")
            else:
                return None
    fill = _fill_blanks(texts, names)
    return _fill_blank(texts[0], texts[1], names[0], fill) if len(names) == 1 else fill


def _fill_blanks(texts: list[str], names: list[str]) -> Filler:
    pattern = "{}".join(text.replace("{", "{{").replace("}", "}}") for text in texts)

    def fill(fields: Mapping[str, Any]) -> str | None:
        values = []
        for name in names:
            value = fields.get(name)
            if type(value) not in _PRINTED_AS_THEY_ARE:
                return None
            values.append(value)
        try:
            return pattern.format(*values)
        except ValueError:  # A number of more digits than Python prints.
            return None

    return fill


def _fill_blank(before: str, after: str, name: str, otherwise: Filler) -> Filler:
    """Return what fills a single blank, which most often is a text."""

    def fill(fields: Mapping[str, Any]) -> str | None:
        value = fields.get(name)
        return f"{before}{value}{after}" if type(value) is str else otherwise(fields)

    return fill


_NOT_FIELDS = frozenset({"self", *_ENVIRONMENT.globals})


class PromptTemplate:
    """A compiled template."""

    def __init__(self, text: str) -> None:
        """Compile `text`; raises `jinja2.TemplateSyntaxError`, see `template_problem`."""
        self._template = _ENVIRONMENT.from_string(text)
        tree = _ENVIRONMENT.parse(text)
        self._fill = _filler(tree)
        used = {name.name for name in tree.find_all(nodes.Name)}
        # Without Jinja's own names (range, …) the fields need not be copied: twice as fast.
        self._shared = used.isdisjoint(_ENVIRONMENT.globals)
        self._render: Callable[..., Any] = self._template.root_render_func

    def render(self, fields: dict[str, Any]) -> str:
        """Return the text for the fields of a row; raise `TemplateFailure` with the cure."""
        text = self._fill(fields) if self._fill is not None else None
        if text is None:
            text = self.render_with_jinja(fields)
        if not text.isascii():
            _check_unicode(text)
        return text

    def render_with_jinja(self, fields: dict[str, Any]) -> str:
        """Return the text as Jinja alone makes it; raise `TemplateFailure` like `render`."""
        try:
            # Template.render without the rewriting of traces.
            return "".join(self._render(self._template.new_context(fields, shared=self._shared)))
        except TemplateFailure:
            raise
        except jinja2.UndefinedError as error:
            raise TemplateFailure(_undefined(str(error), fields)) from None
        except Exception as error:
            reason = _one_line(str(error)) or "no reason given"
            raise TemplateFailure(
                f"the template fails on this row ({type(error).__name__}: {reason})"
            ) from None


def _undefined(message: str, fields: Mapping[str, Any]) -> str:
    match = _UNDEFINED.match(message)
    if match is None:
        return f"the template asks for something the row has not: {_one_line(message)}"
    name = match["name"]
    close = nearest(name, fields)
    cure = f"did you mean {quoted(close)}?" if close else "the template names it;"
    return f"the row has no field '{name}'; {cure} ({field_names(fields)})"


def field_names(fields: Mapping[str, Any]) -> str:
    """Return the names of a row's fields, the first twenty, on one line."""
    names = [quoted(name) for name in list(fields)[:MAX_NAMES]]
    more = f", and {len(fields) - MAX_NAMES} more" if len(fields) > MAX_NAMES else ""
    return (", ".join(names) or "no field") + more


def quoted(name: str) -> str:
    """Return a field's name in quotes, without line breaks and not endless."""
    return repr(name[:MAX_NAME_TEXT])


def _check_unicode(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise TemplateFailure("the template writes half of a surrogate pair") from None


def _one_line(text: str) -> str:
    return " ".join(text.split())[:300]
