"""Statistics of a run: what its scores come to, and what needs no reference at all.

Everything here depends on the completions and the settings only: same input, same numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scripts.llm_batch.evaluation.diversity import (
    answer_entropies,
    distinct_shares,
    split_words,
    unique_shares,
)
from scripts.llm_batch.evaluation.metrics import NamedMetric
from scripts.llm_batch.evaluation.scoring import Completions, Scores
from scripts.llm_batch.evaluation.self_bleu import self_bleu
from scripts.llm_batch.evaluation.statistics import (
    Estimate,
    estimate_mean,
    estimate_share,
    majority_score,
    pass_at_k,
    pass_ks,
)

LONGEST_NGRAM = 3
SACREBLEU = "bootstrap over completions (sacrebleu, 1000 resamples, seed 12345)"
Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Value:
    """A figure of metrics.json; `metric` is None for what needs no reference.

    `rows` and `completions` count what it was computed from, `samples` is the most that a row has.
    """

    metric: str | None
    statistic: str
    k: int | None
    value: float
    low: float | None
    high: float | None
    interval: str | None
    rows: int
    samples: int
    completions: int


@dataclass(frozen=True)
class Absent:
    """A figure that could not be computed, and why."""

    metric: str | None
    statistic: str
    reason: str


Figure = Value | Absent


def metric_values(completions: Completions, metric: NamedMetric, scores: Scores) -> list[Figure]:
    """Return the statistics of one metric: accuracy, pass@k, majority@n, or the mean score."""
    scored = ~np.isnan(scores.score)
    main = "accuracy" if metric.metric.binary else "mean_score"
    if not scored.any():
        return [Absent(metric.name, main, "no completion has a score")]
    rows, counts = np.unique(completions.group[scored], return_counts=True)
    totals = np.bincount(
        completions.group[scored], weights=scores.score[scored], minlength=completions.row_count
    )[rows]
    samples = int(counts.max())

    def value(statistic: str, k: int | None, estimate: Estimate, used: Mask) -> Value:
        return value_of(metric.name, statistic, k, estimate, samples, int(counts[used].sum()))

    every = np.ones(len(rows), dtype=np.bool_)
    best = _best_scores(completions, scores, scored)
    if not metric.metric.binary:
        figures: list[Figure] = [value(main, None, estimate_mean(totals / counts), every)]
        if len(best):
            figures.append(_best_value(metric, estimate_mean(best), counts))
        return figures + _corpus_score(metric, scores, samples, len(scores.score[scored]))
    figures = [value(main, None, estimate_share(totals / counts), every)]
    for k in pass_ks(samples):
        enough = counts >= k
        passed = pass_at_k(counts[enough], totals[enough].astype(np.int64), k)
        figures.append(value("pass@k", k, estimate_share(passed), enough))
    if samples > 1 and (reason := _no_votes(metric, scores)):
        figures.append(Absent(metric.name, "majority@n", reason))
    elif samples > 1:
        votes = _majority_scores(completions.group[scored], scores, np.flatnonzero(scored))
        figures.append(value("majority@n", samples, estimate_share(votes), every))
    if len(best):
        figures.append(_best_value(metric, estimate_share(best), counts))
    return figures


def _best_scores(completions: Completions, scores: Scores, scored: Mask) -> Floats:
    """Return the score of each row's likeliest sample, of rows with several that have one."""
    usable = np.flatnonzero(scored & ~np.isnan(completions.logprob))
    groups = completions.group[usable]
    several = np.bincount(groups, minlength=completions.row_count) > 1
    highest = np.full(completions.row_count, -np.inf)
    np.maximum.at(highest, groups, completions.logprob[usable])
    best = usable[(completions.logprob[usable] == highest[groups]) & several[groups]]
    totals = np.bincount(
        completions.group[best], weights=scores.score[best], minlength=completions.row_count
    )
    counts = np.bincount(completions.group[best], minlength=completions.row_count)
    means: Floats = totals[counts > 0] / counts[counts > 0]
    return means


def _best_value(metric: NamedMetric, estimate: Estimate, counts: NDArray[np.intp]) -> Value:
    several = counts[counts > 1]
    samples = int(several.max())
    return value_of(metric.name, "best@n", samples, estimate, samples, int(several.sum()))


def _corpus_score(
    metric: NamedMetric, scores: Scores, samples: int, completions: int
) -> list[Figure]:
    if scores.corpus is None:
        return []
    value, low, high = scores.corpus
    estimate = Estimate(value, low, high, SACREBLEU, completions)
    if samples > 1:
        # sacrebleu would draw samples of one row as if they were independent.
        estimate = Estimate(value, None, None, None, completions)
    return [value_of(metric.name, "corpus_score", None, estimate, samples, completions)]


def _no_votes(metric: NamedMetric, scores: Scores) -> str | None:
    """Return why samples cannot vote; None if they can.

    A metric of the user's may score without an answer: then 0 for a row without votes says nothing.
    """
    if not metric.metric.votes:
        return f"{metric.type} takes no answer that samples could vote on"
    if all(answer is None for answer in scores.answer):
        return f"{metric.name} gave no answer that samples could vote on"
    return None


def _majority_scores(groups: Integers, scores: Scores, indices: NDArray[np.intp]) -> Floats:
    """Return the score of each row's majority answer, in the order of the row numbers."""
    answers: dict[int, list[str | None]] = {}
    worth: dict[int, dict[str, float]] = {}
    for group, index in zip(groups.tolist(), indices.tolist(), strict=True):
        answer = scores.answer[index]
        answers.setdefault(group, []).append(answer)
        if answer is not None:
            worth.setdefault(group, {})[answer] = float(scores.score[index])
    return np.asarray(
        [majority_score(answers[group], worth.get(group, {})) for group in sorted(answers)]
    )


def run_values(completions: Completions) -> list[Figure]:
    """Return what needs no reference: distinct-n, unique answers, length, truncation.

    Errors are left out. Measures within a row need at least two answered samples of it.
    """
    answered = np.flatnonzero(completions.answered)
    if len(answered) == 0:
        return [Absent(None, "mean_completion_tokens", "no completion without an error")]
    groups = completions.group[answered]
    texts = [completions.text[index] for index in answered]
    counts = np.bincount(groups, minlength=completions.row_count)
    truncated = np.asarray([completions.finish_reason[index] == "length" for index in answered])

    def row_means(values: NDArray[Any]) -> Floats:
        totals = np.bincount(groups, weights=values, minlength=completions.row_count)
        means: Floats = totals[counts > 0] / counts[counts > 0]
        return means

    samples, total = int(counts.max()), len(answered)
    length = estimate_mean(row_means(completions.tokens[answered]))
    figures: list[Figure] = [
        value_of(None, "mean_completion_tokens", None, length, samples, total),
        value_of(None, "truncated", None, estimate_share(row_means(truncated)), samples, total),
    ]
    shared = {"unique_answers": unique_shares(texts, groups, completions.row_count)}
    shares = distinct_shares(split_words(texts), groups, completions.row_count, LONGEST_NGRAM)
    for n, share in enumerate(shares, start=1):
        shared[f"distinct-{n}"] = share.per_row
        figures.append(_corpus_value(f"corpus-distinct-{n}", n, share.corpus, counts))
        figures.append(_corpus_value(f"corpus-entropy-{n}", n, share.entropy, counts))
    figures += [_row_value(name, values, counts) for name, values in shared.items()]
    unbounded = {
        "answer_entropy": answer_entropies(texts, groups, completions.row_count),
        "self_bleu": self_bleu(texts, groups, completions.row_count),
    }
    return figures + [
        _row_value(name, values, counts, estimate_mean) for name, values in unbounded.items()
    ]


def _corpus_value(name: str, n: int, share: float | None, counts: NDArray[np.intp]) -> Figure:
    if share is None:
        return Absent(None, name, f"no completion has {n} words")
    # Resampling rows repeats their n-grams, so a bootstrap would be biased: no interval.
    estimate = Estimate(share, None, None, None, int((counts > 0).sum()))
    return value_of(None, name, None, estimate, int(counts.max()), int(counts.sum()))


def _row_value(
    name: str,
    values: Floats,
    counts: NDArray[np.intp],
    estimate_of: Callable[[Floats], Estimate] = estimate_share,
) -> Figure:
    used = (counts > 1) & ~np.isnan(values)
    if not used.any():
        reason = "no row has two samples" if counts.max() < 2 else "completions are too short"
        return Absent(None, name, reason)
    estimate = estimate_of(values[used])
    return value_of(None, name, None, estimate, int(counts[used].max()), int(counts[used].sum()))


def value_of(
    metric: str | None,
    statistic: str,
    k: int | None,
    estimate: Estimate,
    samples: int,
    completions: int,
) -> Value:
    """Return an estimate as a figure of metrics.json; the arguments are its other columns."""
    return Value(
        metric=metric,
        statistic=statistic,
        k=k,
        value=estimate.value,
        low=estimate.low,
        high=estimate.high,
        interval=estimate.interval,
        rows=estimate.rows,
        samples=samples,
        completions=completions,
    )
