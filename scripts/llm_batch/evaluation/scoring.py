"""Read the completions of a run and score each of them.

A score depends on one completion, the reference of its row and the metric's settings only.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from scripts.llm_batch.errors import WorkflowError
from scripts.llm_batch.evaluation.metrics import (
    Failure,
    Item,
    Judgement,
    ManyMetric,
    NamedMetric,
)
from scripts.llm_batch.evaluation.metrics.overlap import CorpusScore
from scripts.llm_batch.judged_fields import JUDGED_ROW, ORDER

LOG = logging.getLogger(__name__)

COLUMNS = (
    "row",
    "line",
    "sample",
    "prompt",
    "reference",
    "text",
    "finish_reason",
    "completion_tokens",
    "truncated_prompt_tokens",
    "cumulative_logprob",
    "tags",
    "error_type",
)

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Completions:
    """The completions of a run, column by column, in the order of the file.

    `group` numbers the rows 0 … `row_count` - 1, those that a judged run answered where this run
    judges: `judged` names these rows, and is empty where it does not; `answered` is False where a
    completion is an error, and there `text` is "". `tokens` are lengths of completions,
    `reference` and `tags` are JSON, `logprob` is NaN where the sampling asked for none.
    """

    row: tuple[str, ...]
    sample: tuple[int, ...]
    prompt: tuple[str | None, ...]
    reference: tuple[str | None, ...]
    tags: tuple[str | None, ...]
    text: tuple[str, ...]
    finish_reason: tuple[str, ...]
    error_type: tuple[str | None, ...]
    group: Integers
    row_count: int
    answered: Mask
    tokens: Integers
    logprob: Floats
    prompt_truncated: int
    judged: tuple[str, ...] = ()
    order: tuple[str | None, ...] = ()


@dataclass(frozen=True)
class Scores:
    """What one metric says of each completion: `score` is NaN where there is none.

    `failed` completions have no score because the metric could not be computed; `first_failure`
    says of the first of them which it is and why. `corpus` is the score of all completions
    together, where a metric has one.
    """

    score: Floats
    answer: tuple[str | None, ...]
    reference_missing: int
    no_answer: int
    failed: int = 0
    first_failure: str | None = None
    corpus: CorpusScore | None = None


def read_completions(path: Path, judging: bool = False) -> Completions:
    """Read completions.parquet of a run; `WorkflowError` if it is missing or not such a table.

    `judging`: its prompts were made from the completions of other runs.
    """
    try:
        # Not read_table: it would take "name=value" in a folder's name for a column.
        with pq.ParquetFile(path) as file:
            missing = [name for name in COLUMNS if name not in file.schema_arrow.names]
            if missing:
                raise WorkflowError(f"{path}: not a table of completions: no column {missing[0]!r}")
            table = file.read(columns=list(COLUMNS))
    except FileNotFoundError:
        raise WorkflowError(f"{path}: missing; run the workflow again to make it") from None
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise WorkflowError(f"{path}: not a table of completions: {reason}") from None
    return _from_columns({name: table[name].to_pylist() for name in COLUMNS}, judging)


def _from_columns(column: dict[str, list[Any]], judging: bool) -> Completions:
    tags = [json.loads(tags or "{}") for tags in column["tags"]] if judging else []
    judged = tuple(str(one.get(JUDGED_ROW)) for one in tags)
    # A user's own row ids may repeat; together with the line they do not.
    keys: Iterable[Any] = judged or zip(column["line"], column["row"], strict=True)
    numbers: dict[Any, int] = {}
    group = [numbers.setdefault(key, len(numbers)) for key in keys]
    answered = [
        text is not None and error is None
        for text, error in zip(column["text"], column["error_type"], strict=True)
    ]
    return Completions(
        row=tuple(column["row"]),
        sample=tuple(column["sample"]),
        prompt=tuple(column["prompt"]),
        reference=tuple(column["reference"]),
        tags=tuple(column["tags"]),
        text=tuple(text or "" for text in column["text"]),
        finish_reason=tuple(reason or "unknown" for reason in column["finish_reason"]),
        error_type=tuple(column["error_type"]),
        group=np.asarray(group, dtype=np.int64),
        row_count=len(numbers),
        answered=np.asarray(answered, dtype=np.bool_),
        tokens=np.asarray([count or 0 for count in column["completion_tokens"]], dtype=np.int64),
        logprob=np.asarray(
            [np.nan if value is None else value for value in column["cumulative_logprob"]],
            dtype=np.float64,
        ),
        prompt_truncated=sum(bool(count) for count in column["truncated_prompt_tokens"]),
        judged=judged,
        order=tuple(one.get(ORDER) for one in tags),
    )


def score(completions: Completions, metric: NamedMetric) -> Scores:
    """Score every completion with one metric.

    No usable reference: no score, and counted. A completion that is an error: score 0, or no score
    with `errors: skip`. One that the metric cannot be computed of: no score, and counted.
    """
    accepted = _accepted(completions, metric)
    asked = [
        index
        for index, wanted in enumerate(accepted)
        if wanted is not None and completions.answered[index]
    ]
    items = [_item(completions, metric, index, accepted[index]) for index in asked]
    judged = dict(zip(asked, _judge(metric, items), strict=True))
    error = None if metric.skips_errors else Judgement(0.0, None)
    found = [
        judged.get(index, None if wanted is None else error)
        for index, wanted in enumerate(accepted)
    ]
    failures = [index for index, one in enumerate(found) if isinstance(one, Failure)]
    scores = Scores(
        score=np.asarray([_score(one) for one in found], dtype=np.float64),
        answer=tuple(one.answer if isinstance(one, Judgement) else None for one in found),
        reference_missing=sum(wanted is None for wanted in accepted),
        no_answer=sum(isinstance(one, Judgement) and one.answer is None for one in judged.values()),
        failed=len(failures),
        first_failure=_first_failure(completions, found, failures),
        corpus=_corpus(metric, items),
    )
    _warn(metric, scores, len(found))
    return scores


def _accepted(completions: Completions, metric: NamedMetric) -> list[Any]:
    accept = _reference_reader(metric)
    return [
        accept(reference, completions.row[index])
        for index, reference in enumerate(completions.reference)
    ]


def _item(completions: Completions, metric: NamedMetric, index: int, accepted: Any) -> Item:
    if metric.type != "python":
        return Item(completions.text[index], accepted, {})
    tags = completions.tags[index]
    row = {
        "id": completions.row[index],
        "sample": completions.sample[index],
        "prompt": completions.prompt[index],
        "tags": {} if tags is None else json.loads(tags),
        "finish_reason": completions.finish_reason[index],
    }
    return Item(completions.text[index], accepted, row)


def _judge(metric: NamedMetric, items: Sequence[Item]) -> Iterator[Judgement | Failure]:
    if isinstance(metric.metric, ManyMetric):
        yield from metric.metric.judge_many(items)
    else:
        for item in items:
            yield metric.metric.judge(item.text, item.accepted)


def _score(judgement: Judgement | Failure | None) -> float:
    return judgement.score if isinstance(judgement, Judgement) else np.nan


def _first_failure(
    completions: Completions, found: Sequence[Judgement | Failure | None], failures: Sequence[int]
) -> str | None:
    for index in failures[:1]:
        failure = found[index]
        if isinstance(failure, Failure):
            where = f"row {completions.row[index]!r}, sample {completions.sample[index]}"
            return f"{where}: {failure.message}"
    return None


def _corpus(metric: NamedMetric, items: Sequence[Item]) -> CorpusScore | None:
    corpus = getattr(metric.metric, "corpus", None)
    if corpus is None or not items:
        return None
    found: CorpusScore = corpus([i.text for i in items], [i.accepted for i in items])
    return found


def _warn(metric: NamedMetric, scores: Scores, completions: int) -> None:
    if scores.reference_missing:
        LOG.warning(
            "%s: %d of %d completions have no reference that %s can use; they have no score",
            *(metric.name, scores.reference_missing, completions, metric.type),
        )
    if scores.failed:
        LOG.warning(
            "%s: could not be computed of %d of %d completions; they have no score; first: %s",
            *(metric.name, scores.failed, completions, scores.first_failure),
        )


def _reference_reader(metric: NamedMetric) -> Callable[[str | None, str], Any]:
    """Return a function from (JSON of a reference, row id) to what the metric accepts or None."""
    known: dict[str, Any] = {}

    def accept(reference: str | None, row: str) -> Any:
        if reference is None:
            return None if metric.needs_reference else metric.metric.accept(None)
        if reference not in known:
            try:
                value = json.loads(reference, parse_float=Decimal, parse_constant=lambda _: None)
            except ValueError as error:
                raise WorkflowError(
                    f"row {row!r}: the reference {reference!r} is not JSON ({error}); "
                    "delete the run's folder and run the workflow again"
                ) from None
            known[reference] = metric.metric.accept(value)
        return known[reference]

    return accept


def score_table(completions: Completions, scored: Iterable[tuple[NamedMetric, Scores]]) -> pa.Table:
    """Return scores.parquet: row, sample, and of each metric its score and the answer it took.

    Of a run that judges also `judged_row`.
    """
    columns: dict[str, pa.Array] = {
        "row": pa.array(completions.row, pa.string()),
        "sample": pa.array(completions.sample, pa.int32()),
    }
    if completions.judged:
        columns[JUDGED_ROW] = pa.array(completions.judged, pa.string())
    for metric, scores in scored:
        columns[metric.name] = pa.array(scores.score, pa.float64(), from_pandas=True)
        columns[f"{metric.name}.extracted"] = pa.array(scores.answer, pa.string())
    return pa.table(columns)
