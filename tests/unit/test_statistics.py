"""Estimates and intervals, against other ways of computing the same."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.stats import bootstrap

from scripts.llm_batch.evaluation.statistics import (
    BOOTSTRAP,
    LEVEL,
    WILSON,
    WILSON_CONSERVATIVE,
    bootstrap_mean,
    estimate_mean,
    estimate_share,
    majority_score,
    pass_at_k,
    pass_ks,
    wilson,
)


@pytest.mark.parametrize("samples", [1, 2, 3, 5, 7])
def test_pass_at_k_equals_the_share_of_all_subsets_with_a_correct_sample(samples: int) -> None:
    for correct, k in itertools.product(range(samples + 1), range(1, samples + 1)):
        outcomes = [1] * correct + [0] * (samples - correct)
        subsets = list(itertools.combinations(outcomes, k))
        expected = sum(any(subset) for subset in subsets) / len(subsets)
        found = pass_at_k(np.array([samples]), np.array([correct]), k)
        assert found[0] == pytest.approx(expected, abs=1e-12)


def test_pass_at_k_keeps_precision_with_many_samples() -> None:
    # 1 - C(999, 500) / C(1000, 500) = 1/2 exactly; the binomials overflow a double.
    assert pass_at_k(np.array([1000]), np.array([1]), 500)[0] == pytest.approx(0.5, abs=1e-9)


@pytest.mark.parametrize(("samples", "correct", "k"), [(3, 1, 4), (3, 1, 0), (3, 4, 1)])
def test_pass_at_k_rejects_what_has_no_meaning(samples: int, correct: int, k: int) -> None:
    with pytest.raises(ValueError, match="pass@k needs"):
        pass_at_k(np.array([samples]), np.array([correct]), k)


@pytest.mark.parametrize(
    ("samples", "ks"),
    [(1, [1]), (2, [1, 2]), (4, [1, 2, 4]), (6, [1, 2, 4, 6]), (9, [1, 2, 4, 8, 9])],
)
def test_a_pass_curve_has_powers_of_two_and_n(samples: int, ks: list[int]) -> None:
    assert pass_ks(samples) == ks


@pytest.mark.parametrize(
    ("successes", "rows", "low", "high"),
    [
        # Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_intervals_are_the_published_ones(
    successes: int, rows: int, low: float, high: float
) -> None:
    assert wilson(successes, rows) == pytest.approx((low, high), abs=5e-5)


def test_rows_of_zero_and_one_have_a_wilson_interval() -> None:
    found = estimate_share(np.array([1.0] * 81 + [0.0] * 182))
    assert (found.value, found.interval, found.rows) == (81 / 263, WILSON, 263)
    assert (found.low, found.high) == wilson(81, 263)


@pytest.mark.parametrize(
    ("value", "method"), [(0.0, WILSON), (1.0, WILSON), (0.5, WILSON_CONSERVATIVE)]
)
def test_equal_rows_do_not_have_an_interval_of_no_width(value: float, method: str) -> None:
    found = estimate_share(np.full(10, value))
    assert found.interval == method
    assert found.low is not None and found.high is not None
    assert found.low <= value <= found.high and found.high - found.low > 0.2


def test_rows_between_zero_and_one_have_a_bootstrap_interval() -> None:
    found = estimate_share(np.array([0.25, 0.5, 1.0, 0.0] * 5))
    assert found.interval == BOOTSTRAP
    assert found.low is not None and found.high is not None
    assert 0 < found.low < found.value < found.high < 1


def test_a_mean_of_equal_rows_has_no_interval() -> None:
    found = estimate_mean(np.full(5, 7.0))
    assert (found.value, found.low, found.high, found.interval) == (7.0, None, None, None)


@pytest.mark.parametrize("estimate", [estimate_share, estimate_mean])
def test_no_rows_give_no_estimate(estimate: object) -> None:
    assert callable(estimate)
    with pytest.raises(ValueError, match="no rows"):
        estimate(np.array([]))


def test_the_bootstrap_by_counts_agrees_with_scipy() -> None:
    values = np.random.default_rng(1).choice([0.0, 0.25, 0.5, 1.0], size=200)
    ours = bootstrap_mean(values, resamples=20_000)
    scipy = bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    # Two sets of 20 000 resamples: their quantiles differ by about 0.0005 by chance.
    assert ours == pytest.approx((scipy.low, scipy.high), abs=0.003)


def test_the_bootstrap_of_many_distinct_values_agrees_with_the_normal_interval() -> None:
    values = np.random.default_rng(3).normal(10.0, 2.0, size=3000)
    low, high = bootstrap_mean(values)
    half = 1.959964 * values.std() / np.sqrt(len(values))
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.01)


def test_the_bootstrap_is_the_same_every_time() -> None:
    values = np.random.default_rng(4).random(3000)
    assert bootstrap_mean(values) == bootstrap_mean(values)


def test_bootstrap_intervals_over_rows_cover_the_truth() -> None:
    # Rows differ in difficulty (beta) and have 4 samples; the truth is the mean difficulty, 0.6.
    generator = np.random.default_rng(5)
    simulations, rows, samples = 600, 100, 4
    covered = 0
    for _ in range(simulations):
        difficulty = generator.beta(3.0, 2.0, size=rows)
        found = estimate_share(generator.binomial(samples, difficulty) / samples)
        assert found.low is not None and found.high is not None
        covered += found.low <= 0.6 <= found.high
    # Standard error of the coverage 0.009; percentile intervals of 100 rows cover about 0.945.
    assert abs(covered / simulations - LEVEL) < 0.03


def test_intervals_that_ignored_rows_would_not_cover() -> None:
    # What the rows are for: with equal samples in a row, all samples count for no more than one.
    generator = np.random.default_rng(6)
    truth, rows, samples = 0.5, 60, 8
    naive = 0
    for _ in range(200):
        correct = generator.binomial(1, truth, size=rows) * samples
        low, high = wilson(float(correct.sum()), rows * samples)
        naive += low <= truth <= high
    assert naive / 200 < 0.8


@pytest.mark.parametrize(
    ("answers", "scores", "expected"),
    [
        (["4", "4", "5"], {"4": 1.0, "5": 0.0}, 1.0),
        (["4", "5", "5"], {"4": 1.0, "5": 0.0}, 0.0),
        (["4", "5"], {"4": 1.0, "5": 0.0}, 0.5),
        (["4", "5", "6"], {"4": 1.0, "5": 0.0, "6": 0.0}, 1 / 3),
        (["4", "4", "5", "5", "6"], {"4": 1.0, "5": 0.0, "6": 0.0}, 0.5),
        (["5", "5", "4", "4", "4"], {"4": 1.0, "5": 0.0}, 1.0),
        ([None, None, "4"], {"4": 1.0}, 1.0),
        ([None, None], {}, 0.0),
    ],
)
def test_a_majority_takes_the_mean_of_tied_answers(
    answers: list[str | None], scores: dict[str, float], expected: float
) -> None:
    assert majority_score(answers, scores) == pytest.approx(expected)
    assert majority_score(answers[::-1], scores) == majority_score(answers, scores)
