"""Metrics: what counts as the answer of a completion, and when it equals the reference."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from scripts.llm_batch.errors import ConfigError
from scripts.llm_batch.evaluation.metric_types import METRIC_TYPES
from scripts.llm_batch.evaluation.metrics import (
    Item,
    Judgement,
    ManyMetric,
    build_metric,
    registered_types,
)
from scripts.llm_batch.evaluation.metrics.numeric import canonical_number, find_number


def judge(specification: dict[str, Any], text: str, reference: Any) -> Judgement | None:
    """Score one text as the workflow does: the reference goes through JSON."""
    metric = build_metric("m", specification).metric
    decoded = json.loads(json.dumps(reference), parse_float=Decimal, parse_constant=lambda _: None)
    accepted = metric.accept(decoded)
    if accepted is None:
        return None
    if isinstance(metric, ManyMetric):
        (found,) = metric.judge_many([Item(text, accepted, {})])
        assert isinstance(found, Judgement), found
        return found
    return metric.judge(text, accepted)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("42", "42"),
        ("The answer is 1,234.50.", "1234.5"),
        ("1,234,567", "1234567"),
        ("1,23", "23"),
        ("1,2345", "2345"),
        ("12,345,67", "67"),
        ("1\u202f234\u202f567", "1234567"),
        ("\u22125", "-5"),
        ("\uff0d5", "-5"),
        ("-0", "0"),
        ("-0.00", "0"),
        ("$5", "5"),
        ("-$5", "-5"),
        ("$1,000,000.00", "1000000"),
        ("5%", "5"),
        ("1/2", "2"),
        ("3-5", "5"),
        ("3\u20135", "5"),
        ("GPT-4", "4"),
        ("(7)-2", "2"),
        ("x=-3", "-3"),
        ("7 - 2", "2"),
        ("+7", "7"),
        (".5", "0.5"),
        ("-.5", "-0.5"),
        ("5.", "5"),
        ("007", "7"),
        ("1e-3", "0.001"),
        ("1.5E+3", "1500"),
        ("2 eggs", "2"),
        ("\uff11\uff12", "12"),
        ("\u0663", "3"),
        ("10\u00b2", "10"),
        ("first 3, then 4", "4"),
        ("0.1000", "0.1"),
        ("1e999999999", "1E+999999999"),
        ("1e99999999999999999999", None),
        ("NaN", None),
        ("inf", None),
        ("no digits", None),
        ("", None),
    ],
)
def test_the_last_number_of_a_text_is_read_exactly(text: str, number: str | None) -> None:
    found = find_number(text)
    assert (None if found is None else canonical_number(found)) == number


def test_the_first_number_can_be_taken_instead_of_the_last() -> None:
    assert find_number("1 then 2", "first") == 1


def test_equal_numbers_have_one_canonical_text() -> None:
    spellings = ["1200", "1200.0", "1.2e3", "01200.000", "12e2"]
    assert {canonical_number(Decimal(text)) for text in spellings} == {"1200"}


@pytest.mark.parametrize(
    ("settings", "text", "reference", "expected"),
    [
        ({}, "so it is 42.", 42, (1, "42")),
        ({}, "so it is 42.0", "42", (1, "42")),
        ({}, "0.30", 0.3, (1, "0.3")),
        ({}, "0.3000000000000001", 0.3, (0, "0.3000000000000001")),
        ({}, "9007199254740993", 9007199254740992, (0, "9007199254740993")),
        ({}, "1234", "She pays 5 a day. #### 1,234", (1, "1234")),
        ({}, "7", [6, "7"], (1, "7")),
        ({}, "8", [6, "7"], (0, "8")),
        ({}, "none", 1, (0, None)),
        ({}, "1e999999999", 1, (0, "1E+999999999")),
        ({"tolerance": 0.01}, "3.15", 3.14, (1, "3.15")),
        ({"tolerance": 0.01}, "3.151", 3.14, (0, "3.151")),
        ({"relative_tolerance": 0.1}, "-110", -100, (1, "-110")),
        ({"relative_tolerance": 0.1}, "-111", -100, (0, "-111")),
        ({"relative_tolerance": 0.1, "tolerance": 20}, "-111", -100, (1, "-111")),
        ({"tolerance": 1}, "1e999999999", 1, (0, "1E+999999999")),
        ({"take": "first"}, "4, not 5", 4, (1, "4")),
        ({"extract": r"####\s*(\S+)"}, "9 #### 1,000 and 8", 1000, (1, "1000")),
        ({"extract": r"####\s*(\S+)"}, "no marker 1000", 1000, (0, None)),
        ({"extract": r"####\s*(\S+)"}, "#### many", 1000, (0, None)),
        ({"extract": r"A=(\d+)|B=(\d+)"}, "A=1 B=2", 2, (1, "2")),
        ({"extract": r"A=(\d+)|B=(\d+)", "take": "first"}, "A=1 B=2", 1, (1, "1")),
        ({"extract": r"\d+ km"}, "3 h, 12 km", 12, (1, "12")),
        ({}, "1", None, None),
        ({}, "1", "one", None),
        ({}, "1", True, None),
        ({}, "1", [], None),
        ({}, "1", [None, True], None),
        ({}, "1", {"answer": 1}, None),
        ({}, "1", float("nan"), None),
    ],
)
def test_numeric_match_compares_decimals(
    settings: dict[str, Any], text: str, reference: Any, expected: tuple[float, str | None] | None
) -> None:
    assert judge({"type": "numeric_match", **settings}, text, reference) == expected


@pytest.mark.parametrize(
    ("settings", "text", "reference", "expected"),
    [
        ({}, " Paris\n", "Paris", (1, "Paris")),
        ({}, "paris", "Paris", (0, "paris")),
        ({}, "Paris.", "Paris", (0, "Paris.")),
        ({}, "", "", (1, "")),
        ({}, "42", 42, (1, "42")),
        ({}, "1.50", 1.5, (0, "1.50")),
        ({}, "true", True, (1, "true")),
        ({}, "b", ["a", "b"], (1, "b")),
        ({}, "x", None, None),
        ({}, "x", [], None),
        ({"strip": False}, " Paris", "Paris", (0, " Paris")),
        ({"ignore_case": True}, "STRASSE", "straße", (1, "strasse")),
        ({"ignore_punctuation": True}, "Yes, it  is!", "yes it is", (0, "Yes it is")),
        ({"ignore_punctuation": True}, "“Yes”, it is…", "Yes it is", (1, "Yes it is")),
        ({"ignore_punctuation": True}, "a+b", "ab", (0, "a+b")),
        ({}, "cafe\u0301", "caf\u00e9", (1, "caf\u00e9")),
        ({"extract": "is (.*)$"}, "It is Paris", "Paris", (1, "Paris")),
        ({"extract": "is (.*)$"}, "Paris", "Paris", (0, None)),
    ],
)
def test_exact_match_compares_normalised_texts(
    settings: dict[str, Any], text: str, reference: Any, expected: tuple[float, str | None] | None
) -> None:
    assert judge({"type": "exact_match", **settings}, text, reference) == expected


@pytest.mark.parametrize(
    ("settings", "text", "reference", "expected"),
    [
        ({"extract": r"\(([A-D])\)"}, "(B) or (C)", "B", (1, "B")),
        ({"extract": r"\(([A-D])\)", "take": "last"}, "(B) or (C)", "C", (1, "C")),
        ({"extract": r"\(([A-D])\)"}, "B", "B", (0, None)),
        ({"extract": "[A-D]"}, "is D", ["C", "D"], (1, "D")),
        ({"extract": "(?i)answer: (.)", "ignore_case": True}, "ANSWER: b", "B", (1, "b")),
    ],
)
def test_regex_match_compares_the_group_with_the_reference(
    settings: dict[str, Any], text: str, reference: Any, expected: tuple[float, str | None]
) -> None:
    assert judge({"type": "regex_match", **settings}, text, reference) == expected


@pytest.mark.parametrize(
    ("settings", "text", "reference", "expected"),
    [
        ({}, "It is Paris.", "Paris", (1, "Paris")),
        ({}, "It is paris.", "Paris", (0, None)),
        ({"ignore_case": True}, "It is PARIS.", "Paris", (1, "Paris")),
        ({}, "1420", 42, (1, "42")),
        ({"whole_words": True}, "1420", 42, (0, None)),
        ({"whole_words": True}, "It is 42.", 42, (1, "42")),
        ({"whole_words": True}, "c++ is", "c++", (1, "c++")),
        ({}, "b and a", ["a", "b"], (1, "a")),
        ({}, "anything", "", None),
        ({}, "anything", None, None),
    ],
)
def test_contains_looks_for_an_accepted_answer(
    settings: dict[str, Any], text: str, reference: Any, expected: tuple[float, str | None] | None
) -> None:
    assert judge({"type": "contains", **settings}, text, reference) == expected


def test_every_metric_type_has_code_and_every_code_has_a_type() -> None:
    assert registered_types() == set(METRIC_TYPES)


@pytest.mark.parametrize("kind", sorted(METRIC_TYPES))
def test_every_setting_of_a_type_reaches_its_code_with_its_default(kind: str) -> None:
    settings = METRIC_TYPES[kind].settings
    required = {key: "(.)" for key, setting in settings.items() if setting.required}
    built = build_metric("m", {"type": kind, **required})
    assert set(built.settings) == set(settings)
    for key in set(settings) - {"errors", *required}:
        assert getattr(built.metric, key) == settings[key].default


@pytest.mark.parametrize("kind", sorted(METRIC_TYPES))
def test_the_schema_of_a_setting_accepts_what_the_setting_accepts(kind: str) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    for setting in METRIC_TYPES[kind].settings.values():
        validator = jsonschema.Draft202012Validator(setting.schema())
        values: list[object] = [None, True, 0, -1, 0.5, "x", "first", "skip", []]
        for value in values:
            assert validator.is_valid(value) == (setting.problem(value) is None), (setting, value)


@pytest.mark.parametrize(
    ("name", "specification", "message"),
    [
        ("m", {"type": "blue"}, "metrics.m.type: no metric type 'blue'; use one of: bleu, chrf, "),
        ("m", {}, "metrics.m.type: no metric type None"),
        ("m", {"type": "contains", "strip": True}, "metrics.m.strip: contains has no such setting"),
        ("m", {"type": "regex_match"}, "metrics.m.extract: regex_match needs this setting"),
        ("m", {"type": "exact_match", "extract": "(a"}, "metrics.m.extract: '(a' is not a Python"),
        ("m", {"type": "exact_match", "strip": "yes"}, "found 'yes', expected a boolean"),
        ("m", {"type": "numeric_match", "tolerance": -1}, "expected a number of at least 0"),
        ("m", {"type": "numeric_match", "tolerance": True}, "expected a number of at least 0"),
        ("m", {"type": "contains", "errors": "drop"}, "expected one of: wrong, skip"),
        ("sample", {"type": "contains"}, "metrics.sample: this name is a column"),
    ],
)
def test_a_wrong_specification_is_one_line_that_says_where(
    name: str, specification: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        build_metric(name, specification)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
