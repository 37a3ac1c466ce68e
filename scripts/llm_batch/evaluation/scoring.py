"""Read the completions of a run and score each of them.

A score depends on one completion, the reference of its row and the metric's settings only.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from scripts.llm_batch.errors import WorkflowError
from scripts.llm_batch.evaluation.metrics import Judgement, NamedMetric

LOG = logging.getLogger(__name__)

COLUMNS = (
    "row",
    "line",
    "sample",
    "reference",
    "text",
    "finish_reason",
    "completion_tokens",
    "truncated_prompt_tokens",
    "error_type",
)

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Completions:
    """The completions of a run, column by column, in the order of the file.

    `group` numbers the rows 0 … `row_count` - 1; `answered` is False where a completion is an
    error, and there `text` is "". `tokens` are lengths of completions, `reference` is JSON.
    """

    row: tuple[str, ...]
    sample: tuple[int, ...]
    reference: tuple[str | None, ...]
    text: tuple[str, ...]
    finish_reason: tuple[str, ...]
    error_type: tuple[str | None, ...]
    group: Integers
    row_count: int
    answered: Mask
    tokens: Integers
    prompt_truncated: int


@dataclass(frozen=True)
class Scores:
    """What one metric says of each completion: `score` is NaN where there is none."""

    score: Floats
    answer: tuple[str | None, ...]
    reference_missing: int
    no_answer: int


def read_completions(path: Path) -> Completions:
    """Read completions.parquet of a run; `WorkflowError` if it is missing or not such a table."""
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
    return _from_columns({name: table[name].to_pylist() for name in COLUMNS})


def _from_columns(column: dict[str, list[Any]]) -> Completions:
    # A user's own row ids may repeat; together with the line they do not.
    numbers: dict[tuple[Any, Any], int] = {}
    group = [
        numbers.setdefault(key, len(numbers))
        for key in zip(column["line"], column["row"], strict=True)
    ]
    answered = [
        text is not None and error is None
        for text, error in zip(column["text"], column["error_type"], strict=True)
    ]
    return Completions(
        row=tuple(column["row"]),
        sample=tuple(column["sample"]),
        reference=tuple(column["reference"]),
        text=tuple(text or "" for text in column["text"]),
        finish_reason=tuple(reason or "unknown" for reason in column["finish_reason"]),
        error_type=tuple(column["error_type"]),
        group=np.asarray(group, dtype=np.int64),
        row_count=len(numbers),
        answered=np.asarray(answered, dtype=np.bool_),
        tokens=np.asarray([count or 0 for count in column["completion_tokens"]], dtype=np.int64),
        prompt_truncated=sum(bool(count) for count in column["truncated_prompt_tokens"]),
    )


def score(completions: Completions, metric: NamedMetric) -> Scores:
    """Score every completion with one metric.

    No usable reference: no score, and counted. A completion that is an error: score 0, or no score
    with `errors: skip`.
    """
    accept = _reference_reader(metric)
    found: list[Judgement | None] = []
    missing = 0
    for index, reference in enumerate(completions.reference):
        accepted = accept(reference, completions.row[index])
        if accepted is None:
            missing += 1
            found.append(None)
        elif completions.answered[index]:
            found.append(metric.metric.judge(completions.text[index], accepted))
        else:
            found.append(None if metric.skips_errors else Judgement(0.0, None))
    if missing:
        LOG.warning(
            "%s: %d of %d completions have no reference that %s can use; they have no score",
            *(metric.name, missing, len(found), metric.type),
        )
    return Scores(
        score=np.asarray([np.nan if one is None else one.score for one in found], dtype=np.float64),
        answer=tuple(None if one is None else one.answer for one in found),
        reference_missing=missing,
        no_answer=sum(
            one is not None and one.answer is None and bool(completions.answered[index])
            for index, one in enumerate(found)
        ),
    )


def _reference_reader(metric: NamedMetric) -> Callable[[str | None, str], Any]:
    """Return a function from (JSON of a reference, row id) to what the metric accepts or None."""
    known: dict[str, Any] = {}

    def accept(reference: str | None, row: str) -> Any:
        if reference is None:
            return None
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
    """Return scores.parquet: row, sample, and of each metric its score and the answer it took."""
    columns: dict[str, pa.Array] = {
        "row": pa.array(completions.row, pa.string()),
        "sample": pa.array(completions.sample, pa.int32()),
    }
    for metric, scores in scored:
        columns[metric.name] = pa.array(scores.score, pa.float64(), from_pandas=True)
        columns[f"{metric.name}.extracted"] = pa.array(scores.answer, pa.string())
    return pa.table(columns)
