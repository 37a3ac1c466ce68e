"""The metric types that a config may name, and the settings that each accepts.

Standard library only: the config is checked against this table while the Snakefile is parsed.
The code that scores is in `scripts.llm_batch.evaluation.metrics`, one class for each type.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from scripts.llm_batch.evaluation.metric_settings import MetricType, Setting

# Columns of scores.parquet that a metric's own column must not replace.
RESERVED_NAMES = frozenset({"row", "sample", "judged_row"})


_ERRORS = Setting(
    "string",
    "wrong",
    "What a completion that ended in an error counts as: wrong (score 0) or skip (no score).",
    choices=("wrong", "skip"),
)
_IGNORE_CASE = Setting("boolean", False, "Compare without regard to upper and lower case.")
_STRIP = Setting("boolean", True, "Ignore white space at both ends of answer and reference.")
_IGNORE_PUNCTUATION = Setting(
    "boolean", False, "Remove punctuation from answer and reference and join runs of white space."
)


def _extract(required: bool, otherwise: str) -> Setting:
    return Setting(
        "string",
        None,
        "Python regular expression searched in the completion; the first group that took part in "
        f"the match is the answer, or the whole match when there is no group.{otherwise}",
        required=required,
    )


def _take(default: str, what: str) -> Setting:
    return Setting(
        "string", default, f"Which {what} counts when there are several.", choices=("first", "last")
    )


def _settings(**own: Setting) -> Mapping[str, Setting]:
    return MappingProxyType({**own, "errors": _ERRORS})


def needs_reference(kind: str, settings: Mapping[str, Any]) -> bool:
    """Whether a metric of this type and these settings scores only rows with a reference."""
    known = METRIC_TYPES.get(kind)
    return bool(settings.get("needs_reference", known is None or known.needs_reference))


def _timeout(seconds: float, what: str) -> Setting:
    return Setting("number", seconds, f"Seconds that {what} may take.", minimum=0.1, maximum=86400)


METRIC_TYPES: Mapping[str, MetricType] = MappingProxyType(
    {
        "exact_match": MetricType(
            "The whole answer equals the reference.",
            _settings(
                extract=_extract(False, " Without it the answer is the whole completion."),
                take=_take("first", "match of extract"),
                strip=_STRIP,
                ignore_case=_IGNORE_CASE,
                ignore_punctuation=_IGNORE_PUNCTUATION,
            ),
        ),
        "numeric_match": MetricType(
            "A number in the completion equals the reference as a decimal number.",
            _settings(
                extract=_extract(
                    False,
                    " The number is looked for inside the answer; without it, "
                    "in the whole completion.",
                ),
                take=_take("last", "match of extract, and which number in it,"),
                tolerance=Setting(
                    "number", 0, "Largest accepted difference from the reference.", minimum=0
                ),
                relative_tolerance=Setting(
                    "number",
                    0,
                    "Largest accepted difference as a share of the reference; "
                    "the larger of the two tolerances holds.",
                    minimum=0,
                ),
            ),
        ),
        "regex_match": MetricType(
            "What a regular expression takes from the completion equals the reference.",
            _settings(
                extract=_extract(True, ""),
                take=_take("first", "match of extract"),
                strip=_STRIP,
                ignore_case=_IGNORE_CASE,
                ignore_punctuation=_IGNORE_PUNCTUATION,
            ),
        ),
        "contains": MetricType(
            "The completion contains the reference.",
            _settings(
                ignore_case=_IGNORE_CASE,
                whole_words=Setting(
                    "boolean",
                    False,
                    "The reference must not touch a letter, digit or underscore on either side.",
                ),
            ),
        ),
        "multiple_choice": MetricType(
            "The letter that the completion chooses equals that of the reference.",
            _settings(
                choices=Setting(
                    "string",
                    "ABCD",
                    "The letters there are, in order; a reference that is a whole number counts "
                    "from 0 in them.",
                ),
                extract=_extract(
                    False,
                    " The letter is looked for inside the answer; without it, in the whole "
                    "completion: after 'answer is', in a box, alone, or in brackets.",
                ),
                take=_take("last", "match"),
            ),
        ),
        "math_equivalence": MetricType(
            "An expression in the completion equals the reference as mathematics (math-verify).",
            _settings(
                extract=_extract(False, " Without it math-verify looks in the whole completion."),
                take=_take("last", "match of extract"),
                float_rounding=Setting(
                    "integer",
                    6,
                    "Decimal places to which numbers are compared.",
                    minimum=0,
                    maximum=15,
                ),
                strict=Setting(
                    "boolean", True, "Variables must have the same names, and sets are no tuples."
                ),
                timeout_s=_timeout(10, "one comparison"),
            ),
        ),
        "bleu": MetricType(
            "BLEU of the completion from 0 to 100 (sacrebleu), and of all together.",
            _settings(
                tokenize=Setting(
                    "string",
                    "13a",
                    "sacrebleu's tokenizer.",
                    choices=("13a", "intl", "char", "zh", "none"),
                ),
                lowercase=_IGNORE_CASE,
                smooth_method=Setting(
                    "string",
                    "exp",
                    "How n-grams without a match are smoothed.",
                    choices=("exp", "floor", "add-k", "none"),
                ),
            ),
        ),
        "chrf": MetricType(
            "chrF of the completion from 0 to 100 (sacrebleu), and of all together.",
            _settings(
                char_order=Setting(
                    "integer", 6, "Longest n-gram of characters.", minimum=1, maximum=20
                ),
                word_order=Setting(
                    "integer", 0, "Longest n-gram of words; 2 is chrF++.", minimum=0, maximum=10
                ),
                beta=Setting(
                    "integer", 2, "Weight of recall against precision.", minimum=1, maximum=10
                ),
                lowercase=_IGNORE_CASE,
            ),
        ),
        "rouge": MetricType(
            "ROUGE of the completion from 0 to 1 (rouge-score); the best of several references.",
            _settings(
                variant=Setting(
                    "string",
                    "rougeL",
                    "Which ROUGE; rougeLsum takes each line for a sentence.",
                    choices=("rouge1", "rouge2", "rougeL", "rougeLsum"),
                ),
                measure=Setting(
                    "string",
                    "fmeasure",
                    "Which of its three figures.",
                    choices=("fmeasure", "precision", "recall"),
                ),
                use_stemmer=Setting("boolean", False, "Compare stems of English words (Porter)."),
            ),
        ),
        "token_f1": MetricType(
            "F1 of the words of completion and reference from 0 to 1, as in SQuAD: no case, "
            "punctuation, a, an, the; the best of several references.",
            _settings(
                extract=_extract(False, " Without it the answer is the whole completion."),
                take=_take("first", "match of extract"),
            ),
        ),
        "json_schema": MetricType(
            "The completion is JSON that a schema accepts; needs no reference.",
            _settings(
                schema=Setting(
                    "object", None, "JSON Schema, draft 2020-12; without it any JSON will do."
                ),
                extract=_extract(
                    False,
                    " Without it the answer is the whole completion, or what one fence of three "
                    "backticks holds.",
                ),
                take=_take("last", "match of extract"),
            ),
            needs_reference=False,
        ),
        "length": MetricType(
            "How long the completion is; needs no reference.",
            _settings(
                unit=Setting(
                    "string",
                    "words",
                    "What is counted; words are those of distinct-n.",
                    choices=("words", "characters", "lines"),
                ),
            ),
            needs_reference=False,
        ),
        "code": MetricType(
            "Python code of the completion passes the tests in the reference.",
            _settings(
                allow_code=Setting(
                    "boolean",
                    False,
                    "Must be true: code that a model wrote is run on this machine, in a process "
                    "with limits that can still read your files.",
                ),
                allow_network=Setting(
                    "boolean", False, "Run it even where a process cannot be cut off the network."
                ),
                extract=_extract(
                    False,
                    " Without it the answer is what the last fence of three backticks holds, or "
                    "the whole completion.",
                ),
                take=_take("last", "match of extract"),
                timeout_s=_timeout(10, "one program"),
                memory_mb=Setting(
                    "integer", 1024, "Memory of one program in MB.", minimum=64, maximum=1048576
                ),
            ),
        ),
        "python": MetricType(
            "A function of your own, in a Python file.",
            _settings(
                path=Setting(
                    "string",
                    None,
                    "The file. Its bytes are hashed, its place is not; what it imports is neither.",
                    required=True,
                ),
                function=Setting(
                    "string", "score", "Its function of (completion, reference, row)."
                ),
                binary=Setting(
                    "boolean", False, "All scores are 0 or 1, so that pass@k can be told."
                ),
                needs_reference=Setting("boolean", True, "Rows without a reference have no score."),
                timeout_s=_timeout(60, "one call"),
            ),
        ),
    }
)
