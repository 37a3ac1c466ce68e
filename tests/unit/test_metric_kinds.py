"""Metrics that libraries compute give the values that these libraries publish."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from scripts.llm_batch.evaluation.diversity import answer_entropies, distinct_shares, split_words
from scripts.llm_batch.evaluation.metrics import Failure, Item, ManyMetric, build_metric
from scripts.llm_batch.evaluation.metrics.overlap import Bleu, Chrf
from scripts.llm_batch.evaluation.self_bleu import self_bleu
from tests.unit.test_metrics import judge

# The example of sacrebleu's README.
SYSTEM = ["The dog bit the man.", "It wasn't surprising.", "The man had just bitten him."]
REFERENCES = [
    ("The dog bit the man.", "The dog had bit the man."),
    ("It was not unexpected.", "No one was surprised."),
    ("The man bit him first.", "The man had bitten the dog."),
]


def test_corpus_bleu_and_chrf_are_those_of_the_readme_of_sacrebleu() -> None:
    bleu = Bleu().corpus(SYSTEM, REFERENCES)
    assert round(bleu.value, 2) == 48.53
    assert bleu.low < bleu.value < bleu.high
    assert round(Chrf().corpus(SYSTEM, REFERENCES).value, 2) == 59.73


def test_sentences_without_a_second_reference_still_count() -> None:
    found = Bleu().corpus(SYSTEM[:2], [REFERENCES[0], REFERENCES[1][:1]])
    assert found.value == pytest.approx(Bleu().corpus(SYSTEM[:2], REFERENCES[:2]).value, abs=20)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"variant": "rouge1", "measure": "precision"}, 6 / 8),
        ({"variant": "rouge1", "measure": "recall"}, 6 / 9),
        ({"variant": "rouge1"}, 0.7058823529411765),
        ({"variant": "rougeL", "measure": "precision"}, 5 / 8),
        ({"variant": "rougeL"}, 0.5882352941176471),
    ],
)
def test_rouge_is_that_of_the_readme_of_rouge_score(
    settings: dict[str, Any], expected: float
) -> None:
    found = judge(
        {"type": "rouge", "use_stemmer": True, **settings},
        "The quick brown dog jumps on the log.",
        "The quick brown fox jumps over the lazy dog",
    )
    assert found is not None
    assert found.score == pytest.approx(expected)


def test_of_several_references_the_best_counts() -> None:
    found = judge({"type": "rouge"}, "a b c", ["x", "a b c"])
    assert found is not None
    assert found.score == 1


@pytest.mark.parametrize(
    ("text", "reference", "expected"),
    [
        ("The Denver Broncos!", "denver broncos", 1.0),
        ("Denver", ["Denver Broncos", "Carolina"], 2 / 3),
        ("the cat sat", "a dog sat down", 2 * (1 / 2) * (1 / 3) / (1 / 2 + 1 / 3)),
        ("", "", 1.0),
        ("something", "", 0.0),
        ("an", "the", 1.0),
    ],
)
def test_token_f1_is_that_of_squad(text: str, reference: Any, expected: float) -> None:
    found = judge({"type": "token_f1"}, text, reference)
    assert found is not None
    assert found.score == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "reference", "expected"),
    [
        ("B", "B", (1.0, "B")),
        ("(b)", "B", (1.0, "B")),
        ("B. Paris", "B", (1.0, "B")),
        ("The answer is (C).", "C", (1.0, "C")),
        ("Answer: D", "D", (1.0, "D")),
        ("**Answer:** **A**", "A", (1.0, "A")),
        (r"so $\boxed{\text{C}}$", "C", (1.0, "C")),
        ("Is it A? No. The answer is B, not C.", "B", (1.0, "B")),
        ("First I thought the answer is A.\nThe correct answer is D.", "D", (1.0, "D")),
        ("A good question, I do not know", "A", (0.0, None)),
        ("The option E does not exist", "A", (0.0, None)),
        ("C", 2, (1.0, "C")),
        ("C", "(C)", (1.0, "C")),
        ("C", ["A", "C"], (1.0, "C")),
        ("C", 4, None),
        ("C", None, None),
    ],
)
def test_multiple_choice_reads_the_letter(
    text: str, reference: Any, expected: tuple[float, str | None] | None
) -> None:
    assert judge({"type": "multiple_choice"}, text, reference) == expected


def test_multiple_choice_has_other_letters_and_an_expression() -> None:
    found = judge({"type": "multiple_choice", "choices": "YN"}, "N", "N")
    assert found == (1.0, "N")
    own = {"type": "multiple_choice", "extract": r"<(.)>", "take": "first"}
    assert judge(own, "<A> or <B>", "A") == (1.0, "A")


@pytest.mark.parametrize(
    ("settings", "text", "expected"),
    [
        ({}, '{"a": 1}', (1.0, '{"a": 1}')),
        ({}, 'Here:\n```json\n{"b": 2, "a": [1]}\n```\nDone.', (1.0, '{"a": [1], "b": 2}')),
        ({}, "no", (0.0, None)),
        ({}, "NaN", (0.0, None)),
        ({}, '{"a": 1, "a": 2}', (0.0, None)),
        ({}, "[" * 100_000, (0.0, None)),
        ({"schema": {"type": "object", "required": ["a"]}}, '{"a": 1}', (1.0, '{"a": 1}')),
        ({"schema": {"type": "object", "required": ["a"]}}, "{}", (0.0, "{}")),
    ],
)
def test_json_schema_needs_no_reference(
    settings: dict[str, Any], text: str, expected: tuple[float, str | None]
) -> None:
    assert judge({"type": "json_schema", **settings}, text, None) == expected


@pytest.mark.parametrize(("unit", "length"), [("words", 4), ("characters", 15), ("lines", 2)])
def test_length_is_counted(unit: str, length: float) -> None:
    assert judge({"type": "length", "unit": unit}, "one two\n\nthree!", None) == (length, None)


def test_math_equivalence_compares_expressions() -> None:
    cases: list[tuple[str, Any, float]] = [
        # The example of math-verify's README.
        ("${1,2,3,4}$", r"${1,3} \cup {2,4}$", 1.0),
        (r"so it is $\boxed{0.5}$", r"\frac{1}{2}", 1.0),
        ("The answer is $(x+1)^2$.", "x^2+2x+1", 1.0),
        ("The answer is 7.", 7, 1.0),
        (r"$\sqrt{2}$", r"\sqrt{3}", 0.0),
        ("I do not know", "3", 0.0),
    ]
    metric = build_metric("m", {"type": "math_equivalence"}).metric
    assert isinstance(metric, ManyMetric)
    items = [Item(text, metric.accept(reference), {}) for text, reference, _ in cases]
    found = list(metric.judge_many(items))
    assert [getattr(one, "score", None) for one in found] == [score for *_, score in cases]


def test_an_answer_that_keeps_sympy_busy_costs_only_itself() -> None:
    metric = build_metric("m", {"type": "math_equivalence", "timeout_s": 4}).metric
    assert isinstance(metric, ManyMetric)
    texts = ["$1+1$", "$9^{9^{9^{9}}}$", "$2$"]
    found = list(metric.judge_many([Item(text, ("2",), {}) for text in texts]))
    assert [isinstance(one, Failure) or one.score for one in found] in (
        [1.0, True, 1.0],
        [1.0, 0.0, 1.0],
    )


def test_entropy_is_zero_for_one_answer_and_log_n_for_n_answers() -> None:
    rows = np.asarray([0, 0, 1, 1, 1, 1, 2, 2, 2, 2])
    texts = ["a", "a", "a", "b", "c", "d", "a", "a", "b", "b"]
    assert answer_entropies(texts, rows, 4)[:3].tolist() == [0.0, 2.0, 1.0]
    assert math.isnan(answer_entropies(texts, rows, 4)[3])
    shares = distinct_shares(split_words(["x x", "y z"]), np.asarray([0, 1]), 2, 1)
    assert shares[0].entropy == pytest.approx(1.5)


def test_self_bleu_is_high_where_samples_agree_and_low_where_they_differ() -> None:
    same, other = "the cat sat on the mat", "nobody ever saw any bird here"
    rows = np.asarray([0, 0, 1, 1, 2])
    found = self_bleu([same, same, same, other, same], rows, 3)
    assert found[0] == pytest.approx(100)
    assert found[1] < 10
    assert math.isnan(found[2])


def test_self_bleu_of_many_rows_is_that_of_an_even_draw() -> None:
    rows = np.repeat(np.arange(4000), 2)
    found = self_bleu(["a b"] * len(rows), rows, 4000)
    assert int((~np.isnan(found)).sum()) == 2000


def test_references_survive_json() -> None:
    assert judge({"type": "bleu"}, "1.50", json.loads("1.5")) is not None
