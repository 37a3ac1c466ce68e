"""What lm-evaluation-harness says of a run, as a table of scores and as figures of ours.

A document's score stands in the row of its first request, so that each counts once; the other rows
of a document (its further choices) have none.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.stats import norm

from scripts.llm_batch.addresses import read_json
from scripts.llm_batch.evaluation.figures import Absent, Figure, value_of
from scripts.llm_batch.evaluation.scoring import Completions
from scripts.llm_batch.evaluation.statistics import (
    LEVEL,
    Estimate,
    estimate_mean,
    estimate_share,
)
from scripts.llm_batch.rows import read_rows

NO_FILTER = "none"
"""The harness's name for answers as they are."""

NORMAL = "normal, with the standard error that lm-evaluation-harness gives"

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Asked:
    """The requests of a task: for each line of its prompts file the task, document and kind."""

    documents: tuple[tuple[str, int], ...]
    generated: NDArray[np.bool_]

    def first_lines(self) -> dict[tuple[str, int], int]:
        """Return the place (from 0) of each document's first request."""
        first: dict[tuple[str, int], int] = {}
        for place, document in enumerate(self.documents):
            first.setdefault(document, place)
        return first


@dataclass(frozen=True)
class HarnessScores:
    """Scores of a run: by metric one number a row, NaN without one, and the text that was scored.

    `record` is the harness's own results.json.
    """

    scores: Mapping[str, Floats]
    answers: Mapping[str, tuple[str | None, ...]]
    record: Mapping[str, Any]


def read_asked(prompts: Path) -> Asked:
    """Return what the lines of a task's prompts file ask."""
    rows = [row.fields or {} for row in read_rows(prompts)]
    return Asked(
        tuple((str(row["task"]), int(row["doc"])) for row in rows),
        np.asarray([row["request"] == "generate_until" for row in rows], dtype=np.bool_),
    )


def read_scores(folder: Path, asked: Asked) -> HarnessScores:
    """Read the results.json and samples.jsonl that the harness wrote to `folder`."""
    scores: dict[str, Floats] = {}
    answers: dict[str, list[str | None]] = {}
    places = asked.first_lines()
    count = len(asked.documents)
    record = read_json(folder / "results.json")
    for sample in _samples(folder / "samples.jsonl"):
        place = places[sample["task"], sample["doc_id"]]
        for metric in sample["metrics"]:
            name = _shown(record, _root(record, sample["task"]), metric, sample["filter"])
            column = scores.setdefault(name, np.full(count, np.nan))
            column[place] = _number(sample[metric])
            if asked.generated[place]:
                texts = answers.setdefault(name, [None] * count)
                texts[place] = _text(sample["filtered_resps"])
    return HarnessScores(
        scores,
        {name: tuple(answers.get(name, [None] * count)) for name in scores},
        record,
    )


def _root(record: Mapping[str, Any], task: str) -> str:
    """Return the task or group that was named, or that a tag stands for, and that holds `task`."""
    below: Mapping[str, Sequence[str]] = record.get("group_subtasks") or {}

    def holds(name: str) -> bool:
        return name == task or any(holds(one) for one in below.get(name, ()))

    return next((root for root in record["roots"] if holds(root)), task)


def _shown(record: Mapping[str, Any], root: str, metric: str, name: str) -> str:
    """Return a metric's name; of a tag's tasks, each has metrics of its own."""
    column = metric_name(metric, name)
    return column if len(record["roots"]) == 1 else f"{root}: {column}"


def _samples(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as stream:
        for line in stream:
            yield json.loads(line)


def metric_name(metric: str, name: str) -> str:
    """Return a metric's name, with that of its filter behind a comma where it has one."""
    return metric if name == NO_FILTER else f"{metric},{name}"


def _number(value: Any) -> float:
    """Return a document's score; NaN for what only makes sense over all documents together."""
    return float(value) if isinstance(value, (bool, int, float)) else float("nan")


def _text(filtered: Sequence[Any]) -> str | None:
    first = filtered[0] if len(filtered) == 1 else None
    return first if isinstance(first, str) else None


def score_columns(completions: Completions, found: HarnessScores | None) -> pa.Table:
    """Return scores.parquet: row, sample, of each metric its score and the text it was taken of."""
    columns: dict[str, pa.Array] = {
        "row": pa.array(completions.row, pa.string()),
        "sample": pa.array(completions.sample, pa.int32()),
    }
    for name, scores in (found.scores if found else {}).items():
        columns[name] = pa.array(scores, pa.float64(), from_pandas=True)
        columns[f"{name}.extracted"] = pa.array(found.answers[name] if found else (), pa.string())
    return pa.table(columns)


def figures_of(found: HarnessScores) -> Iterator[Figure]:
    """Yield the harness's figures: one a metric and filter of each task or group that was named.

    Where the harness's figure is the mean of documents, the interval is ours, as for every other
    metric; elsewhere it is normal, with the harness's standard error.
    """
    record = found.record
    results = {**record["results"], **record.get("groups", {})}
    roots = record["roots"]
    for root in roots:
        for key, value in results.get(root, {}).items():
            metric, comma, name = key.partition(",")
            if not comma or metric.endswith("_stderr") or not isinstance(value, (int, float)):
                continue
            shown = _shown(record, root, metric, name)
            scores = found.scores.get(shown, np.empty(0))
            error = results[root].get(f"{metric}_stderr,{name}")
            documents = _documents(record["n-samples"], root)
            yield _figure(shown, value, error, scores[~np.isnan(scores)], documents)


def _figure(shown: str, value: float, error: Any, scores: Floats, documents: int) -> Figure:
    if not np.isfinite(value):
        return Absent(shown, "score", f"lm-evaluation-harness says {value}")
    if len(scores) and np.isclose(scores.mean(), value, rtol=0, atol=1e-12):
        share = bool(np.isin(scores, (0.0, 1.0)).all())
        estimate = estimate_share(scores) if share else estimate_mean(scores)
        statistic = "accuracy" if share else "mean_score"
        return value_of(shown, statistic, None, estimate, 1, len(scores))
    low = high = interval = None
    if isinstance(error, (int, float)) and np.isfinite(error):
        half = float(norm.ppf((1 + LEVEL) / 2)) * error
        low, high, interval = value - half, value + half, NORMAL
    estimate = Estimate(float(value), low, high, interval, documents)
    return value_of(shown, "score", None, estimate, 1, documents)


def _documents(counts: Mapping[str, Mapping[str, int]], root: str) -> int:
    """Return how many documents a task was scored on; for a group all of them."""
    return sum(int(count["effective"]) for name, count in counts.items() if name == root) or sum(
        int(count["effective"]) for count in counts.values()
    )


def unscored(completions: Completions) -> str | None:
    """Return why a run cannot be scored: the harness has no way to leave a request out."""
    errors = [kind for kind in completions.error_type if kind is not None]
    if not errors:
        return None
    return (
        f"{len(errors)} of {len(completions.text)} requests ended in an error ({errors[0]}), and "
        "lm-evaluation-harness can leave none out"
    )


def generated_only(completions: Completions, asked: Asked) -> Completions:
    """Return the completions that are texts: one token behind a scored prompt says nothing."""
    kept = np.flatnonzero(asked.generated)
    numbers = np.unique(completions.group[kept], return_inverse=True)[1]

    def of(values: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(values[int(place)] for place in kept)

    return Completions(
        row=of(completions.row),
        sample=of(completions.sample),
        prompt=of(completions.prompt),
        reference=of(completions.reference),
        tags=of(completions.tags),
        text=of(completions.text),
        finish_reason=of(completions.finish_reason),
        error_type=of(completions.error_type),
        group=numbers.astype(np.int64),
        row_count=len(np.unique(numbers)),
        answered=completions.answered[kept],
        tokens=completions.tokens[kept],
        logprob=completions.logprob[kept],
        prompt_truncated=0,
    )


DEFINITIONS: Mapping[str, str] = {
    "score": "what lm-evaluation-harness makes of all documents together",
    "documents": "a document's score stands in the row of its first request; a metric with a "
    "filter has the filter's name behind a comma",
    "lm_eval": "the harness's own results, with its standard errors",
}
