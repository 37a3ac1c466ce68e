"""How far verdicts agree: between the samples of a judge, and between two runs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from statsmodels.stats.inter_rater import cohens_kappa, fleiss_kappa

from scripts.llm_batch.evaluation.statistics import LEVEL, RESAMPLES, SEED, Estimate

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

KAPPA_BOOTSTRAP = f"bootstrap over rows (percentile, {RESAMPLES} resamples, seed {SEED})"
_DRAWN_AT_ONCE = 1 << 24


def fleiss_estimate(counts: Integers, level: float = LEVEL) -> Estimate | None:
    """Return Fleiss' kappa of subjects × categories, each subject rated equally often.

    Fleiss 1971 (statsmodels); interval by a bootstrap over subjects. None where nobody could
    disagree: fewer than two subjects, ratings, or categories in use.
    """
    ratings = int(counts.sum(axis=1).max(initial=0))
    if len(counts) < 2 or ratings < 2 or (counts.sum(axis=0) > 0).sum() < 2:
        return None
    kappa = float(fleiss_kappa(counts, method="fleiss"))
    drawn = _drawn_kappas(counts, ratings)
    low, high = np.nanquantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(kappa, float(low), float(high), KAPPA_BOOTSTRAP, len(counts))


def _drawn_kappas(counts: Integers, ratings: int) -> Floats:
    """Return the kappa of each resample; NaN where all its ratings are of one category."""
    generator = np.random.default_rng(SEED)
    rows = len(counts)
    agreed = (counts * (counts - 1)).sum(axis=1) / (ratings * (ratings - 1))
    step = max(1, _DRAWN_AT_ONCE // rows)
    parts = []
    for start in range(0, RESAMPLES, step):
        size = min(step, RESAMPLES - start)
        weights = generator.multinomial(rows, np.full(rows, 1 / rows), size=size)
        shares = weights @ counts / (rows * ratings)
        chance = (shares**2).sum(axis=1)
        observed = weights @ agreed / rows
        with np.errstate(invalid="ignore", divide="ignore"):
            parts.append(np.where(chance < 1, (observed - chance) / (1 - chance), np.nan))
    return np.concatenate(parts)


def verdict_counts(subjects: Sequence[object], answers: Sequence[str | None]) -> Integers:
    """Return subjects × categories: how often each got each verdict; None is a category.

    Subjects that were rated less often than others are left out.
    """
    table = pd.crosstab(
        pd.Series(list(subjects), dtype=object),
        pd.Series(["" if answer is None else f"={answer}" for answer in answers], dtype=object),
    ).to_numpy(dtype=np.int64)
    totals = table.sum(axis=1)
    counts: Integers = table[totals == totals.max(initial=0)]
    return counts


def cohen(a: Sequence[str | None], b: Sequence[str | None]) -> dict[str, float | None]:
    """Return raw agreement of two runs' answers, and Cohen's kappa with statsmodels' interval.

    Cohen 1960. None (no answer) is a category of its own. Kappa is None where both always gave one
    and the same answer.
    """
    left, right = (["" if x is None else f"={x}" for x in side] for side in (a, b))
    agreement = float(np.mean([x == y for x, y in zip(left, right, strict=True)]))
    found: dict[str, float | None] = {"agreement": agreement}
    found |= dict.fromkeys(("kappa", "kappa_low", "kappa_high"))
    kinds = sorted({*left, *right})
    if len(kinds) < 2:
        return found
    table = np.zeros((len(kinds), len(kinds)), dtype=np.int64)
    np.add.at(table, (np.searchsorted(kinds, left), np.searchsorted(kinds, right)), 1)
    result = cohens_kappa(table)
    values = (result.kappa, result.kappa_low, result.kappa_upp)
    for name, value in zip(("kappa", "kappa_low", "kappa_high"), values, strict=True):
        found[name] = float(value) if np.isfinite(value) else None
    return found
