"""What the worker's loop asks of an engine, real or dummy, and the answers it gives."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

PROMPT_TOO_LONG = "prompt_too_long"
PROMPT_EMPTY = "prompt_empty"
ROW_MALFORMED = "row_malformed"
CHAT_TEMPLATE_ERROR = "chat_template_error"
SAMPLING_INVALID = "sampling_invalid"
ADAPTER_MISSING = "adapter_missing"
TOKEN_OUT_OF_VOCABULARY = "token_out_of_vocabulary"
OUTPUT_CORRUPTED = "output_corrupted"

MESSAGE_CHARACTERS = 1000
"""Longer messages are cut: some of vLLM's repeat the whole prompt."""


class RequestError(Exception):
    """A request that cannot be answered; it becomes an answer with this error."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message[:MESSAGE_CHARACTERS]
        self.prompt_tokens: int | None = None
        self.rendered_prompt: str | None = None


class EngineRefused(Exception):
    """An engine that must not start as it is set; the message says why and what to change."""


class Finished(NamedTuple):
    """A finished request; with `error` the rest tells what was seen, and is not an answer.

    `logprobs` and `prompt_logprobs` hold one list a token, see `vllm_outputs.logprob_rows`.
    """

    request_id: str
    text: str | None
    token_ids: list[int] | None
    finish_reason: str | None
    stop_reason: str | int | None
    prompt_tokens: int | None
    cached_prompt_tokens: int | None = None
    rendered_prompt: str | None = None
    truncated_prompt_tokens: int = 0
    cumulative_logprob: float | None = None
    logprobs: list[Any] | None = None
    prompt_logprobs: list[Any] | None = None
    error: RequestError | None = None


class Engine(Protocol):
    """A started engine. `max_num_seqs` is the number of requests that run at once."""

    max_num_seqs: int

    def prepare(self, requests: list[dict[str, Any]]) -> list[Any]:
        """Return, for each request, what `add` takes, or the `RequestError` it ends with."""

    def add(self, request_id: str, prepared: Any) -> None:
        """Queue a request; raises `RequestError` and leaves the engine as it was."""

    def step(self) -> list[Finished]:
        """Advance the requests in the engine by a step and return those that finished."""

    def generated_tokens(self) -> int | None:
        """Return how many tokens were generated since the start, None if the engine hides it."""

    def facts(self) -> dict[str, Any]:
        """Return what is known about the engine, under the names of the shard's facts."""

    def close(self) -> None:
        """Stop the engine's processes at once; unfinished requests are lost."""
