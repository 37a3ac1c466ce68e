"""From prompts to token ids, without an engine."""

from __future__ import annotations

from typing import Any

import pytest

from scripts.worker.engine import RequestError
from scripts.worker.vllm_prompts import Limits, Source, fit_prompt, read_prompt, tokenize_all

LIMITS = Limits(max_model_len=10, vocabulary=100)


def source(text: str | None = "x", special: bool = True) -> Source:
    return Source(text, special, None, None)


def fit(ids: list[int], mode: str = "error", max_tokens: int = 4) -> Any:
    return fit_prompt(source(), ids, mode, max_tokens, LIMITS)


def render(messages: list[Any], kwargs: dict[str, Any]) -> str:
    return "".join(message["content"] for message in messages) + str(kwargs)


def test_the_longest_prompt_leaves_room_for_one_token() -> None:
    assert fit(list(range(9))).truncated == 0
    with pytest.raises(RequestError, match="at most 9 fit into max_model_len=10") as caught:
        fit(list(range(10)))
    assert (caught.value.kind, caught.value.prompt_tokens) == ("prompt_too_long", 10)


@pytest.mark.parametrize(
    ("mode", "max_tokens", "kept"),
    [
        ("truncate_left", 4, list(range(6, 12))),
        ("truncate_right", 4, list(range(6))),
        # Never below half the context, however long the answer may be.
        ("truncate_left", 9, list(range(7, 12))),
        ("truncate_right", 500, list(range(5))),
    ],
)
def test_a_cut_prompt_leaves_room_for_the_answer(
    mode: str, max_tokens: int, kept: list[int]
) -> None:
    prompt = fit(list(range(12)), mode, max_tokens)
    assert prompt.token_ids == kept
    assert prompt.truncated == 12 - len(kept)


def test_a_prompt_that_fits_is_never_cut() -> None:
    assert fit(list(range(9)), "truncate_left", 9).token_ids == list(range(9))


@pytest.mark.parametrize(
    ("ids", "kind"),
    [
        ([], "prompt_empty"),
        ([5, 100], "token_out_of_vocabulary"),
        ([-1], "token_out_of_vocabulary"),
    ],
)
def test_ids_that_an_engine_dies_of_are_refused(ids: list[int], kind: str) -> None:
    with pytest.raises(RequestError) as caught:
        fit(ids)
    assert caught.value.kind == kind


def test_text_gets_special_tokens_and_chat_does_not() -> None:
    assert read_prompt({"text": "a"}, render) == Source("a", True, None, None)
    chat = read_prompt({"messages": [{"content": "hi"}], "chat_template_kwargs": {"k": 1}}, render)
    assert chat == Source("hi{'k': 1}", False, None, "hi{'k': 1}")


def test_whatever_a_chat_template_raises_is_an_error_of_the_row() -> None:
    with pytest.raises(RequestError, match="KeyError: 'content'") as caught:
        read_prompt({"messages": [{"role": "user"}]}, render)
    assert caught.value.kind == "chat_template_error"


@pytest.mark.parametrize("ids", [[1, "2"], [True], [1.0]])
def test_token_ids_must_be_integers(ids: list[Any]) -> None:
    with pytest.raises(RequestError) as caught:
        read_prompt({"token_ids": ids}, render)
    assert caught.value.kind == "row_malformed"


def test_texts_are_tokenised_together_and_stay_in_their_places() -> None:
    calls: list[tuple[list[str], bool]] = []

    def tokenize(texts: list[str], special: bool) -> list[list[int]]:
        calls.append((texts, special))
        return [[len(text)] for text in texts]

    error = RequestError("row_malformed", "bad")
    sources: list[Source | RequestError] = [
        source("a"),
        error,
        source("ccc", special=False),
        Source(None, False, [7], None),
        source("bb"),
    ]
    assert tokenize_all(sources, tokenize) == [[1], error, [3], [7], [2]]
    assert calls == [(["a", "bb"], True), (["ccc"], False)]


def test_a_text_that_the_tokenizer_refuses_spoils_no_other() -> None:
    def tokenize(texts: list[str], special: bool) -> list[list[int]]:
        if "bad" in texts:
            raise TypeError("surrogates not allowed")
        return [[1] for _ in texts]

    texts: list[Source | RequestError] = [source("a"), source("bad"), source("c")]
    results = tokenize_all(texts, tokenize)
    assert (results[0], results[2]) == ([1], [1])
    assert isinstance(results[1], RequestError)
    assert results[1].kind == "row_malformed"
