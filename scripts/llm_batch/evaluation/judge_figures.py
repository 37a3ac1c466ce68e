"""Figures of a run that judges: who wins, how steady its verdicts are, how they agree."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scripts.llm_batch.evaluation.agreement import fleiss_estimate, verdict_counts
from scripts.llm_batch.evaluation.figures import Absent, Figure, Value, value_of
from scripts.llm_batch.evaluation.metrics import NamedMetric
from scripts.llm_batch.evaluation.pairwise import (
    consistency,
    first_position,
    preferences,
    row_means,
)
from scripts.llm_batch.evaluation.scoring import Completions, Scores
from scripts.llm_batch.evaluation.statistics import Estimate, estimate_share


def judge_values(completions: Completions, metric: NamedMetric, scores: Scores) -> list[Figure]:
    """Return what only verdicts have; nothing for a run that does not judge or gives no answers."""
    if not completions.judged or not metric.metric.votes:
        return []
    figures = _pairwise_values(completions, metric, scores)
    if len(set(completions.sample)) > 1:
        figures.append(_fleiss_value(completions, metric, scores))
    return figures


def _pairwise_values(completions: Completions, metric: NamedMetric, scores: Scores) -> list[Figure]:
    if not any(completions.order):
        return []
    preferred = preferences(completions, scores)
    named: dict[str, NDArray[np.float64]] = {
        "win_rate": preferred,
        "position_consistency": consistency(completions, scores, preferred),
        "first_position": first_position(completions, preferred),
    }
    figures: list[Figure] = []
    for name, values in named.items():
        means = row_means(values, completions.group, completions.row_count)
        if len(means) == 0:
            figures.append(Absent(metric.name, name, "no pair has a verdict"))
            continue
        used = int((~np.isnan(values)).sum())
        figures.append(_value(metric, name, estimate_share(means), used))
    return figures


def _fleiss_value(completions: Completions, metric: NamedMetric, scores: Scores) -> Figure:
    scored = np.flatnonzero(~np.isnan(scores.score))
    counts = verdict_counts(
        [completions.row[index] for index in scored], [scores.answer[index] for index in scored]
    )
    estimate = fleiss_estimate(counts)
    if estimate is None:
        return Absent(metric.name, "fleiss_kappa", "all verdicts are the same, or too few")
    return _value(metric, "fleiss_kappa", estimate, int(counts.sum()))


def _value(metric: NamedMetric, name: str, estimate: Estimate, completions: int) -> Value:
    samples = 0 if estimate.rows == 0 else -(-completions // estimate.rows)
    return value_of(metric.name, name, None, estimate, samples, completions)
