"""Answers as they are written to a journal: one JSON object a line, all fields always there."""

from __future__ import annotations

import json
import math
from typing import Any

from scripts.worker.engine import Finished

_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def answer(key: str, max_tokens: int, finished: Finished) -> dict[str, Any]:
    """Return the journal record of a finished request.

    Readers find keys by their place: `key` comes first, `max_tokens` second.
    """
    error = finished.error
    failed = error is not None
    return {
        "key": key,
        "max_tokens": max_tokens,
        "text": None if failed else finished.text,
        "token_ids": None if failed else finished.token_ids,
        "finish_reason": None if failed else finished.finish_reason,
        "stop_reason": None if failed else finished.stop_reason,
        "prompt_tokens": finished.prompt_tokens,
        "rendered_prompt": finished.rendered_prompt,
        "truncated_prompt_tokens": finished.truncated_prompt_tokens,
        "cumulative_logprob": None if failed else finished.cumulative_logprob,
        "logprobs": None if failed else finished.logprobs,
        "prompt_logprobs": None if failed else finished.prompt_logprobs,
        "error": {"type": error.kind, "message": error.message} if error is not None else None,
    }


def encode(record: dict[str, Any]) -> bytes:
    """Return `record` as one line of UTF-8 JSON.

    Numbers that JSON does not have (NaN, infinities: log-probabilities of masked tokens) become
    null, lone surrogates become "?".
    """
    try:
        text = _encode(record)
    except ValueError:
        text = _encode(finite(record))
    try:
        return text.encode() + b"\n"
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace") + b"\n"


def finite(value: Any) -> Any:
    """Return `value` with every float that is not finite replaced by None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return value
