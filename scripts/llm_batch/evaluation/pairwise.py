"""Verdicts of a judge that saw two runs' completions side by side, each pair in both orders."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

from scripts.llm_batch.evaluation.scoring import Completions, Scores

Floats = NDArray[np.float64]

LETTERS = {"ab": ("A", "B"), "ba": ("B", "A")}
"""By order: the letters under which the first and the second of the runs are shown."""


def preferences(completions: Completions, scores: Scores) -> Floats:
    """Return for each completion 1 if the verdict is for the first run, 0 for the second.

    0.5 for any other answer: a tie, or no verdict. NaN for a completion without a score.
    """
    found = np.full(len(completions.order), np.nan)
    for index, order in enumerate(completions.order):
        if order not in LETTERS or np.isnan(scores.score[index]):
            continue
        first, second = LETTERS[order]
        answer = (scores.answer[index] or "").strip().upper()
        found[index] = 1.0 if answer == first else 0.0 if answer == second else 0.5
    return found


def row_means(values: Floats, groups: NDArray[np.int64], row_count: int) -> Floats:
    """Return the mean of each judged row over its values that are not NaN; rows without leave."""
    known = ~np.isnan(values)
    counts = np.bincount(groups[known], minlength=row_count)
    totals = np.bincount(groups[known], weights=values[known], minlength=row_count)
    means: Floats = totals[counts > 0] / counts[counts > 0]
    return means


def first_position(completions: Completions, preferred: Floats) -> Floats:
    """Return 1 where the verdict is for what was shown first, 0 for the second, NaN for neither."""
    decided = np.isin(preferred, (0.0, 1.0))
    is_ab = np.asarray([order == "ab" for order in completions.order])
    return np.where(decided, np.where(is_ab, preferred, 1 - preferred), np.nan)


def consistency(completions: Completions, scores: Scores, preferred: Floats) -> Floats:
    """Return for each completion of order ab whether order ba got the same verdict.

    NaN elsewhere, and where one of the two has no answer. The judge's samples go by number.
    """
    places: dict[tuple[str, int], dict[str, int]] = defaultdict(dict)
    for index, order in enumerate(completions.order):
        pair = completions.row[index].rpartition("/")[0]
        if order is not None and scores.answer[index] is not None:
            places[pair, completions.sample[index]][order] = index
    found = np.full(len(preferred), np.nan)
    for both in places.values():
        if len(both) == 2 and not np.isnan(preferred[list(both.values())]).any():
            found[both["ab"]] = float(preferred[both["ab"]] == preferred[both["ba"]])
    return found
