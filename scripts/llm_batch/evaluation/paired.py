"""Differences between two runs that answered the same rows: interval, test, detectable effect.

The row is the unit here as everywhere: of each row the mean over its samples counts once, and both
runs' values of a row stay together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm
from statsmodels.stats.contingency_tables import mcnemar

from scripts.llm_batch.evaluation.statistics import LEVEL, RESAMPLES, SEED, bootstrap_mean

Floats = NDArray[np.float64]

POWER = 0.8
FLIPS = 9999
MCNEMAR = "McNemar, exact"
SIGN_FLIP = (
    f"paired permutation over rows ({FLIPS} sign flips, seed {SEED}; "
    "Hoeffding's bound where none of them reaches the difference)"
)
NO_DIFFERENCE = "none: no row differs"
BONETT_PRICE = "Bonett-Price for paired shares"
BOOTSTRAP = f"paired bootstrap over rows (percentile, {RESAMPLES} resamples, seed {SEED})"

_FEW_DISTINCT = 2048
_DRAWN_AT_ONCE = 1 << 24


@dataclass(frozen=True)
class Difference:
    """Mean of b - a over rows, with a two-sided interval and test.

    `minimum_detectable` is the true difference that a two-sided test at 1 - level would find with
    a chance of 80 %, given how much the rows' differences spread; None if no row differs. `low`
    and `high` are None where no interval can be given.
    """

    value: float
    low: float | None
    high: float | None
    interval: str | None
    p: float
    test: str
    minimum_detectable: float | None
    rows: int


def paired_difference(a: Floats, b: Floats, level: float = LEVEL) -> Difference:
    """Compare the values of the same rows; `ValueError` without rows or for unequal lengths.

    Where every value is 0 or 1 (one sample a row): McNemar's exact test and the interval of Bonett
    and Price. Else a permutation test that flips signs of the rows' differences, and a percentile
    bootstrap over rows.
    """
    if len(a) != len(b) or len(a) == 0:
        raise ValueError("paired values are of the same rows, at least one")
    difference = b - a
    mean = float(difference.mean())
    shares = is_binary(a) and is_binary(b)
    low, high, interval = difference_interval(difference, shares, level)
    if not difference.any():
        p, test = 1.0, NO_DIFFERENCE
    elif shares:
        table = [[0, int((difference > 0).sum())], [int((difference < 0).sum()), 0]]
        p, test = float(mcnemar(table, exact=True).pvalue), MCNEMAR
    else:
        p, test = sign_flip_p(difference), SIGN_FLIP
    detectable = minimum_detectable(difference, level)
    return Difference(mean, low, high, interval, p, test, detectable, len(a))


def is_binary(values: Floats) -> bool:
    """Whether every value is 0 or 1."""
    return bool(np.isin(values, (0.0, 1.0)).all())


def difference_interval(
    difference: Floats, shares: bool, level: float
) -> tuple[float | None, float | None, str | None]:
    """Return low, high and the method; `shares`: all differences are -1, 0 or 1."""
    if shares:
        return *bonett_price(difference, level), BONETT_PRICE
    if np.ptp(difference) == 0:
        return None, None, None
    return *bootstrap_mean(difference, level), BOOTSTRAP


def bonett_price(difference: Floats, level: float = LEVEL) -> tuple[float, float]:
    """Return the adjusted Wald interval for the difference of two paired shares.

    Bonett and Price 2012, "Adjusted Wald confidence interval for a difference of binomial
    proportions based on paired data", Journal of Educational and Behavioral Statistics 37(4).
    """
    rows = len(difference) + 2
    up = (float((difference > 0).sum()) + 1) / rows
    down = (float((difference < 0).sum()) + 1) / rows
    middle = up - down
    spread = norm.ppf((1 + level) / 2) * np.sqrt((up + down - middle**2) / rows)
    return max(-1.0, float(middle - spread)), min(1.0, float(middle + spread))


def sign_flip_p(difference: Floats, flips: int = FLIPS, seed: int = SEED) -> float:
    """Return the two-sided p value of the permutation test that flips signs of differences.

    The p value counts the observed sum among the drawn ones (Phipson and Smyth 2010), so it is
    never 0. Where no drawn sum reaches the observed one it is at most `hoeffding_bound`: otherwise
    nothing could be found among more than some 500 comparisons, which a sweep of 33 settings has.
    Rows whose differences have the same size are drawn together: how many of them keep
    their sign is binomial.
    """
    generator = np.random.default_rng(seed)
    sizes, counts = np.unique(np.abs(difference[difference != 0]), return_counts=True)
    observed = abs(float(difference.sum()))
    if len(sizes) <= _FEW_DISTINCT:
        kept = generator.binomial(counts, 0.5, size=(flips, len(sizes)))
        sums = (2 * kept - counts) @ sizes
    else:
        flat = difference[difference != 0]
        step = max(1, _DRAWN_AT_ONCE // len(flat))
        parts = [
            (2 * generator.integers(0, 2, size=(min(step, flips - start), len(flat))) - 1) @ flat
            for start in range(0, flips, step)
        ]
        sums = np.concatenate(parts)
    # Sums of the same numbers in another order differ in their last digits.
    tolerance = 1e-9 * max(1.0, float(np.abs(difference).sum()))
    reached = int((np.abs(sums) >= observed - tolerance).sum())
    p = (1 + reached) / (flips + 1)
    return p if reached else min(p, hoeffding_bound(difference))


def hoeffding_bound(difference: Floats) -> float:
    """Return what the p value of all sign flips cannot exceed: 2 exp(-s^2 / (2 sum of squares)).

    s is the sum of the differences. Hoeffding 1963, "Probability inequalities for sums of bounded
    random variables", theorem 2, for both sides.
    """
    squares = float((difference**2).sum())
    return min(1.0, 2 * math.exp(-(float(difference.sum()) ** 2) / (2 * squares)))


def minimum_detectable(difference: Floats, level: float = LEVEL) -> float | None:
    """Return the true mean difference that is found with a chance of 80 %.

    (z(1 - alpha / 2) + z(power)) standard errors, the normal approximation to the power of a
    paired test. None where the rows' differences do not spread.
    """
    rows = len(difference)
    if rows < 2 or np.ptp(difference) == 0:
        return None
    both = float(norm.ppf((1 + level) / 2) + norm.ppf(POWER))
    return both * float(difference.std(ddof=1)) / math.sqrt(rows)


def one_sided_bound(difference: Floats, shares: bool, level: float = LEVEL) -> float | None:
    """Return the lower bound that the mean difference lies above with a chance of `level`."""
    low, _, _ = difference_interval(difference, shares, 2 * level - 1)
    # No row differs from the others: the bound is the one value there is, if there are rows at all.
    return low if low is not None else (float(difference[0]) if len(difference) > 1 else None)


def rows_needed(difference: Floats, distance: float, level: float = LEVEL) -> int | None:
    """Return about how many rows a one-sided test needs to show a mean `distance` from its limit.

    With a chance of 80 %, by the normal approximation; None for a distance of 0 or less.
    """
    if distance <= 0 or len(difference) < 2:
        return None
    both = float(norm.ppf(level) + norm.ppf(POWER))
    return int(np.ceil((both * float(difference.std(ddof=1)) / distance) ** 2))
