"""The evaluation of a run that asked a task: scored by the harness, told in our formats."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from scripts.llm_batch.addresses import atomic_path, write_json_atomic
from scripts.llm_batch.evaluation.document import Subject, metrics_document, rounded
from scripts.llm_batch.evaluation.figures import Absent, Value
from scripts.llm_batch.evaluation.scoring import Completions, read_completions
from scripts.llm_batch.tasks.call import Harness
from scripts.llm_batch.tasks.scores import (
    DEFINITIONS,
    HarnessScores,
    figures_of,
    generated_only,
    read_asked,
    read_scores,
    score_columns,
    unscored,
)

SAMPLES = "lm_eval_samples.jsonl"
RESULTS = "lm_eval_results.json"


@dataclass(frozen=True)
class Scorer:
    """The harness, and the prompts file of the task that it wrote."""

    harness: Harness
    prompts: Path


def evaluate_task(
    run: Path, subject: Subject, scorer: Scorer, scores_path: Path, metrics_path: Path
) -> tuple[dict[str, Any], list[Path]]:
    """Score the run in folder `run`, write both tables; return metrics.json and what was written.

    Beside them lie the harness's own results and samples, as its command writes them. A run with
    an error has no score, for the harness cannot leave a document out.
    """
    completions = read_completions(run / "completions.parquet")
    written = [scores_path, metrics_path]
    found: HarnessScores | None = None
    asked = read_asked(scorer.prompts)
    problem = unscored(completions)
    if problem is None:
        with tempfile.TemporaryDirectory(dir=scores_path.parent, prefix=".scratch-") as scratch:
            more = ["--completions", str(run / "completions.parquet")]
            scorer.harness.call("score", scorer.prompts, Path(scratch), more)
            found = read_scores(Path(scratch), asked)
            for source, name in (("samples.jsonl", SAMPLES), ("results.json", RESULTS)):
                written.append(_keep(Path(scratch) / source, scores_path.with_name(name)))
    with atomic_path(scores_path) as temporary:
        pq.write_table(score_columns(completions, found), temporary, compression="zstd")
    document = _document(subject, completions, found, generated_only(completions, asked), problem)
    write_json_atomic(metrics_path, document)
    return document, written


def _keep(source: Path, target: Path) -> Path:
    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)
    return target


def _document(
    subject: Subject,
    completions: Completions,
    found: HarnessScores | None,
    generated: Completions,
    problem: str | None,
) -> dict[str, Any]:
    """Return metrics.json; diversity and lengths are those of the texts that were generated."""
    document = metrics_document(subject, generated, [])
    figures = list(figures_of(found)) if found else [Absent("lm_eval", "score", problem or "")]
    values = [rounded(asdict(one)) for one in figures if isinstance(one, Value)]
    absent = [asdict(one) for one in figures if isinstance(one, Absent)]
    errors = Counter(kind for kind in completions.error_type if kind is not None)
    return {
        **document,
        "rows": completions.row_count,
        "completions": len(completions.text),
        "values": [*document["values"], *values],
        "absent": [*document["absent"], *absent],
        "errors": dict(sorted(errors.items())),
        "definitions": {**document["definitions"], **DEFINITIONS},
        "lm_eval": dict(found.record) if found else None,
    }
