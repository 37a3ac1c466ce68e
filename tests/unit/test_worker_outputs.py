"""What becomes of vLLM's outputs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from scripts.worker.vllm_outputs import finished_request, has_nan, logprob_rows, looks_corrupted
from scripts.worker.vllm_prompts import Prompt

PROMPT = Prompt([1, 2, 3], "<q>", 2)


def output(**changes: Any) -> Any:
    values: dict[str, Any] = {
        "text": "ab",
        "token_ids": (4, 5),
        "finish_reason": "stop",
        "stop_reason": None,
        "cumulative_logprob": None,
        "logprobs": None,
        **changes,
    }
    return SimpleNamespace(
        outputs=[SimpleNamespace(**values)], prompt_logprobs=None, num_cached_tokens=1
    )


def logprob(value: float) -> Any:
    return SimpleNamespace(logprob=value, rank=1, decoded_token="a")


def test_an_output_becomes_an_answer() -> None:
    finished = finished_request("7", output(), PROMPT)
    assert (finished.token_ids, finished.finish_reason) == ([4, 5], "stop")
    assert (finished.prompt_tokens, finished.truncated_prompt_tokens) == (3, 2)
    assert (finished.cached_prompt_tokens, finished.rendered_prompt) == (1, "<q>")
    assert finished.error is None


def test_repetition_counts_as_a_stop_with_its_reason() -> None:
    finished = finished_request("7", output(finish_reason="repetition"), PROMPT)
    assert (finished.finish_reason, finished.stop_reason) == ("stop", "repetition")


@pytest.mark.parametrize("reason", ["abort", "error", None])
def test_a_request_that_vllm_gave_up_is_no_answer(reason: str | None) -> None:
    with pytest.raises(RuntimeError, match="gave up a request"):
        finished_request("7", output(finish_reason=reason), PROMPT)


def test_log_probabilities_are_lists_of_records() -> None:
    rows = logprob_rows([None, {9: logprob(-0.5), 3: logprob(-1.5)}])
    assert rows == [
        None,
        [
            {"token_id": 9, "logprob": -0.5, "rank": 1, "token": "a"},
            {"token_id": 3, "logprob": -1.5, "rank": 1, "token": "a"},
        ],
    ]
    assert logprob_rows(None) is None


def test_a_log_probability_that_is_no_number_is_corruption() -> None:
    nan = float("nan")
    corrupted = output(logprobs=[{4: logprob(nan)}], cumulative_logprob=nan)
    error = finished_request("7", corrupted, PROMPT).error
    assert error is not None
    assert error.kind == "output_corrupted"
    assert has_nan(nan)
    assert not has_nan(float("-inf"))


@pytest.mark.parametrize(
    ("ids", "reason", "suspicious"),
    [
        ([0] * 9, "length", True),
        ([0] * 8, "length", False),
        ([0] * 9, "stop", False),
        ([0] * 8 + [1], "length", False),
    ],
)
def test_only_long_answers_of_token_0_are_suspicious(
    ids: list[int], reason: str, suspicious: bool
) -> None:
    finished = finished_request("7", output(token_ids=ids, finish_reason=reason), PROMPT)
    assert looks_corrupted(finished) is suspicious
