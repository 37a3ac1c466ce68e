"""From a metric's specification to the metric: settings checked, defaults filled in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from scripts.llm_batch.errors import ConfigError
from scripts.llm_batch.evaluation.metric_types import METRIC_TYPES, RESERVED_NAMES
from scripts.llm_batch.evaluation.metrics.base import NamedMetric, metric_class


def build_metric(name: str, specification: Mapping[str, Any]) -> NamedMetric:
    """Make the metric that a config calls `name` from its `type` and settings.

    Raises `ConfigError` for an unknown type or setting, a value of the wrong kind, a regular
    expression that does not compile, and names that would replace a column of scores.parquet.
    """
    where = f"metrics.{name}"
    if name in RESERVED_NAMES:
        raise ConfigError(f"{where}: this name is a column of scores.parquet; choose another")
    kind = specification.get("type")
    if not isinstance(kind, str) or kind not in METRIC_TYPES:
        known = ", ".join(sorted(METRIC_TYPES))
        raise ConfigError(f"{where}.type: no metric type {kind!r}; use one of: {known}")
    settings = _complete_settings(where, kind, specification)
    own = {key: value for key, value in settings.items() if key != "errors"}
    if own.get("extract") is not None:
        own["extract"] = compile_pattern(f"{where}.extract", own["extract"])
    return NamedMetric(name, kind, settings, metric_class(kind)(**own))


def compile_pattern(where: str, pattern: str) -> re.Pattern[str]:
    """Compile a user's regular expression; `ConfigError` names `where` and the position."""
    try:
        return re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise ConfigError(
            f"{where}: {pattern!r} is not a Python regular expression ({error}); "
            "in YAML, write it between single quotes"
        ) from None


def _complete_settings(where: str, kind: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return all settings of a type: those given, checked, and the defaults of the others."""
    known = METRIC_TYPES[kind].settings
    for key in given:
        if key != "type" and key not in known:
            allowed = ", ".join(sorted(known))
            raise ConfigError(f"{where}.{key}: {kind} has no such setting; it takes: {allowed}")
    for key, setting in known.items():
        if setting.required and given.get(key) is None:
            raise ConfigError(f"{where}.{key}: {kind} needs this setting ({setting.description})")
        problem = None if key not in given else setting.problem(given[key])
        if problem:
            raise ConfigError(f"{where}.{key}: found {given[key]!r}, expected {problem}")
    return {key: given.get(key, setting.default) for key, setting in known.items()}
