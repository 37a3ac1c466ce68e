"""How varied completions are, without a reference: distinct-n and the share of unique answers.

Tokens here are words, so that engines with different tokenizers can be compared: runs of letters,
digits and underscores, each ideograph or kana by itself, and each other character that is not
white space. Upper and lower case differ.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

TOKENISATION = (
    "words: runs of letters, digits and underscores; single ideographs and kana; "
    "every other character that is not white space; case kept"
)

_IDEOGRAPHS = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_IDEOGRAPHS}]|[^\W{_IDEOGRAPHS}]+|[^\w\s]")

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


class Words(NamedTuple):
    """Words of many texts as numbers: `codes` end to end, `text` the index of each one's text."""

    codes: Integers
    text: Integers
    vocabulary: int


class DistinctShare(NamedTuple):
    """distinct-n: of each row (NaN where it has no n-gram), and of all texts together.

    `entropy` is that of the n-grams of all texts together, in bits.
    """

    per_row: Floats
    corpus: float | None
    ngrams: int
    entropy: float | None


class _Numbers(dict[str, int]):
    """Numbers keys in the order in which they are first asked for."""

    def __missing__(self, key: str) -> int:
        self[key] = number = len(self)
        return number


def split_words(texts: Sequence[str]) -> Words:
    """Split texts into words and number the words in order of first appearance."""
    numbers = _Numbers()
    lengths = np.zeros(len(texts), dtype=np.int64)
    coded: list[NDArray[np.int32]] = []
    for index, text in enumerate(texts):
        codes = [numbers[word] for word in _WORD.findall(text)]
        lengths[index] = len(codes)
        coded.append(np.asarray(codes, dtype=np.int32))
    flat = np.concatenate(coded, dtype=np.int64) if coded else np.zeros(0, dtype=np.int64)
    return Words(flat, np.repeat(np.arange(len(texts), dtype=np.int64), lengths), len(numbers))


def distinct_shares(
    words: Words, rows: Integers, row_count: int, longest: int
) -> list[DistinctShare]:
    """Return distinct-1 … distinct-`longest`: different n-grams as a share of all n-grams.

    `rows` holds the row of each text, 0 … `row_count` - 1. N-grams do not cross from one text to
    the next. Measure: Li et al. 2016, "A Diversity-Promoting Objective Function for Neural
    Conversation Models", arXiv:1510.03055, section 5 (there over the corpus only).
    """
    shares: list[DistinctShare] = []
    grams = words.codes
    for n in range(1, longest + 1):
        if n > 1:
            pairs = grams[:-1] * words.vocabulary + words.codes[n - 1 :]
            grams = np.asarray(pd.factorize(pairs)[0], dtype=np.int64)
        first, last = words.text[: len(grams)], words.text[n - 1 :]
        whole = first == last
        shares.append(_distinct_share(grams[whole], rows[first[whole]], row_count))
    return shares


def _distinct_share(grams: Integers, rows: Integers, row_count: int) -> DistinctShare:
    if len(grams) == 0:
        return DistinctShare(np.full(row_count, np.nan), None, 0, None)
    kinds = int(grams.max()) + 1
    # Sorted, not hashed: three times faster on ten million n-grams.
    keys = np.sort(rows * kinds + grams)
    first_of_kind = np.append(True, keys[1:] != keys[:-1])
    distinct = np.bincount(keys[first_of_kind] // kinds, minlength=row_count)
    total = np.bincount(rows, minlength=row_count)
    per_row = np.divide(distinct, total, out=np.full(row_count, np.nan), where=total > 0)
    counts = np.bincount(grams)
    share = int((counts > 0).sum()) / len(grams)
    return DistinctShare(per_row, share, len(grams), _entropy(counts))


def _entropy(counts: NDArray[np.intp]) -> float:
    """Return the Shannon entropy in bits of a distribution given by counts."""
    shares = counts[counts > 0] / counts.sum()
    # Not -0.0 where all are one.
    return float(-(shares * np.log2(shares)).sum()) + 0.0


def unique_shares(answers: Sequence[str], rows: Integers, row_count: int) -> Floats:
    """Return different answers as a share of all answers of each row (NaN for a row with none).

    1 means that all samples of a row differ, 1/n that its n samples agree.
    """
    codes = np.asarray(pd.factorize(np.asarray(answers, dtype=object))[0], dtype=np.int64)
    return _distinct_share(codes, rows, row_count).per_row


def answer_entropies(answers: Sequence[str], rows: Integers, row_count: int) -> Floats:
    """Return the entropy in bits of the different answers of each row (NaN for a row with none).

    0 means that all samples of a row agree, log2 n that its n samples differ.
    """
    codes = np.asarray(pd.factorize(np.asarray(answers, dtype=object))[0], dtype=np.int64)
    kinds = int(codes.max(initial=0)) + 1
    keys, counts = np.unique(rows * kinds + codes, return_counts=True)
    owner = keys // kinds
    totals = np.bincount(rows, minlength=row_count)
    shares = counts / totals[owner]
    entropy = np.bincount(owner, weights=-shares * np.log2(shares), minlength=row_count)
    return np.where(totals > 0, entropy + 0.0, np.nan)
