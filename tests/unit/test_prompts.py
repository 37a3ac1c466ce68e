"""Rows become prompts; whatever a data file holds becomes a prompt or a typed error."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scripts.llm_batch.config.records import Prompts
from scripts.llm_batch.errors import WorkflowError
from scripts.llm_batch.prompts import Rendered, Renderer, render
from scripts.llm_batch.rows import Row, parse_block, read_blocks, read_rows

ERROR_TYPES = {"row_malformed", "template_error", "prompt_empty"}


def prompts(**changes: Any) -> Prompts:
    standard: dict[str, Any] = {
        "name": "p",
        "path": "p.jsonl",
        "template": None,
        "messages": None,
        "chat_template_kwargs": {},
        "reference": None,
        "id": None,
        "limit": None,
        "on_too_long": "error",
    }
    return Prompts(**{**standard, **changes})


def user(content: str) -> tuple[dict[str, str], ...]:
    return ({"role": "user", "content": content},)


def rows_of(tmp_path: Path, data: bytes) -> list[Row]:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(data)
    return list(read_rows(path))


class TestReading:
    """Lines of a file as rows."""

    def test_rows_have_the_numbers_of_their_lines(self, tmp_path: Path) -> None:
        rows = rows_of(tmp_path, b'{"a": 1}\n\n  \n{"a": 2}')
        assert rows == [Row(1, {"a": 1}), Row(4, {"a": 2})]

    def test_marks_and_carriage_returns_are_ignored(self, tmp_path: Path) -> None:
        rows = rows_of(tmp_path, b'\xef\xbb\xbf{"a": 1}\r\n\r\n{"a": 2}\r\n')
        assert [row.fields for row in rows] == [{"a": 1}, {"a": 2}]

    def test_an_empty_file_has_no_rows(self, tmp_path: Path) -> None:
        assert rows_of(tmp_path, b"") == []
        assert rows_of(tmp_path, b"\xef\xbb\xbf\n\n") == []

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            (b'{"a": 1', "line 2, column 9: not JSON: unexpected end of data"),
            (b'{"a": 1},', "line 2, column 9: not JSON: "),
            (b"hello", "line 2"),
            (b'{"a": NaN}', "line 2, column 7: not JSON: "),
            (b'{"a": 12345678901234567890, "b": Infinity}', "line 2, column 34: not JSON: "),
            (b'{"a": "\\ud800"}', "line 2, column"),
            (b'{"a": "\xff"}', "line 2: not UTF-8; save the file in that encoding"),
            ("{}".encode("utf-16"), "line 2: not UTF-8; save the file in that encoding"),
            (b"[1, 2]", "line 2: expected a JSON object {…}, found a list"),
            (b'"a"', "line 2: expected a JSON object {…}, found a text"),
            (b"7", "line 2: expected a JSON object {…}, found a number"),
            (b"12345678901234567890123", "line 2: expected a JSON object {…}, found a number"),
            (b"true", "line 2: expected a JSON object {…}, found true or false"),
            (b"null", "line 2: expected a JSON object {…}, found null"),
            (b"\x00", "line 2, column 1: not JSON: "),
            (b"[" * 100_000, "line 2, column"),
        ],
        ids=repr,
    )
    def test_a_line_that_is_no_object_is_a_row_with_an_error(
        self, tmp_path: Path, line: bytes, message: str
    ) -> None:
        first, broken, last = rows_of(tmp_path, b'{"a": 1}\n' + line + b'\n{"a": 2}\n')
        assert (first.fields, last.fields) == ({"a": 1}, {"a": 2})
        assert broken.fields is None
        assert broken.error is not None
        assert broken.error.startswith(message)
        rendered = render(prompts(template="x"), broken)
        assert rendered.prompt is None
        assert (rendered.error_type, rendered.error_message) == ("row_malformed", broken.error)

    def test_long_numbers_keep_every_digit(self, tmp_path: Path) -> None:
        (row,) = rows_of(tmp_path, b'{"a": 123456789012345678901234567890}')
        assert render(prompts(template="{{ a }}"), row).content == "123456789012345678901234567890"
        assert render(prompts(template="x", id="a"), row).id == "123456789012345678901234567890"

    @given(
        lines=st.lists(
            st.sampled_from(
                [b'{"a": 1}', b'{"a": 12345678901234567890}', b"", b" ", b"[1]", b"{", b"\xff\r"]
            ),
            max_size=12,
        ),
        end=st.sampled_from([b"", b"\n"]),
        size=st.integers(1, 60),
        piece_size=st.integers(1, 60),
    )
    def test_blocks_of_any_size_hold_the_same_rows(
        self,
        tmp_path_factory: pytest.TempPathFactory,
        lines: list[bytes],
        end: bytes,
        size: int,
        piece_size: int,
    ) -> None:
        path = tmp_path_factory.mktemp("blocks") / "rows.jsonl"
        path.write_bytes(b"\xef\xbb\xbf" + b"\n".join(lines) + end)
        blocks = [
            parse_block(piece)
            for block in read_blocks(path, size)
            for piece in block.pieces(piece_size)
        ]
        rows = list(read_rows(path))
        assert [row.line for row in rows] == [line for block in blocks for line in block.lines]
        assert [row.fields or {} for row in rows] == [
            row for block in blocks for row in block.fields
        ]
        assert [row.error for row in rows if row.error] == [
            error for block in blocks for error in block.errors.values()
        ]
        assert [row.line for row in rows] == [
            number for number, line in enumerate(lines, start=1) if line.strip()
        ]

    def test_a_packed_file_is_read(self, tmp_path: Path) -> None:
        path = tmp_path / "rows.jsonl.gz"
        path.write_bytes(gzip.compress(b'{"a": 1}\n{"a": 2}\n'))
        assert [row.fields for row in read_rows(path)] == [{"a": 1}, {"a": 2}]

    @pytest.mark.parametrize(
        "data", [b"no gzip", gzip.compress(b'{"a": 1}\n' * 99)[:-9]], ids=["text", "cut"]
    )
    def test_a_torn_packed_file_is_one_line(self, tmp_path: Path, data: bytes) -> None:
        path = tmp_path / "rows.jsonl.gz"
        path.write_bytes(data)
        with pytest.raises(WorkflowError, match=r"rows\.jsonl\.gz: cannot be read: .*complete\?$"):
            list(read_rows(path))

    def test_a_missing_file_is_one_line(self, tmp_path: Path) -> None:
        with pytest.raises(WorkflowError, match=r"gone\.jsonl: cannot be read: No such file"):
            list(read_rows(tmp_path / "gone.jsonl"))


GOOD: list[tuple[str, Prompts, dict[str, Any], Any, str | None]] = [
    ("text", prompts(template="Q: {{ q }}\n"), {"q": "hi"}, {"text": "Q: hi\n"}, "Q: hi\n"),
    ("number", prompts(template="{{ a }}+{{ b }}="), {"a": 1, "b": 2.5}, {"text": "1+2.5="}, None),
    ("no escaping", prompts(template="{{ q }}"), {"q": "<&'\">"}, {"text": "<&'\">"}, None),
    ("no second filling", prompts(template="{{ q }}"), {"q": "{{ a }}"}, {"text": "{{ a }}"}, None),
    ("NUL", prompts(template="{{ q }}"), {"q": "a\0b"}, {"text": "a\0b"}, None),
    ("emoji", prompts(template="{{ q }}"), {"q": "👋🏽"}, {"text": "👋🏽"}, None),
    ("loop", prompts(template="{% for x in q %}{{ x }};{% endfor %}"), {"q": [1, 2]}, None, "1;2;"),
    ("range", prompts(template="{% for i in range(3) %}{{ i }}{% endfor %}"), {}, None, "012"),
    ("field range", prompts(template="{{ range }}"), {"range": "x"}, None, "x"),
    ("field items", prompts(template="{{ q.items }}"), {"q": {"items": 3}}, None, "3"),
    ("set", prompts(template="{% set y = q|upper %}{{ y }}"), {"q": "a"}, None, "A"),
    ("field named self", prompts(template="{{ fields }}"), {"fields": 1, "self": 2}, None, "1"),
    ("null with a default", prompts(template="{{ q or '-' }}"), {"q": None}, None, "-"),
    ("optional", prompts(template="x{% if q is defined %}{{ q }}{% endif %}"), {}, None, "x"),
    ("own text", prompts(), {"prompt": "hi"}, {"text": "hi"}, "hi"),
    ("own tokens", prompts(), {"prompt": [1, 2]}, {"token_ids": [1, 2]}, "[1,2]"),
    (
        "chat",
        prompts(messages=user("{{ q }}"), chat_template_kwargs={"thinking": False}),
        {"q": "hi"},
        {"messages": [*user("hi")], "chat_template_kwargs": {"thinking": False}},
        '[{"role":"user","content":"hi"}]',
    ),
    (
        "own chat",
        prompts(),
        {"messages": [{"role": "system", "content": ""}, *user("hi")], "prompt": 3},
        {
            "messages": [{"role": "system", "content": ""}, *user("hi")],
            "chat_template_kwargs": {},
        },
        '[{"role":"system","content":""},{"role":"user","content":"hi"}]',
    ),
    ("template before own", prompts(template="x"), {"prompt": "y"}, {"text": "x"}, "x"),
]


@pytest.mark.parametrize(
    ("section", "fields", "prompt", "content"),
    [case[1:] for case in GOOD],
    ids=[case[0] for case in GOOD],
)
def test_a_row_becomes_a_prompt(
    section: Prompts, fields: dict[str, Any], prompt: Any, content: str | None
) -> None:
    before = json.dumps(fields)
    rendered = render(section, Row(1, fields))
    assert rendered.error_type is None, rendered.error_message
    assert prompt is None or rendered.prompt == prompt
    assert content is None or rendered.content == content
    assert json.dumps(fields) == before


NO_PROMPTS: list[Any] = [
    None,
    3,
    True,
    {},
    [-1],
    [1.5],
    [True],
    ["a"],
    [[1]],
    [2**31],
    [None],
    [1, None],
]

BAD: list[tuple[str, Prompts, dict[str, Any], str, str]] = [
    (
        "misspelt field",
        prompts(template="{{ qestion }}"),
        {"id": 1, "question": 2},
        "template_error",
        "line 3: the row has no field 'qestion'; did you mean 'question'? ('id', 'question')",
    ),
    (
        "missing field",
        prompts(messages=user("{{ hint }}")),
        {"q": 1},
        "template_error",
        "line 3: the row has no field 'hint'; the template names it; ('q')",
    ),
    (
        "no fields",
        prompts(template="{{ a }}"),
        {},
        "template_error",
        "line 3: the row has no field 'a'; the template names it; (no field)",
    ),
    (
        "missing inner field",
        prompts(template="{{ q.a }}"),
        {"q": {}},
        "template_error",
        "line 3: the template asks for something the row has not: "
        "'dict object' has no attribute 'a'",
    ),
    (
        "null",
        prompts(template="{{ q }}"),
        {"q": None},
        "template_error",
        "line 3: the template prints a field that is null; use {{ field or '' }}",
    ),
    (
        "method",
        prompts(template="{{ q.upper }}"),
        {"q": "a"},
        "template_error",
        "line 3: the template prints a function; are the parentheses missing?",
    ),
    (
        "division",
        prompts(template="{{ 1 / q }}"),
        {"q": 0},
        "template_error",
        "line 3: the template fails on this row (ZeroDivisionError: division by zero)",
    ),
    (
        "types",
        prompts(template="{{ q + 1 }}"),
        {"q": "a"},
        "template_error",
        "line 3: the template fails on this row (TypeError: can only concatenate str "
        '(not "int") to str)',
    ),
    (
        "half a surrogate pair",
        prompts(template='{{ "\\ud800" }}'),
        {},
        "template_error",
        "line 3: the template writes half of a surrogate pair",
    ),
    (
        "empty",
        prompts(template="{{ q }}"),
        {"q": ""},
        "prompt_empty",
        "line 3: the prompt is empty",
    ),
    (
        "white space",
        prompts(template=" {{ q }}\n"),
        {"q": "\u2003\t"},
        "prompt_empty",
        "line 3: the prompt is empty",
    ),
    (
        "empty chat",
        prompts(messages=user("{{ q }}")),
        {"q": " "},
        "prompt_empty",
        "line 3: every message of the prompt is empty",
    ),
    ("own empty", prompts(), {"prompt": ""}, "prompt_empty", "line 3: the prompt is empty"),
    (
        "own no tokens",
        prompts(),
        {"prompt": []},
        "prompt_empty",
        "line 3: the list of token ids in 'prompt' is empty",
    ),
    (
        "own empty chat",
        prompts(),
        {"messages": []},
        "prompt_empty",
        "line 3: 'messages' is an empty list",
    ),
    (
        "neither",
        prompts(),
        {"q": 1},
        "row_malformed",
        "line 3: neither 'prompt' nor 'messages', but 'q'; rename a field or write a template",
    ),
    *(
        (
            f"own prompt {value!r}",
            prompts(),
            {"prompt": value},
            "row_malformed",
            "line 3: 'prompt' is neither text nor a list of token ids (whole numbers from 0)",
        )
        for value in NO_PROMPTS
    ),
    *(
        (f"own messages {value!r}", prompts(), {"messages": value}, "row_malformed", message)
        for value, message in [
            ("hi", "line 3: 'messages' is a text, expected a list of messages"),
            ({}, "line 3: 'messages' is an object, expected a list of messages"),
            (None, "line 3: 'messages' is null, expected a list of messages"),
            (
                ["hi"],
                "line 3: message 1 of 'messages' is a text, expected an object with 'role' and "
                "'content'",
            ),
            ([{"content": "a"}], "line 3: message 1 of 'messages' has no 'role'"),
            ([*user("a"), {"role": "user"}], "line 3: message 2 of 'messages' has no 'content'"),
            (
                [{"role": "user", "content": None}],
                "line 3: message 1 of 'messages' has null as 'content', expected text",
            ),
            (
                [{"role": 1, "content": "a"}],
                "line 3: message 1 of 'messages' has a number as 'role', expected text",
            ),
            (
                [{"role": "user", "content": [{"type": "text"}]}],
                "line 3: message 1 of 'messages' has a list as 'content', expected text",
            ),
            (
                [{"role": "usr", "content": "a"}],
                "line 3: message 1 of 'messages' has the unknown role 'usr'; did you mean 'user'?",
            ),
            (
                [{"role": "", "content": "a"}],
                "line 3: message 1 of 'messages' has the unknown role ''; take one of system, "
                "developer, user, assistant, tool, function, ipython",
            ),
        ]
    ),
]


@pytest.mark.parametrize(
    ("section", "fields", "kind", "message"),
    [case[1:] for case in BAD],
    ids=[case[0] for case in BAD],
)
def test_a_row_that_cannot_be_a_prompt_is_a_typed_error(
    section: Prompts, fields: dict[str, Any], kind: str, message: str
) -> None:
    rendered = render(section, Row(3, fields))
    assert rendered.prompt is None
    assert (rendered.error_type, rendered.error_message) == (kind, message)


class TestIdsReferencesAndTags:
    """What goes with a prompt."""

    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            ("a", "a"),
            (7, "7"),
            (1.5, "1.5"),
            (True, "true"),
            ([1], "[1]"),
            (None, None),
            ("", None),
        ],
    )
    def test_an_id_is_text(self, value: object, expected: str | None) -> None:
        assert render(prompts(template="x", id="id"), Row(1, {"id": value})).id == expected

    def test_a_row_without_the_field_has_no_id(self) -> None:
        assert render(prompts(template="x", id="id"), Row(1, {})).id is None
        assert render(prompts(template="x"), Row(1, {"": "a"})).id is None
        assert render(prompts(template="x"), Row(1, {"id": "a"})).id is None

    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            ("ä", '"ä"'),
            (7, "7"),
            (0, "0"),
            (False, "false"),
            ("", '""'),
            (["a", "b"], '["a","b"]'),
            (None, None),
            (10**30, "1" + "0" * 30),
        ],
    )
    def test_a_reference_is_json(self, value: object, expected: str | None) -> None:
        section = prompts(template="x", reference="answer")
        assert render(section, Row(1, {"answer": value})).reference == expected

    def test_tags_are_the_other_short_fields(self) -> None:
        fields = {
            "id": "a",
            "answer": 1,
            "prompt": "p",
            "messages": [],
            "level": 3,
            "topic": "sums",
            "hard": False,
            "score": 0.5,
            "list": [1],
            "nothing": None,
            "long": "x" * 201,
        }
        rendered = render(prompts(template="x", id="id", reference="answer"), Row(1, fields))
        assert rendered.tags is not None
        assert json.loads(rendered.tags) == {
            "level": 3,
            "topic": "sums",
            "hard": False,
            "score": 0.5,
        }

    def test_a_row_has_at_most_twenty_tags(self) -> None:
        rendered = render(prompts(template="x"), Row(1, {f"f{i}": i for i in range(30)}))
        assert rendered.tags is not None
        assert list(json.loads(rendered.tags)) == [f"f{i}" for i in range(20)]

    def test_a_row_with_an_error_keeps_them(self) -> None:
        section = prompts(template="{{ q }}", id="id", reference="answer")
        rendered = render(section, Row(1, {"id": "a", "answer": 1, "level": 2}))
        assert rendered.error_type == "template_error"
        assert (rendered.id, rendered.reference, rendered.tags) == ("a", "1", '{"level":2}')


@pytest.mark.parametrize("name", ["random", "lipsum"])
def test_nothing_random_is_in_templates(name: str) -> None:
    rendered = render(prompts(template="{{ " + name + "() }}"), Row(1, {}))
    assert rendered.error_message is not None
    assert rendered.error_message.startswith(f"line 1: the row has no field '{name}'")


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ q.__class__ }}",
        "{% do q.append(1) %}",
        "{% set _ = q.append(1) %}",
        "{{ q.append(1) or 1 }}",
        "{{ range(10**9)|list }}",
    ],
)
def test_templates_can_neither_reach_out_nor_change_a_row(template: str) -> None:
    fields = {"q": [0]}
    try:
        rendered = render(prompts(template=template), Row(1, fields))
    except Exception as error:  # A statement that does not exist is refused with the config.
        assert "unknown tag" in str(error)
    else:
        assert rendered.error_type == "template_error"
    assert fields == {"q": [0]}


def test_a_row_does_not_leak_into_the_next() -> None:
    renderer = Renderer(prompts(template="{% if a is defined %}{% set b = a %}{% endif %}{{ c }}"))
    assert renderer.render(Row(1, {"a": 1, "c": 2})).content == "2"
    assert renderer.render(Row(2, {"a": 1})).error_type == "template_error"


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
FIELDS = st.dictionaries(
    st.sampled_from(["q", "id", "answer", "prompt", "messages", "role"]) | st.text(max_size=3),
    JSON | st.lists(st.dictionaries(st.sampled_from(["role", "content"]), JSON), max_size=2),
    max_size=5,
)


@settings(
    max_examples=300,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    line=st.binary(max_size=30) | FIELDS.map(lambda fields: json.dumps(fields).encode()),
    section=st.sampled_from(
        [
            prompts(id="id", reference="answer"),
            prompts(template="{{ q }}", id="id", reference="answer"),
            prompts(messages=user("{{ q.a[0] }}"), id="q", reference="q"),
        ]
    ),
)
def test_any_line_is_a_prompt_or_a_typed_error(
    tmp_path: Path, line: bytes, section: Prompts
) -> None:
    renderer = Renderer(section)
    for row in rows_of(tmp_path, line):
        rendered = renderer.render(row)
        _is_sound(rendered)


def _is_sound(rendered: Rendered) -> None:
    texts = (rendered.content, rendered.id, rendered.reference, rendered.tags)
    assert all(text is None or text.encode() is not None for text in texts)
    if rendered.prompt is None:
        assert rendered.error_type in ERROR_TYPES
        assert rendered.error_message
        assert "\n" not in rendered.error_message
    else:
        assert rendered.error_type is None
        assert rendered.content.strip()
        json.loads(json.dumps(rendered.prompt))
    for text in (rendered.reference, rendered.tags):
        if text is not None:
            json.loads(text)
