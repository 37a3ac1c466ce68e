"""Sampling parameters: vLLM's rules that a schema cannot say, and one form for equal settings."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from typing import Any

from scripts.llm_batch.config.errors import ConfigPath, Problem
from scripts.llm_batch.config.schema import defaults, load_schema

ALWAYS_KEPT = frozenset({"temperature", "max_tokens"})
"""Parameters that are written into every request, even with their default values."""

LOWEST_TEMPERATURE = 0.01
"""vLLM raises temperatures between 0 and this to this, with a warning in its log only."""

WITHOUT_EFFECT_IF_GREEDY = ("top_p", "top_k", "min_p")
_SETS_OF_TOKENS = ("stop_token_ids", "allowed_token_ids")
_LISTS_OF_TEXT = ("stop", "bad_words")


def sampling_problems(path: ConfigPath, entry: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield what vLLM would refuse, or silently change, in one entry of samplings."""
    temperature = entry.get("temperature", 1.0)
    if 0 < temperature < LOWEST_TEMPERATURE:
        text = (
            f"{temperature} is below {LOWEST_TEMPERATURE}, which vLLM would take instead; write 0 "
            f"for greedy, or at least {LOWEST_TEMPERATURE}"
        )
        yield Problem((*path, "temperature"), text)
    n = entry.get("n", 1)
    if temperature == 0 and n > 1:
        text = (
            f"{n} samples at temperature 0: greedy answers are identical; write n: 1, or a "
            "temperature above 0"
        )
        yield Problem((*path, "n"), text)
    longest = entry.get("max_tokens", _defaults()["max_tokens"])
    if entry.get("min_tokens", 0) > longest:
        text = (
            f"{entry['min_tokens']} is more than max_tokens ({longest}); lower it or raise "
            "max_tokens"
        )
        yield Problem((*path, "min_tokens"), text)
    yield from _structured_problems((*path, "structured_outputs"), entry)


def _structured_problems(path: ConfigPath, entry: Mapping[str, Any]) -> Iterator[Problem]:
    form = entry.get("structured_outputs") or {}
    if not isinstance(form.get("json"), str):
        return
    try:
        decoded = json.loads(form["json"])
    except (ValueError, RecursionError) as error:
        text = f"not valid JSON ({error}); write the JSON Schema as a mapping"
        yield Problem((*path, "json"), text)
        return
    if not isinstance(decoded, dict):
        yield Problem((*path, "json"), "expected a JSON Schema, a mapping; write it as one")


def normalise_sampling(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return vLLM's SamplingParams of an entry without n and seed, in their one canonical form.

    What equals vLLM's default is left out (but temperature and max_tokens), so that writing a
    default down changes no address. Sets of tokens are sorted; the order of stop texts counts.
    """
    params = {**_defaults(), **entry}
    params = {key: _canonical(key, params[key]) for key in _parameters()}
    if params["temperature"] == 0:
        for key in WITHOUT_EFFECT_IF_GREEDY:
            params[key] = _defaults()[key]
    if params["top_k"] == -1:
        params["top_k"] = 0
    return {
        key: value
        for key, value in params.items()
        if key in ALWAYS_KEPT or not (value is None or value in ([], {}) or _is_default(key, value))
    }


def _parameters() -> list[str]:
    return [key for key in _properties() if key not in ("n", "seed")]


def _properties() -> Mapping[str, Any]:
    section: Mapping[str, Any] = load_schema()["properties"]["samplings"]["additionalProperties"]
    properties: Mapping[str, Any] = section["properties"]
    return properties


@functools.cache
def _defaults() -> Mapping[str, Any]:
    return defaults(load_schema()["properties"]["samplings"]["additionalProperties"])


def _is_default(key: str, value: Any) -> bool:
    default = _defaults()[key]
    return type(value) is type(default) and bool(value == default)


def _canonical(key: str, value: Any) -> Any:
    if value is None:
        return None
    kind = _properties()[key]["type"]
    if kind == "number":
        return float(value)
    if kind == "integer" or kind == ["integer", "null"]:
        return int(value)
    if key in _LISTS_OF_TEXT:
        return list(dict.fromkeys([value] if isinstance(value, str) else value))
    if key in _SETS_OF_TOKENS:
        return sorted({int(token) for token in value})
    if key == "logit_bias":
        by_token = {int(token): float(bias) for token, bias in value.items() if bias != 0}
        return {str(token): by_token[token] for token in sorted(by_token)}
    if key == "structured_outputs":
        return _canonical_form(value)
    return value


def _canonical_form(form: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON Schema becomes text: engines write properties in its order, so order counts."""
    if "json" not in form:
        return dict(form)
    written = form["json"]
    decoded = json.loads(written) if isinstance(written, str) else written
    return {"json": json.dumps(decoded, ensure_ascii=False, separators=(",", ":"))}
