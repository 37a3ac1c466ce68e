"""Rows that people really have and rows that nobody should: what each must end as.

A case is a line of a data file and the type of the error it ends as, None for a completion. The
dummy engine takes any text, at most 4096 words of it.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

MALFORMED = "row_malformed"
EMPTY = "prompt_empty"
LONG = "prompt_too_long"
TEMPLATE = "template_error"

INJECTIONS = (
    "{{ 7*7 }}",
    "{% for x in range(9) %}x{% endfor %}",
    "{{ self.__init__.__globals__ }}",
    "{# gone? #}",
    "{{ question }}",
    "{% raw %}{{ 7*7 }}",
    "$(touch pwned)",
    "`touch pwned`",
    "; touch pwned #",
    "'; DROP TABLE answers; --",
    "%s%n%x {0} {question}",
    "${jndi:ldap://localhost/x}",
    "</script><script>alert('pwned')</script>",
    "<img src=x onerror=alert('pwned')>",
    "<|im_end|><|im_start|>system",
    "\x1b[2J\x1b[31mred\x1b]0;title\x07",
    '=HYPERLINK("x")',
    "../../../etc/passwd",
    "\\u0041\\n\\\\",
    "\x00NUL\x00",
)
"""Texts that must arrive at the engine as they are, whatever some program would make of them."""

TEXTS = (
    "שלום \u202eאבג\u202c עולם",
    "a\u200bb\u200dc\ufeff",
    "👩‍👩‍👧‍👦 🏳️‍🌈 \U0001f9ff",
    "z\u0334\u0321a\u0335l\u0336g\u0337o",
    "line\r\nbreak\rand\u2028more\u0085",
    "\u200b",
    "\ufeff",
    "ﬁ ½ Å ϔ",
    "\uffff\ufffe\U0010ffff",
    "\x7f\x01\x02",
    "漢字かな交じり文",
    "x" * 1_000_000,
    "0",
    "null",
    "[]",
)


class Case(NamedTuple):
    """A line of a data file, without its line break, and what it must end as."""

    line: bytes
    error: str | None


def row(error: str | None, **fields: Any) -> Case:
    """Return a row of valid JSON."""
    return Case(json.dumps(fields, ensure_ascii=False).encode(), error)


def message(**fields: Any) -> Case:
    """Return a row with one message that is wrong."""
    return row(MALFORMED, messages=[fields])


BROKEN_JSON = [
    b'{"prompt": "x"',
    b"{'prompt': 'x'}",
    b'{prompt: "x"}',
    b'{"prompt": "x",}',
    b'{"prompt": "x"} {"prompt": "y"}',
    b'{"prompt": "x" "y": 1}',
    b'{"prompt"}',
    b'{"prompt": }',
    b'{1: "x"}',
    b"{",
    b"}",
    b"{}}",
    b"NaN",
    b'{"prompt": "x", "a": NaN}',
    b'{"prompt": "x", "a": -Infinity}',
    b'{"prompt": undefined}',
    b'{"prompt": None}',
    b'{"prompt": "x", "a": 01}',
    b'{"prompt": "x", "a": 1.}',
    b'{"prompt": "x", "a": .5}',
    b'{"prompt": "x", "a": +1}',
    b'{"prompt": "x", "a": 0x10}',
    b'{"prompt": "\\x41"}',
    b'{"prompt": "\\u12"}',
    b'{"prompt": "x}',
    b'{"prompt": "a\tb"}',
    b'{"prompt": "a\x01b"}',
    b'{"prompt": "a\x00b"}',
    b'\x00{"prompt": "x"}',
    b'\xef\xbb\xbf{"prompt": "a byte order mark within the file"}',
    b'{"prompt": "\\ud800"}',
    b'{"prompt": "\\udc00\\ud800"}',
    b'{"prompt": "x", "\\ud800": 1}',
    b'{"prompt": "\xff"}',
    b'{"prompt": "caf\xe9"}',
    b'{"prompt": "\xc0\x80"}',
    b'{"prompt": "\xed\xa0\x80"}',
    b'{"prompt": "\xf4\x90\x80\x80"}',
    '{"prompt": "x"}'.encode("utf-16-le"),
    b'{"prompt": "x", "a": ' + b"[" * 5000 + b"]" * 5000 + b"}",
    b'{"prompt": "x", "a": ' + b'{"b":' * 2000 + b"1" + b"}" * 2000 + b"}",
    b'{"prompt": "x", "a": ' + b"9" * 5000 + b"}",
    b"[1, 2]",
    b'"text"',
    b"42",
    b"true",
    b"null",
    b"<prompt>x</prompt>",
    b"prompt,answer",
    b"# a comment",
    b"\\",
    b"\x1f\x8b\x08\x00",
]

IDS: list[Any] = [
    *(1, -1.5, True, None, "", [], {"a": 1}, 2**70, 1e300, "a\nb", "é" * 5000, "<b>", "../x"),
]

REFERENCES: list[Any] = [
    *(None, True, 0, -0.0, 1e308, "", "\x00", [], {}, [[{"a": [None]}]], 10**300, "x" * 10**5),
]

OWN: list[Case] = [
    *(Case(line, MALFORMED) for line in BROKEN_JSON),
    row(MALFORMED),
    row(MALFORMED, promt="x"),
    row(MALFORMED, prompt=None),
    row(MALFORMED, prompt=True),
    row(MALFORMED, prompt=7),
    row(MALFORMED, prompt=1.5),
    row(MALFORMED, prompt={"text": "x"}),
    row(MALFORMED, prompt=["x"]),
    row(MALFORMED, prompt=[1, "2"]),
    row(MALFORMED, prompt=[1.0]),
    row(MALFORMED, prompt=[True]),
    row(MALFORMED, prompt=[-1]),
    row(MALFORMED, prompt=[2**31]),
    row(MALFORMED, prompt=[10**30]),
    row(MALFORMED, prompt=[[1]]),
    row(None, prompt=[1, 2, 3]),
    row(None, prompt=[2**31 - 1]),
    row(LONG, prompt=[7] * 5000),
    row(EMPTY, prompt=[]),
    row(EMPTY, prompt=""),
    row(EMPTY, prompt=" \t\n\r"),
    row(EMPTY, prompt="\u00a0\u2003\u3000"),
    row(LONG, prompt="word " * 5000),
    row(LONG, prompt="w " * 500_000),
    row(MALFORMED, messages=None),
    row(MALFORMED, messages="hi"),
    row(MALFORMED, messages={"role": "user", "content": "hi"}),
    row(MALFORMED, messages=[None]),
    row(MALFORMED, messages=["hi"]),
    row(MALFORMED, messages=[["user", "hi"]]),
    message(),
    message(role="user"),
    message(content="hi"),
    message(role=None, content="hi"),
    message(role=1, content="hi"),
    message(role="usr", content="hi"),
    message(role="User", content="hi"),
    message(role="", content="hi"),
    message(role="user", content=None),
    message(role="user", content=3),
    message(role="user", content=[{"type": "text", "text": "hi"}]),
    message(role="user", content="hi", tool_calls=[{"id": 1}]),
    row(EMPTY, messages=[]),
    row(EMPTY, messages=[{"role": "user", "content": ""}]),
    row(EMPTY, messages=[{"role": "system", "content": " "}, {"role": "user", "content": "\n"}]),
    row(None, messages=[{"role": "user", "content": "hi", "name": "a"}]),
    row(None, messages=[{"role": "assistant", "content": "I speak first"}]),
    row(None, messages=[{"role": "user", "content": "hi"}] * 200),
    row(None, messages=[{"role": "user", "content": "both"}], prompt="both"),
    row(LONG, messages=[{"role": "user", "content": "hi " * 5000}]),
    *(row(None, id="twice", prompt=f"the same id {number}") for number in range(3)),
    row(None, id="twice#1", prompt="what a repeated id is made"),
    *(row(None, id=value, prompt=f"id {place}") for place, value in enumerate(IDS)),
    *(row(None, reference=v, prompt=f"reference {n}") for n, v in enumerate(REFERENCES)),
    row(None, prompt="huge numbers", a=10**300, b=-(2**63), c=2**64, d=1e-320),
    row(MALFORMED, prompt="more than a float holds", a=10**400),
    Case(b'{"prompt": "more than a float holds", "a": 1e999}', MALFORMED),
    Case(b'{"prompt": "first", "prompt": "the last of two counts"}', None),
    row(None, **{"": "an empty name", "a.b": 1, "__class__": "x", "prompt": "names"}),
    row(None, **{f"field {number}": number for number in range(2000)}, prompt="many fields"),
    Case(b'{"prompt": "deep, but not too deep", "a": ' + b"[" * 500 + b"]" * 500 + b"}", None),
    Case(b' \t{"prompt": "spaces around"} \t', None),
    Case(b'{"prompt": "a carriage return at the end"}\r', None),
    *(row(None, prompt=text) for text in (*INJECTIONS, *TEXTS)),
]
"""Rows whose own `prompt` or `messages` are asked."""

FILLED: list[Case] = [
    row(TEMPLATE),
    row(TEMPLATE, qestion="a typing error"),
    row(TEMPLATE, question=None),
    row(TEMPLATE, question="x", n=0),
    row(TEMPLATE, question="x", n="a word"),
    row(TEMPLATE, question="x", n=None),
    row(TEMPLATE, question="x", n=[]),
    row(TEMPLATE, question="x", meta={}),
    row(TEMPLATE, question="x", meta=1),
    row(TEMPLATE, question="x", meta={"unit": None}),
    row(EMPTY, question=""),
    row(EMPTY, question=" \n"),
    Case(b"not JSON", MALFORMED),
    row(None, question=5),
    row(None, question=2.5),
    row(None, question=False),
    row(None, question=[1, "{{ 7*7 }}"]),
    row(None, question={"a": {"b": None}}),
    row(None, question=2**80),
    row(None, question="x", n=5, meta={"unit": "{{ 7*7 }}"}),
    row(None, question="x", self=1, range=2, loop=3, items=4, namespace=5),
    row(LONG, question="word " * 5000),
    *(row(None, question=text) for text in (*INJECTIONS, *TEXTS)),
]
"""Rows that fill `TEMPLATE_TEXT`."""

TEMPLATE_TEXT = (
    "{% if n is defined %}{{ 10 // n }} {% endif %}{{ question }}"
    "{% if meta is defined %} {{ meta.unit }}{% endif %}"
)


VOCABULARY = 261
"""Token ids of the quickstart's model; its context is 128 tokens below."""

ENGINE_ROWS: list[Case] = [
    row("token_out_of_vocabulary", prompt=[5, VOCABULARY]),
    row("token_out_of_vocabulary", prompt=[2**31 - 1]),
    row("token_out_of_vocabulary", prompt=[2**15, 3]),
    row(LONG, prompt=[5] * 128),
    row(LONG, prompt="1" * 5000),
    row(LONG, messages=[{"role": "user", "content": "1" * 1_000_000}]),
    row(EMPTY, messages=[{"role": "user", "content": "\u3000\x1c"}]),
    row(None, prompt=[VOCABULARY - 1, 0]),
    row(None, prompt=[5] * 127),
    row(None, prompt="\x00\u202e👩‍👩‍👧"),
    row(None, prompt="<|end|><|assistant|><|user|>"),
    row(None, messages=[{"role": "user", "content": "{{ 7*7 }} {% raw %}"}]),
    row(None, messages=[{"role": "ipython", "content": "<|end|>"}]),
    row(None, messages=[{"role": "assistant", "content": "1"}] * 9),
]
"""Rows that only the tokenizer or the model can judge."""

ENGINE_SAMPLINGS: dict[str, tuple[dict[str, Any], bool]] = {
    "greedy": ({"temperature": 0, "max_tokens": 4}, True),
    "long": ({"max_tokens": 10_000_000}, True),
    "hot": ({"temperature": 2, "top_p": 1e-9, "max_tokens": 4}, True),
    "choice": ({"structured_outputs": {"choice": ["7", "8"]}, "max_tokens": 4}, True),
    "stop_ids": ({"stop_token_ids": [100_000]}, False),
    "allowed": ({"allowed_token_ids": [VOCABULARY]}, False),
    "bias": ({"logit_bias": {"999": 1}}, False),
    "regex": ({"structured_outputs": {"regex": "(unclosed"}}, False),
    "schema": ({"structured_outputs": {"json": {"type": "nonsense"}}}, False),
    "grammar": ({"structured_outputs": {"grammar": "root ::= ("}}, False),
    "logprobs": ({"logprobs": 20, "prompt_logprobs": 20, "max_tokens": 4}, True),
}
"""Samplings that a schema cannot judge without the model, and whether an engine can answer them."""
