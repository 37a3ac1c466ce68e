"""The metric types that a config may name, and the settings that each accepts.

Standard library only: the config is checked against this table while the Snakefile is parsed.
The code that scores is in `scripts.llm_batch.metrics`, one class for each type.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

SettingKind = Literal["boolean", "number", "string"]

# Columns of scores.parquet that a metric's own column must not replace.
RESERVED_NAMES = frozenset({"row", "sample"})


@dataclass(frozen=True)
class Setting:
    """One setting of a metric type; `default` None means "not set" and is accepted as a value."""

    kind: SettingKind
    default: bool | int | float | str | None
    description: str
    required: bool = False
    minimum: float | None = None
    choices: tuple[str, ...] = ()

    def schema(self) -> dict[str, object]:
        """This setting as a JSON Schema."""
        nullable = self.default is None and not self.required
        schema: dict[str, object] = {"type": [self.kind, "null"] if nullable else self.kind}
        if not self.required:
            schema["default"] = self.default
        if self.minimum is not None:
            schema["minimum"] = self.minimum
        if self.choices:
            schema["enum"] = list(self.choices)
        schema["description"] = self.description
        return schema

    def problem(self, value: object) -> str | None:
        """Return what was expected instead of `value`, or None if `value` is accepted."""
        if value is None:
            return None if self.default is None and not self.required else self._expected()
        if isinstance(value, bool):
            accepted = self.kind == "boolean"
        elif isinstance(value, (int, float)):
            least = -math.inf if self.minimum is None else self.minimum
            accepted = self.kind == "number" and least <= value < math.inf
        else:
            accepted = isinstance(value, str) and self.kind == "string"
        if self.choices:
            accepted = accepted and value in self.choices
        return None if accepted else self._expected()

    def _expected(self) -> str:
        if self.choices:
            return "one of: " + ", ".join(self.choices)
        limit = "" if self.minimum is None else f" of at least {self.minimum:g}"
        return f"a {self.kind}{limit}"


@dataclass(frozen=True)
class MetricType:
    """What a metric type measures, and its settings by name."""

    summary: str
    settings: Mapping[str, Setting]


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
    }
)
