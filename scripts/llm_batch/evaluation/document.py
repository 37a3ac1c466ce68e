"""What metrics.json says: every figure with its interval, counts, and how to read them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from scripts.llm_batch.evaluation.diversity import TOKENISATION
from scripts.llm_batch.evaluation.figures import Absent, Value, metric_values, run_values
from scripts.llm_batch.evaluation.judge_figures import judge_values
from scripts.llm_batch.evaluation.metrics import NamedMetric
from scripts.llm_batch.evaluation.scoring import Completions, Scores
from scripts.llm_batch.evaluation.statistics import LEVEL

# Sums differ in the last digits between processors; the file must not.
_DIGITS = 10

DEFINITIONS: Mapping[str, str] = {
    "accuracy": "mean score of a row's samples, then mean over rows",
    "pass@k": "chance that k of a row's n samples hold a correct one: 1 - C(n-c,k)/C(n,k), "
    "mean over rows (Chen et al. 2021, arXiv:2107.03374)",
    "majority@n": "score of the most frequent extracted answer of a row's samples, mean over rows; "
    "answers that tie count with the mean of their scores, samples without an answer do not vote, "
    "a row without votes scores 0; absent where no completion of the run gave an answer",
    "mean_score": "mean score of a row's samples, then mean over rows",
    "best@n": "score of the sample of a row with the highest cumulative log probability, mean over "
    "rows with two samples or more; samples that tie count with the mean of their scores",
    "corpus_score": "sacrebleu's score of all completions together; the interval is its bootstrap "
    "over completions, and is left out where rows have several",
    "distinct-n": "different n-grams as a share of all n-grams in a row's samples together, mean "
    "over rows with two samples or more; n-grams do not cross from one sample to the next",
    "corpus-distinct-n": "the same share in all completions of the run together; it falls as the "
    "run grows, so compare runs of one size; no interval",
    "unique_answers": "different completions as a share of a row's samples, mean over rows with "
    "two samples or more; 1 if all differ, 1/n if all n agree",
    "win_rate": "of two runs: share of verdicts for the first, both orders of each pair; a tie or "
    "no verdict counts half; mean over judged rows",
    "position_consistency": "of two runs: of the pairs with an answer in both orders, the share "
    "that got the same verdict in both",
    "first_position": "of two runs: share of decided verdicts for what was shown first; 0.5 is no "
    "liking for a position",
    "fleiss_kappa": "agreement of a judge's samples on one prompt beyond chance (Fleiss 1971); no "
    "verdict is a verdict of its own",
    "answer_entropy": "entropy in bits of the different completions of a row, mean over rows with "
    "two samples or more; 0 if all agree, log2 n if all n differ",
    "corpus-entropy-n": "Shannon entropy in bits of the n-grams of all completions together "
    "(Zhang et al. 2018, arXiv:1809.05972); it rises as the run grows; no interval",
    "self_bleu": "BLEU from 0 to 100 of each sample against the other samples of its row (Zhu et "
    "al. 2018, arXiv:1802.01886; sacrebleu, effective order), mean over the row, then over rows; "
    "of runs with more rows only so many are drawn, evenly, as 'rows' says",
    "mean_completion_tokens": "length in the model's tokens, mean over a row's samples, then over "
    "rows",
    "truncated": "share of completions that ended at max_tokens, mean over rows",
    "words": TOKENISATION,
    "interval": "for the mean over rows; wilson where every row gives 0 or 1, or all rows give the "
    "same; else a percentile bootstrap that draws whole rows",
    "counts": "rows and completions: those that the figure was computed from; samples: the most "
    "that one of these rows has",
    "errors": "a completion that ended in an error scores 0 (errors: wrong) or has no score "
    "(errors: skip), as settings of each metric say; diversity and length leave errors out",
    "reference_missing": "completions whose row has no reference that the metric can use; they "
    "have no score and are in no figure",
    "failed": "completions that a metric could not be computed of; they have no score and are in "
    "no figure; first_failure says why the first of them failed",
    "no_answer": "completions without an error in which the metric found no answer; they score 0",
}


@dataclass(frozen=True)
class Subject:
    """The run that is evaluated: its name and its address."""

    name: str
    address: str


def metrics_document(
    subject: Subject,
    completions: Completions,
    scored: Sequence[tuple[NamedMetric, Scores]],
) -> dict[str, Any]:
    """Return metrics.json. A figure stands in `values`, or in `absent` with the reason."""
    figures = run_values(completions)
    for metric, scores in scored:
        figures += metric_values(completions, metric, scores)
        figures += judge_values(completions, metric, scores)
    errors = Counter(kind for kind in completions.error_type if kind is not None)
    finish_reasons = Counter(completions.finish_reason)
    return {
        "run": subject.name,
        "address": subject.address,
        "level": LEVEL,
        "rows": completions.row_count,
        "completions": len(completions.text),
        "values": [rounded(asdict(one)) for one in figures if isinstance(one, Value)],
        "absent": [asdict(one) for one in figures if isinstance(one, Absent)],
        "lengths": lengths(completions),
        "finish_reasons": dict(sorted(finish_reasons.items())),
        "errors": dict(sorted(errors.items())),
        "truncated_prompts": completions.prompt_truncated,
        "metrics": {metric.name: _metric_record(metric, scores) for metric, scores in scored},
        "definitions": dict(DEFINITIONS),
    }


def lengths(completions: Completions) -> dict[str, Any]:
    """Return the distribution of completion lengths in tokens, without errors (null if none)."""
    tokens = completions.tokens[completions.answered]
    if len(tokens) == 0:
        empty = dict.fromkeys(("mean", "min", "median", "p95", "max", "total"))
        return {"unit": "tokens", "completions": 0, **empty}
    return {
        "unit": "tokens",
        "completions": len(tokens),
        "mean": round(float(tokens.mean()), _DIGITS),
        "min": int(tokens.min()),
        "median": float(np.median(tokens)),
        "p95": round(float(np.quantile(tokens, 0.95)), _DIGITS),
        "max": int(tokens.max()),
        "total": int(tokens.sum()),
    }


def _metric_record(metric: NamedMetric, scores: Scores) -> dict[str, Any]:
    return {
        "type": metric.type,
        "settings": {
            key: value
            for key, value in metric.settings.items()
            if (metric.type, key) != ("python", "path")
        },
        "scored": int((~np.isnan(scores.score)).sum()),
        "errors": {"reference_missing": scores.reference_missing, "failed": scores.failed},
        "first_failure": scores.first_failure,
        "no_answer": scores.no_answer if metric.metric.votes else None,
    }


def rounded(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record with its figures as exact as every processor gives them."""
    return {
        key: round(value, _DIGITS) if isinstance(value, float) else value
        for key, value in record.items()
    }
