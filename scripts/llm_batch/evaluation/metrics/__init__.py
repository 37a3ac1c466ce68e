"""Metrics: how one completion is compared with the reference of its row, by kind."""

from scripts.llm_batch.evaluation.metrics import (
    choice,
    code,
    equivalence,
    matching,
    overlap,
    own,
    shape,
)
from scripts.llm_batch.evaluation.metrics.base import (
    Failure,
    Item,
    Judgement,
    ManyMetric,
    Metric,
    NamedMetric,
    registered_types,
)
from scripts.llm_batch.evaluation.metrics.build import build_metric

__all__ = [
    "Failure",
    "Item",
    "Judgement",
    "ManyMetric",
    "Metric",
    "NamedMetric",
    "build_metric",
    "choice",
    "code",
    "equivalence",
    "matching",
    "overlap",
    "own",
    "registered_types",
    "shape",
]
