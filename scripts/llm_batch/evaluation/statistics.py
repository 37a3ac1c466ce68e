"""Estimates over the rows of a run, each with its interval and how that was found.

The row is the unit of sampling throughout: samples of one row share a prompt, so they are not
independent, and every interval describes what other rows of the same kind would give.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import bootstrap
from statsmodels.stats.proportion import proportion_confint

LEVEL = 0.95
RESAMPLES = 2000
SEED = 0
WILSON = "wilson"
WILSON_CONSERVATIVE = "wilson (all rows equal)"
BOOTSTRAP = f"bootstrap over rows (percentile, {RESAMPLES} resamples, seed {SEED})"

# Rows of a run take few distinct scores; up to here drawing their counts is faster than indices.
_FEW_DISTINCT = 2048
# Indices drawn at once: 16 million of 8 bytes.
_DRAWN_AT_ONCE = 1 << 24

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Estimate:
    """A mean over rows; `low` and `high` bound it at the level asked for, by method `interval`.

    All three are None where no interval can be given.
    """

    value: float
    low: float | None
    high: float | None
    interval: str | None
    rows: int


def wilson(successes: float, rows: int, level: float = LEVEL) -> tuple[float, float]:
    """Return the Wilson score interval of a share (statsmodels); `successes` may be fractional."""
    low, high = proportion_confint(successes, rows, alpha=1 - level, method="wilson")
    # At 0 and at `rows` successes rounding leaves an end a hair outside its exact value.
    return (0.0 if successes == 0 else float(low)), (1.0 if successes == rows else float(high))


def estimate_share(values: Floats, level: float = LEVEL) -> Estimate:
    """Return the mean of one value in [0, 1] per row, with an interval.

    Wilson where every row gives 0 or 1 (one sample a row, pass@n, a vote without ties). Otherwise
    a bootstrap over rows, unless all rows are equal: then no resample differs and the bootstrap
    would claim certainty, so Wilson on the rows is used, which is conservative for values between
    0 and 1 (none has more variance than p(1-p)). Raises `ValueError` without rows.
    """
    if len(values) == 0:
        raise ValueError("no rows to estimate from")
    mean = float(values.mean())
    if np.isin(values, (0.0, 1.0)).all() or np.ptp(values) == 0:
        method = WILSON if values[0] in (0.0, 1.0) else WILSON_CONSERVATIVE
        return Estimate(mean, *wilson(float(values.sum()), len(values), level), method, len(values))
    return Estimate(mean, *bootstrap_mean(values, level), BOOTSTRAP, len(values))


def estimate_mean(values: Floats, level: float = LEVEL) -> Estimate:
    """Return the mean of one unbounded value per row, with a bootstrap interval.

    There is no interval where all rows are equal. Raises `ValueError` without rows.
    """
    if len(values) == 0:
        raise ValueError("no rows to estimate from")
    mean = float(values.mean())
    if np.ptp(values) == 0:
        return Estimate(mean, None, None, None, len(values))
    return Estimate(mean, *bootstrap_mean(values, level), BOOTSTRAP, len(values))


def bootstrap_mean(
    values: Floats, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = SEED
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of the mean of one value per row.

    With few distinct values the resampled counts of each are drawn from their multinomial law,
    which is the bootstrap's own distribution at a fraction of the cost; else `scipy.stats`.
    """
    generator = np.random.default_rng(seed)
    distinct, counts = np.unique(values, return_counts=True)
    if len(distinct) <= _FEW_DISTINCT:
        drawn = generator.multinomial(len(values), counts / len(values), size=resamples)
        means = drawn @ distinct / len(values)
        low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
        return float(low), float(high)
    found = bootstrap(
        (values,),
        np.mean,
        n_resamples=resamples,
        confidence_level=level,
        method="percentile",
        vectorized=True,
        batch=max(1, _DRAWN_AT_ONCE // len(values)),
        rng=generator,
    )
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def pass_at_k(samples: Integers, correct: Integers, k: int) -> Floats:
    """Return the unbiased pass@k of each row: 1 - C(n - c, k) / C(n, k).

    `samples` is n and `correct` is c of each row; every n must be at least k. The chance that k
    of the row's n samples, drawn without replacement, hold a correct one. Estimator and its
    stable product form: Chen et al. 2021, "Evaluating Large Language Models Trained on Code",
    arXiv:2107.03374, section 2.1.
    """
    if k < 1 or (samples < k).any() or (correct > samples).any():
        raise ValueError("pass@k needs 1 <= k <= n and c <= n in every row")
    wrong = (samples - correct).astype(np.float64)
    missed = np.ones(len(samples))
    for drawn in range(k):
        missed *= np.maximum(wrong - drawn, 0.0) / (samples - drawn)
    return 1.0 - missed


def pass_ks(samples: int) -> list[int]:
    """Return the k of a pass@k curve: the powers of two below n, and n."""
    return [1 << power for power in range(samples.bit_length()) if 1 << power < samples] + [samples]


def majority_score(answers: Sequence[str | None], scores: Mapping[str, float]) -> float:
    """Return the score of the most frequent answer of one row's samples.

    Answers that tie for the most votes count with the mean of their scores: the expected score of
    a fair draw among them, without a draw. None (no answer) does not vote; with no vote at all
    the score is 0. `scores` holds the score of every answer.
    """
    votes: dict[str, int] = {}
    for answer in answers:
        if answer is not None:
            votes[answer] = votes.get(answer, 0) + 1
    if not votes:
        return 0.0
    most = max(votes.values())
    winners = sorted(answer for answer, count in votes.items() if count == most)
    return sum(scores[answer] for answer in winners) / len(winners)
