"""From a request's `prompt` to token ids that vLLM will accept.

The worker tokenises itself, many prompts at a time: it needs the ids for the checks anyway, and
token ids are the one form of prompt that all vLLM versions take alike.
"""

from __future__ import annotations

from typing import Any, Callable, NamedTuple

from scripts.worker.engine import (
    CHAT_TEMPLATE_ERROR,
    PROMPT_EMPTY,
    PROMPT_TOO_LONG,
    ROW_MALFORMED,
    TOKEN_OUT_OF_VOCABULARY,
    RequestError,
)

Tokenize = Callable[[list[str], bool], list[list[int]]]
"""(texts, whether to add special tokens) -> token ids of each."""

Render = Callable[[list[Any], dict[str, Any]], "str | list[int]"]
"""(messages, chat_template_kwargs) -> the prompt that the chat template makes."""


class Limits(NamedTuple):
    """`max_model_len`: tokens of prompt and answer together; `vocabulary`: number of ids."""

    max_model_len: int
    vocabulary: int


class Prompt(NamedTuple):
    """A prompt ready for the engine.

    `scored_from`: the first position whose prompt log-probabilities are kept, if any are asked for.
    """

    token_ids: list[int]
    rendered: str | None
    truncated: int
    scored_from: int = 0


class Source(NamedTuple):
    """A prompt before it is tokenised: text or ids, one of them None."""

    text: str | None
    special: bool
    token_ids: list[int] | None
    rendered: str | None
    scored_from: int = 0


def read_prompt(prompt: dict[str, Any], render: Render) -> Source:
    """Return what is to be tokenised; applies the chat template to messages."""
    if "token_ids" in prompt:
        ids = prompt["token_ids"]
        if any(isinstance(item, bool) or not isinstance(item, int) for item in ids):
            raise RequestError(ROW_MALFORMED, "token_ids must hold integers only")
        return Source(None, False, ids, None, prompt.get("scored_from", 0))
    if "messages" not in prompt:
        return Source(prompt["text"], True, None, None)
    try:
        rendered = render(prompt["messages"], prompt.get("chat_template_kwargs") or {})
    except Exception as error:
        # Templates are programs of the model's authors: they raise what they like.
        message = f"{type(error).__name__}: {error}"
        raise RequestError(CHAT_TEMPLATE_ERROR, message) from error
    if isinstance(rendered, str):
        return Source(rendered, False, None, rendered)
    return Source(None, False, rendered, None)


def tokenize_all(
    sources: list[Source | RequestError], tokenize: Tokenize
) -> list[list[int] | RequestError]:
    """Return the token ids of each source; texts that are tokenised alike go together."""
    results: list[list[int] | RequestError | None] = [
        source if isinstance(source, RequestError) else source.token_ids for source in sources
    ]
    for special in (True, False):
        places = [
            place
            for place, source in enumerate(sources)
            if isinstance(source, Source) and source.text is not None and source.special == special
        ]
        texts = [sources[place].text for place in places]  # type: ignore[union-attr]
        for place, ids in zip(places, _tokenize_texts(texts, special, tokenize)):  # type: ignore[arg-type]
            results[place] = ids
    return results  # type: ignore[return-value]


def _tokenize_texts(
    texts: list[str], special: bool, tokenize: Tokenize
) -> list[list[int] | RequestError]:
    if not texts:
        return []
    try:
        return list(tokenize(texts, special))
    except Exception as error:
        if len(texts) == 1:
            message = f"the tokenizer refuses this text: {type(error).__name__}: {error}"
            return [RequestError(ROW_MALFORMED, message)]
    return [result for text in texts for result in _tokenize_texts([text], special, tokenize)]


def fit_prompt(
    source: Source, token_ids: list[int], on_too_long: str, max_tokens: int, limits: Limits
) -> Prompt:
    """Return the prompt as the engine gets it; raises `RequestError` if it cannot have it.

    A prompt is too long when it leaves no room for a single token of answer. Where the config
    wants it cut, it is cut so that `max_tokens` fit behind it, but never below half the context.
    """
    count = len(token_ids)
    if not count:
        raise _located(RequestError(PROMPT_EMPTY, "the prompt has no tokens"), source, 0)
    truncated = 0
    if count >= limits.max_model_len:
        if on_too_long == "error":
            message = (
                f"the prompt has {count} tokens; with room for an answer at most "
                f"{limits.max_model_len - 1} fit into max_model_len={limits.max_model_len}"
            )
            raise _located(RequestError(PROMPT_TOO_LONG, message), source, count)
        kept = max(limits.max_model_len - max_tokens, limits.max_model_len // 2, 1)
        truncated = count - kept
        token_ids = token_ids[-kept:] if on_too_long == "truncate_left" else token_ids[:kept]
    if min(token_ids) < 0 or max(token_ids) >= limits.vocabulary:
        wrong = next(item for item in token_ids if not 0 <= item < limits.vocabulary)
        message = f"token id {wrong}: the model has ids from 0 to {limits.vocabulary - 1}"
        raise _located(RequestError(TOKEN_OUT_OF_VOCABULARY, message), source, count)
    return Prompt(token_ids, source.rendered, truncated, source.scored_from)


def _located(error: RequestError, source: Source, tokens: int) -> RequestError:
    error.prompt_tokens = tokens
    error.rendered_prompt = source.rendered
    return error
