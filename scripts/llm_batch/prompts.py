"""Prompts: rows of a data file, and the text or the messages that each becomes.

Nothing in a data file raises: a row that cannot be read or rendered carries a typed error, which
becomes the completion of that row.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from scripts.llm_batch.config.errors import nearest
from scripts.llm_batch.config.records import Prompts
from scripts.llm_batch.data.few_shot import NO_EXAMPLES, Examples
from scripts.llm_batch.rows import Row, Rows, json_type
from scripts.llm_batch.templates import PromptTemplate, TemplateFailure, field_names, quoted

ROLES = ("system", "developer", "user", "assistant", "tool", "function", "ipython")
"""Who may speak in a chat; another word is more often a typing error than a role."""

INSTRUCTIONS = ("system", "developer")
"""Roles that stand before few-shot examples."""

MAX_TAGS = 20
MAX_TAG_TEXT = 200
"""Characters; longer texts are what prompts are made of, not what rows are sorted by."""

MAX_TOKEN_ID = 2**31 - 1

_TAG_TYPES = frozenset({str, int, float, bool})

_NO_FIELD = "\ud800"
"""No row has a field of this name: it cannot be written in UTF-8."""


class Rendered(NamedTuple):
    """A row as a prompt, or as a typed error (`prompt` is None then).

    `prompt` is what a request holds: {"text": …}, {"messages": …, "chat_template_kwargs": …} or
    {"token_ids": …}. `content` is the same to read: the text, or JSON of messages or token ids.
    `id` is the row's own id, None without one. `reference` and `tags` are JSON or None.
    """

    prompt: Mapping[str, Any] | None
    content: str
    id: str | None
    reference: str | None
    tags: str | None
    error_type: str | None = None
    error_message: str | None = None


class RenderedRows(NamedTuple):
    """What `Rendered` holds, of many rows column by column."""

    prompts: Sequence[Mapping[str, Any] | None]
    contents: Sequence[str]
    ids: Sequence[str | None]
    references: Sequence[str | None]
    tags: Sequence[str | None]
    error_types: Sequence[str | None]
    error_messages: Sequence[str | None]


def is_template(reference: str | None) -> bool:
    """Tell whether a reference is made by a template; else it is the name of a field."""
    return reference is not None and "{{" in reference


class RowError(Exception):
    """A row that cannot become a prompt: an error type of the closed list, and a message."""

    def __init__(self, kind: str, message: str, content: str = "") -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.content = content


class Renderer:
    """Turns rows into prompts under one `Prompts` section; its templates are compiled once."""

    def __init__(
        self, prompts: Prompts, examples: Examples = NO_EXAMPLES, unit: str = "line"
    ) -> None:
        self._examples = examples
        self._unit = unit
        self._ignore_settings = prompts.body_settings == "ignore"
        self._id_field = prompts.id or _NO_FIELD
        self._reference_field = prompts.reference or _NO_FIELD
        made = prompts.reference if is_template(prompts.reference) else None
        self._reference_template = PromptTemplate(made) if made is not None else None
        self._kwargs = dict(prompts.chat_template_kwargs)
        self._text = PromptTemplate(prompts.template) if prompts.template is not None else None
        self._messages = (
            None
            if prompts.messages is None
            else [(m["role"], PromptTemplate(m["content"])) for m in prompts.messages]
        )
        self._not_tags = {"prompt", "messages", self._id_field, self._reference_field}

    def render(self, row: Row) -> Rendered:
        """Return the prompt of a row, or its error; never raises for what a row holds."""
        if row.fields is None:
            columns = self.render_all(Rows([row.line], [{}], {0: row.error or ""}))
        else:
            columns = self.render_all(Rows([row.line], [row.fields], {}))
        return Rendered._make(column[0] for column in columns)

    def render_all(self, rows: Rows) -> RenderedRows:
        """Return the prompts of many rows, or their errors."""
        ids = [self._id(fields) for fields in rows.fields]
        references = [self._reference(fields) for fields in rows.fields]
        tags = [self._tags(fields) for fields in rows.fields]
        count = len(ids)
        prompts: list[Mapping[str, Any] | None] = [None] * count
        contents = [""] * count
        types: list[str | None] = [None] * count
        messages: list[str | None] = [None] * count
        for place, fields in enumerate(rows.fields):
            try:
                prompts[place], contents[place] = self._prompt(fields)
                if self._reference_template is not None:
                    references[place] = to_json(self._reference_template.render(fields))
            except RowError as error:
                contents[place], types[place] = error.content, error.kind
                messages[place] = f"{self._unit} {rows.lines[place]}: {error.message}"
            except TemplateFailure as error:
                prompts[place] = None
                types[place] = "template_error"
                messages[place] = f"{self._unit} {rows.lines[place]}: {error}"
        for place, message in rows.errors.items():
            prompts[place], contents[place] = None, ""
            types[place], messages[place] = "row_malformed", message
        return RenderedRows(prompts, contents, ids, references, tags, types, messages)

    def _prompt(self, fields: dict[str, Any]) -> tuple[dict[str, Any], str]:
        if self._text is not None:
            return _text_prompt(self._text.render(fields), self._examples.text)
        if self._messages is not None:
            messages = [
                {"role": role, "content": template.render(fields)}
                for role, template in self._messages
            ]
            if self._examples.messages:
                messages = with_examples(messages, self._examples.messages)
            return self._chat_prompt(messages)
        if "messages" in fields:
            return self._chat_prompt(_checked_messages(fields["messages"]))
        if "prompt" in fields:
            return _own_prompt(fields["prompt"])
        if "custom_id" in fields and isinstance(fields.get("body"), dict):
            return self._chat_prompt(batch_messages(fields["body"], self._ignore_settings))
        raise RowError(
            "row_malformed",
            f"neither 'prompt' nor 'messages', but {field_names(fields)}; rename a field or write "
            "a template",
        )

    def _chat_prompt(self, messages: list[dict[str, str]]) -> tuple[dict[str, Any], str]:
        content = orjson.dumps(messages).decode()
        if not any(message["content"].strip() for message in messages):
            raise RowError("prompt_empty", "every message of the prompt is empty", content)
        return {"messages": messages, "chat_template_kwargs": self._kwargs}, content

    def _id(self, fields: Mapping[str, Any]) -> str | None:
        value = fields.get(self._id_field)
        if type(value) is str:
            return value or None
        return None if value is None else to_json(value)

    def _reference(self, fields: Mapping[str, Any]) -> str | None:
        value = fields.get(self._reference_field)
        return None if value is None else to_json(value)

    def _tags(self, fields: dict[str, Any]) -> str | None:
        """Return the short fields of a row as JSON; most rows have few, and no others."""
        tags = fields.copy()
        for key in self._not_tags:
            tags.pop(key, None)
        if len(tags) <= MAX_TAGS and _TAG_TYPES.issuperset(map(type, tags.values())):
            text = to_json(tags)
            # Texts in it are no longer than the whole.
            if len(text) <= MAX_TAG_TEXT:
                return text if tags else None
        return self._chosen_tags(fields)

    def _chosen_tags(self, fields: Mapping[str, Any]) -> str | None:
        tags = {}
        for key, value in fields.items():
            kind = type(value)
            if kind is str:
                if len(value) > MAX_TAG_TEXT:
                    continue
            elif kind is not int and kind is not float and kind is not bool:
                continue
            if key not in self._not_tags:
                tags[key] = value
                if len(tags) == MAX_TAGS:
                    break
        return to_json(tags) if tags else None


class TaskRenderer(Renderer):
    """Turns rows that lm-evaluation-harness wrote into prompts: token ids, and the text to read."""

    def __init__(
        self, prompts: Prompts, examples: Examples = NO_EXAMPLES, unit: str = "line"
    ) -> None:
        super().__init__(prompts, examples, unit)
        self._not_tags |= {"text"}

    def _prompt(self, fields: dict[str, Any]) -> tuple[dict[str, Any], str]:
        return fields["prompt"], fields["text"]


def renderer_of(prompts: Prompts, examples: Examples = NO_EXAMPLES, unit: str = "line") -> Renderer:
    """Return what renders the rows of a `Prompts` section."""
    kind = Renderer if prompts.lm_eval is None else TaskRenderer
    return kind(prompts, examples, unit)


def render(prompts: Prompts, row: Row) -> Rendered:
    """Render one row; for many rows make one renderer."""
    return renderer_of(prompts).render(row)


def to_json(value: Any) -> str:
    """Return compact JSON; whole numbers may have any number of digits."""
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def with_examples(
    messages: list[dict[str, str]], examples: Sequence[dict[str, str]]
) -> list[dict[str, str]]:
    """Return messages with the examples after the instructions they begin with."""
    first = 0
    while first < len(messages) - 1 and messages[first]["role"] in INSTRUCTIONS:
        first += 1
    return [*messages[:first], *examples, *messages[first:]]


def batch_messages(body: Mapping[str, Any], ignore_settings: bool) -> list[dict[str, str]]:
    """Return the messages of a line of OpenAI's batch format; raises `RowError`.

    What samples or changes an answer there is refused, unless the config says to ignore it.
    """
    settings = sorted(key for key in body if key not in ("messages", "model"))
    if settings and not ignore_settings:
        raise RowError(
            "row_malformed",
            f"its body sets {', '.join(settings)}, and the config's sampling decides that; write "
            "body_settings: ignore in the prompts section, and the same values in samplings",
        )
    messages = body.get("messages")
    if not isinstance(messages, list):
        raise RowError("row_malformed", "its body has no list of messages; only chats can be asked")
    return _checked_messages([_plain_message(message) for message in messages])


def _plain_message(message: Any) -> Any:
    """Return a message whose content is a list of texts as one with a text."""
    content = message.get("content") if isinstance(message, dict) else None
    if not isinstance(content, list):
        return message
    texts = [part.get("text") for part in content if isinstance(part, dict)]
    if len(texts) < len(content) or not all(isinstance(text, str) for text in texts):
        return message
    return {**message, "content": "".join(str(text) for text in texts)}


def _text_prompt(text: str, before: str = "") -> tuple[dict[str, Any], str]:
    if not text or text.isspace():
        raise RowError("prompt_empty", "the prompt is empty", text)
    text = before + text if before else text
    return {"text": text}, text


def _own_prompt(value: Any) -> tuple[dict[str, Any], str]:
    if isinstance(value, str):
        return _text_prompt(value)
    if isinstance(value, list):
        if not value:
            raise RowError("prompt_empty", "the list of token ids in 'prompt' is empty", "[]")
        if all(map(_is_token, value)):
            return {"token_ids": value}, to_json(value)
    raise RowError(
        "row_malformed",
        "'prompt' is neither text nor a list of token ids (whole numbers from 0)",
    )


def _is_token(value: Any) -> bool:
    return type(value) is int and 0 <= value <= MAX_TOKEN_ID


def _checked_messages(value: Any) -> list[dict[str, str]]:
    if not isinstance(value, list):
        raise RowError(
            "row_malformed", f"'messages' is {_json_or_object(value)}, expected a list of messages"
        )
    if not value:
        raise RowError("prompt_empty", "'messages' is an empty list", "[]")
    for number, message in enumerate(value, start=1):
        problem = _message_problem(message)
        if problem:
            raise RowError("row_malformed", f"message {number} of 'messages' {problem}")
    return value


def _message_problem(message: Any) -> str | None:
    if not isinstance(message, dict):
        return f"is {_json_or_object(message)}, expected an object with 'role' and 'content'"
    for key in ("role", "content"):
        if key not in message:
            return f"has no '{key}'"
    for key, value in message.items():
        if not isinstance(value, str):
            return f"has {_json_or_object(value)} as {quoted(key)}, expected text"
    role = message["role"]
    if role in ROLES:
        return None
    close = nearest(role, ROLES)
    mean = f"did you mean '{close}'?" if close else "take one of " + ", ".join(ROLES)
    return f"has the unknown role {quoted(role)}; {mean}"


def _json_or_object(value: Any) -> str:
    return "an object" if isinstance(value, dict) else json_type(value)
