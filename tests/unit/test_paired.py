"""Paired statistics: the values of scipy and statsmodels, and what they promise when simulated."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binomtest, permutation_test
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

from scripts.llm_batch.evaluation.paired import (
    BONETT_PRICE,
    MCNEMAR,
    NO_DIFFERENCE,
    SIGN_FLIP,
    bonett_price,
    difference_interval,
    hoeffding_bound,
    minimum_detectable,
    one_sided_bound,
    paired_difference,
    rows_needed,
    sign_flip_p,
)
from scripts.llm_batch.evaluation.statistics import bootstrap_mean, estimate_share, wilson

Floats = NDArray[np.float64]

SIMULATIONS = 2000
SLACK = 3 * np.sqrt(0.05 * 0.95 / SIMULATIONS)
"""Three standard errors of a share of 5 % over so many simulations: 1.5 points."""


def pairs(rows: int, better: float, worse: float, seed: int) -> Floats:
    """Return simulated differences of two paired shares, one simulation a line."""
    generator = np.random.default_rng(seed)
    draw = generator.random((SIMULATIONS, rows))
    return (draw < better).astype(np.float64) - (draw > 1 - worse)


def sampled(rows: int, shift: float, seed: int) -> Floats:
    """Return simulated differences of row means over four samples, spread unequally by row."""
    generator = np.random.default_rng(seed)
    skill = generator.beta(2, 1, size=(SIMULATIONS, rows)) * (1 - shift)
    a = generator.binomial(4, skill) / 4
    b = generator.binomial(4, skill + shift) / 4
    return np.asarray(b - a, dtype=np.float64)


def split(difference: Floats) -> tuple[Floats, Floats]:
    """Return zeros and ones with these differences."""
    return (difference < 0).astype(np.float64), (difference > 0).astype(np.float64)


def test_single_samples_are_compared_by_mcnemar() -> None:
    difference = np.repeat([1.0, -1.0, 0.0], [15, 4, 81])
    found = paired_difference(*split(difference))
    assert (found.test, found.interval) == (MCNEMAR, BONETT_PRICE)
    assert found.p == pytest.approx(mcnemar([[0, 15], [4, 0]], exact=True).pvalue)
    assert found.p == pytest.approx(binomtest(4, 19).pvalue)
    assert found.value == pytest.approx(0.11)
    # (16 - 5) / 102 ± 1.96 · sqrt((21/102 - (11/102)²) / 102), by hand.
    assert (found.low, found.high) == pytest.approx((0.0222908, 0.1933955), abs=1e-4)


def test_several_samples_are_compared_by_permutation_as_scipy_does() -> None:
    difference = sampled(40, 0.1, 5)[0]
    a, b = np.full(40, 0.5), 0.5 + difference
    found = paired_difference(a, b)
    assert found.test == SIGN_FLIP
    wanted = permutation_test(
        (a, b),
        lambda x, y, axis: np.mean(y - x, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=9999,
        rng=np.random.default_rng(1),
    )
    assert found.p == pytest.approx(float(wanted.pvalue), abs=0.02)


def test_differences_that_all_differ_are_drawn_one_by_one() -> None:
    difference = np.random.default_rng(0).normal(0.1, 1, 3000)
    assert sign_flip_p(difference) < 0.001
    assert sign_flip_p(difference - difference.mean()) > 0.9


def test_the_bound_of_a_clear_difference_is_above_the_exact_p_of_all_flips() -> None:
    signs = np.asarray(list(itertools.product((-1, 1), repeat=14)))
    generator = np.random.default_rng(47)
    for shift in (0.0, 0.5, 3.0):
        for _ in range(20):
            difference = generator.normal(shift, 1, 14)
            reached = np.abs(signs @ difference) >= abs(difference.sum()) - 1e-9
            assert hoeffding_bound(difference) >= reached.mean()


def test_a_clear_difference_is_found_among_thousands_of_comparisons() -> None:
    clear = np.random.default_rng(53).normal(1, 0.5, 200)
    p = [sign_flip_p(clear), *np.linspace(0.01, 1, 1999)]
    assert multipletests(p, method="holm")[1][0] < 1e-6
    # A p value that the drawn flips resolve stays theirs.
    assert sign_flip_p(np.asarray([3.0, 1, 2, -1, 2])) > 0.05


def test_equal_runs_have_no_difference_and_no_detectable_effect() -> None:
    found = paired_difference(np.asarray([0.5, 1.0]), np.asarray([0.5, 1.0]))
    assert (found.value, found.p, found.test) == (0, 1, NO_DIFFERENCE)
    assert (found.low, found.high, found.minimum_detectable) == (None, None, None)


def test_values_of_different_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="of the same rows"):
        paired_difference(np.zeros(2), np.zeros(3))
    with pytest.raises(ValueError, match="at least one"):
        paired_difference(np.zeros(0), np.zeros(0))


def covered(lows: Floats, highs: Floats, truth: float) -> float:
    return float(((lows <= truth) & (truth <= highs)).mean())


@pytest.mark.parametrize(
    ("rows", "better", "worse"),
    [(30, 0.2, 0.1), (100, 0.1, 0.1), (100, 0.05, 0.01), (1000, 0.03, 0.02)],
)
def test_the_interval_of_paired_shares_covers_the_truth(
    rows: int, better: float, worse: float
) -> None:
    ends = np.asarray([bonett_price(one) for one in pairs(rows, better, worse, rows)])
    assert 0.95 - SLACK <= covered(ends[:, 0], ends[:, 1], better - worse) <= 0.99


def test_the_interval_of_paired_means_covers_the_truth() -> None:
    shift = 0.1
    ends = np.asarray(
        [difference_interval(one, False, 0.95)[:2] for one in sampled(100, shift, 7)],
        dtype=np.float64,
    )
    # A percentile bootstrap of 100 rows covers a little less than it says.
    assert abs(covered(ends[:, 0], ends[:, 1], shift) - 0.945) <= SLACK


def test_the_intervals_of_one_run_cover_the_truth() -> None:
    generator = np.random.default_rng(3)
    single = generator.binomial(100, 0.9, SIMULATIONS)
    ends = np.asarray([wilson(float(count), 100) for count in single])
    assert abs(covered(ends[:, 0], ends[:, 1], 0.9) - 0.95) <= SLACK + 0.01
    skill = generator.beta(2, 1, size=(SIMULATIONS, 100))
    means = generator.binomial(4, skill) / 4
    ends = np.asarray([bootstrap_mean(one) for one in means])
    assert abs(covered(ends[:, 0], ends[:, 1], 2 / 3) - 0.945) <= SLACK
    assert estimate_share(means[0]).low == pytest.approx(ends[0, 0])


def test_mcnemar_finds_nothing_in_five_percent_of_equal_runs_at_most() -> None:
    p = [paired_difference(*split(one)).p for one in pairs(100, 0.1, 0.1, 11)[:SIMULATIONS]]
    assert float((np.asarray(p) < 0.05).mean()) <= 0.05 + SLACK


def test_the_permutation_test_errs_as_often_as_it_says() -> None:
    steps = np.asarray([sign_flip_p(one, flips=999) for one in sampled(60, 0.0, 13)])
    # Means of four samples take few values, so that sums tie, and ties count against a find.
    assert 0.02 <= float((steps <= 0.05).mean()) <= 0.05 + SLACK
    smooth = np.random.default_rng(41).normal(size=(SIMULATIONS, 30))
    found = np.asarray([sign_flip_p(one, flips=999) for one in smooth])
    assert abs(float((found <= 0.05).mean()) - 0.05) <= SLACK


def test_the_detectable_difference_is_that_of_statsmodels() -> None:
    difference = sampled(100, 0.0, 17)[0]
    effect = TTestPower().solve_power(nobs=100, alpha=0.05, power=0.8)
    wanted = float(np.ravel(effect)[0]) * difference.std(ddof=1)
    assert minimum_detectable(difference) == pytest.approx(wanted, rel=0.02)


def test_the_detectable_difference_is_found_four_times_in_five() -> None:
    spread = minimum_detectable(sampled(100, 0.0, 17)[0])
    assert spread is not None
    truth = float(np.mean([minimum_detectable(one) or 0 for one in sampled(100, 0.0, 19)[:200]]))
    assert truth == pytest.approx(spread, rel=0.25)
    shifted = sampled(100, truth, 23)
    p = np.asarray([sign_flip_p(one, flips=999) for one in shifted])
    assert abs(float((p <= 0.05).mean()) - 0.8) <= 0.06


def test_a_one_sided_bound_lies_below_the_truth_as_often_as_it_says() -> None:
    bounds = [one_sided_bound(one, True) for one in pairs(200, 0.1, 0.1, 29)]
    below = np.asarray([bound is not None and bound <= 0 for bound in bounds])
    assert abs(float(below.mean()) - 0.95) <= SLACK


def test_rows_that_are_needed_shrink_with_the_distance() -> None:
    difference = sampled(100, 0.0, 31)[0]
    near, far = rows_needed(difference, 0.01), rows_needed(difference, 0.02)
    assert near is not None
    assert far is not None
    assert near == pytest.approx(4 * far, rel=0.02)
    assert rows_needed(difference, 0.0) is None
