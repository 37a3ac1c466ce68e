"""From vLLM's `RequestOutput` to an answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scripts.worker.engine import OUTPUT_CORRUPTED, Finished, RequestError
from scripts.worker.vllm_prompts import Prompt

SUSPICIOUS_TOKENS = 8
"""Answers longer than this that consist of token 0 alone are looked at again."""

FINISH_REASONS = {"stop": "stop", "length": "length", "repetition": "stop"}


def finished_request(request_id: str, output: Any, prompt: Prompt) -> Finished:
    """Return the answer that a finished `RequestOutput` holds.

    Raises `RuntimeError` where vLLM gave a request up (`abort`, `error`): no answer can be told
    from that, so the engine counts as failed.
    """
    completion = output.outputs[0]
    reason = FINISH_REASONS.get(completion.finish_reason)
    if reason is None:
        raise RuntimeError(f"vLLM gave up a request: {completion.finish_reason}")
    logprobs = completion.logprobs
    corrupted = logprobs is not None and has_nan(completion.cumulative_logprob)
    return Finished(
        request_id=request_id,
        text=completion.text,
        token_ids=list(completion.token_ids),
        finish_reason=reason,
        stop_reason="repetition"
        if completion.finish_reason == "repetition"
        else completion.stop_reason,
        prompt_tokens=len(prompt.token_ids),
        cached_prompt_tokens=getattr(output, "num_cached_tokens", None),
        rendered_prompt=prompt.rendered,
        truncated_prompt_tokens=prompt.truncated,
        cumulative_logprob=completion.cumulative_logprob if logprobs is not None else None,
        logprobs=logprob_rows(logprobs),
        prompt_logprobs=logprob_rows(output.prompt_logprobs, prompt.scored_from),
        error=corruption("log-probabilities are not numbers") if corrupted else None,
    )


def logprob_rows(positions: Any, start: int = 0) -> list[Any] | None:
    """Return log-probabilities from `start` on, one list a token: {token_id, logprob, rank, token}.

    The first position of a prompt has none and is null. The likeliest tokens come in vLLM's
    order: the token that was chosen first.
    """
    if positions is None:
        return None
    return [
        None if position is None else _logprob_row(position) for position in list(positions)[start:]
    ]


def _logprob_row(position: Mapping[int, Any]) -> list[dict[str, Any]]:
    return [
        {
            "token_id": int(token_id),
            "logprob": item if isinstance(item, float) else item.logprob,
            "rank": getattr(item, "rank", None),
            "token": getattr(item, "decoded_token", None),
        }
        for token_id, item in position.items()
    ]


def has_nan(value: Any) -> bool:
    """Tell whether `value` is a float that is not a number."""
    return isinstance(value, float) and value != value


def corruption(what: str) -> RequestError:
    """Return the error of an answer that is no answer."""
    message = f"{what}: the model computes NaN; check its weights and dtype"
    return RequestError(OUTPUT_CORRUPTED, message)


def looks_corrupted(finished: Finished) -> bool:
    """Tell whether an answer looks like what vLLM makes of NaN logits: token 0 to the limit.

    A model may say that honestly (token 0 is "!" in many vocabularies), so it is a suspicion, to
    be confirmed by asking for a log-probability.
    """
    ids = finished.token_ids
    return (
        ids is not None
        and finished.finish_reason == "length"
        and len(ids) > SUSPICIOUS_TOKENS
        and not any(ids)
    )
