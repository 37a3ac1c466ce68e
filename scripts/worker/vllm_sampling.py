"""From a request's `sampling` to vLLM's `SamplingParams`, in any version from 0.6.1 on.

The checks are those that vLLM does not make itself and whose lack kills or hangs an engine; for
all others vLLM's own message is passed on. Nothing here imports vLLM: classes are handed in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Callable, NamedTuple

from scripts.worker.engine import SAMPLING_INVALID, RequestError

SEED_END = 2**63
"""vLLM's newer sampler keeps seeds as signed 64-bit integers; a larger one hangs the engine."""

GREEDY_BELOW = 1e-5
"""vLLM's own limit: it takes the likeliest token below this temperature."""

_INTEGERS = ("max_tokens", "min_tokens", "top_k", "logprobs", "prompt_logprobs", "seed")
_TOKEN_LISTS = ("stop_token_ids", "allowed_token_ids")


class SamplingApi(NamedTuple):
    """The parts of one vLLM version that make a `SamplingParams`.

    `structured` is `StructuredOutputsParams` (field `structured_outputs`) since 0.11 and
    `GuidedDecodingParams` (field `guided_decoding`) from 0.6.3 to 0.10, None before.
    """

    params: Callable[..., Any]
    structured_field: str
    structured: Callable[..., Any] | None
    final_only: Any
    extras: Mapping[str, Any]


def check_sampling(sampling: Mapping[str, Any], max_tokens: int, vocabulary: int) -> None:
    """Raise `RequestError` for values that vLLM lets through and then dies of.

    `vocabulary` is the number of token ids that the model has.
    """
    for name in _INTEGERS:
        value = sampling.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
            raise _invalid(f"{name} must be an integer, found {value!r}")
    if sampling.get("max_tokens", max_tokens) != max_tokens:
        raise _invalid(f"max_tokens is {sampling['max_tokens']} here and {max_tokens} in the row")
    if sampling.get("n", 1) != 1:
        raise _invalid(f"n must be 1, one request a sample, found {sampling['n']!r}")
    _check_seed(sampling)
    for name in _TOKEN_LISTS:
        _check_tokens(name, sampling.get(name) or (), vocabulary)
    try:
        biased = [int(token) for token in sampling.get("logit_bias") or ()]
    except ValueError as error:
        raise _invalid(f"logit_bias must have token ids as keys: {error}") from None
    _check_tokens("logit_bias", biased, vocabulary)


def _check_seed(sampling: Mapping[str, Any]) -> None:
    seed = sampling.get("seed")
    temperature = sampling.get("temperature", 1.0)
    if isinstance(temperature, bool) or not isinstance(temperature, (int, float)):
        raise _invalid(f"temperature must be a number, found {temperature!r}")
    if seed is None and temperature >= GREEDY_BELOW:
        raise _invalid("a sampled request needs a seed")
    if seed is not None and not 0 <= seed < SEED_END:
        raise _invalid(f"seed must lie in [0, 2**63), found {seed}")


def _check_tokens(name: str, tokens: Any, vocabulary: int) -> None:
    for token in tokens:
        if isinstance(token, bool) or not isinstance(token, int):
            raise _invalid(f"{name} must hold token ids, found {token!r}")
        if not 0 <= token < vocabulary:
            raise _invalid(f"{name} holds {token}; the model has token ids below {vocabulary}")


def _invalid(message: str) -> RequestError:
    return RequestError(SAMPLING_INVALID, message)


def make_params(sampling: Mapping[str, Any], max_tokens: int, api: SamplingApi) -> Any:
    """Return the `SamplingParams` of a checked sampling; raises what vLLM raises."""
    fields = {name: value for name, value in sampling.items() if name != "n"}
    fields["max_tokens"] = max_tokens
    if fields.get("logit_bias"):
        fields["logit_bias"] = {int(token): bias for token, bias in fields["logit_bias"].items()}
    structured = fields.pop("structured_outputs", None)
    if structured is not None:
        if api.structured is None:
            raise _invalid("this vLLM version has no structured outputs; use 0.6.3 or newer")
        fields[api.structured_field] = api.structured(**structured)
    if fields.get("temperature", 1.0) < GREEDY_BELOW:
        # A seed would change nothing, and on a CPU it would be drawn from.
        fields.pop("seed", None)
    return api.params(**fields, output_kind=api.final_only, **api.extras)
