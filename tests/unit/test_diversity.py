"""Diversity of completions, against counts made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from scripts.llm_batch.evaluation.diversity import distinct_shares, split_words, unique_shares


def rows_of(*numbers: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array(numbers, dtype=np.int64)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a b  a\n", 3),
        ("world's end_1!", 5),
        ("-42", 2),
        ("你好 world", 3),
        ("", 0),
    ],
)
def test_words_are_runs_of_letters_and_single_marks(text: str, words: int) -> None:
    assert len(split_words([text]).codes) == words


def test_upper_and_lower_case_are_different_words() -> None:
    assert split_words(["The the"]).vocabulary == 2


def test_distinct_shares_pool_the_samples_of_a_row() -> None:
    # Row 0: a b a b | a b; row 1: nothing; row 2: one word.
    shares = distinct_shares(split_words(["a b a b", "a b", "", "c"]), rows_of(0, 0, 1, 2), 3, 3)
    one, two, three = (share.per_row for share in shares)
    assert one == pytest.approx([2 / 6, np.nan, 1.0], nan_ok=True)
    assert two == pytest.approx([2 / 4, np.nan, np.nan], nan_ok=True)  # ab ba ab | ab
    assert three == pytest.approx([2 / 2, np.nan, np.nan], nan_ok=True)  # aba bab
    assert [share.corpus for share in shares] == pytest.approx([3 / 7, 2 / 4, 1.0])


def test_ngrams_do_not_cross_from_one_text_to_the_next() -> None:
    bigrams = distinct_shares(split_words(["a", "b"]), rows_of(0, 0), 1, 2)[1]
    assert (bigrams.corpus, bigrams.ngrams) == (None, 0)


def test_distinct_shares_equal_a_plain_count() -> None:
    generator = np.random.default_rng(0)
    texts = [
        " ".join(generator.choice(list("abcd"), size=generator.integers(0, 9))) for _ in range(60)
    ]
    rows = np.repeat(np.arange(20), 3)
    found = distinct_shares(split_words(texts), rows, 20, 3)
    for n in (1, 2, 3):
        for row in range(20):
            grams = [
                tuple(words[start : start + n])
                for words in (text.split() for text in texts[row * 3 : row * 3 + 3])
                for start in range(len(words) - n + 1)
            ]
            expected = len(set(grams)) / len(grams) if grams else np.nan
            assert found[n - 1].per_row[row] == pytest.approx(expected, nan_ok=True)


def test_unique_shares_count_different_texts_of_a_row() -> None:
    shares = unique_shares(["x", "x", "y", "z", "x"], rows_of(0, 0, 0, 0, 1), 3)
    assert shares == pytest.approx([3 / 4, 1.0, np.nan], nan_ok=True)
