"""Sampling parameters: what vLLM must not get, and how its versions want the rest."""

from __future__ import annotations

from typing import Any

import pytest

from scripts.worker.engine import RequestError
from scripts.worker.vllm_sampling import SamplingApi, check_sampling, make_params

GOOD: dict[str, Any] = {"temperature": 0.7, "max_tokens": 16, "seed": 3}


def api(**changes: Any) -> SamplingApi:
    values: dict[str, Any] = {
        "params": dict,
        "structured_field": "structured_outputs",
        "structured": dict,
        "final_only": "FINAL",
        "extras": {},
        **changes,
    }
    return SamplingApi(**values)


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": "a"},
        {"seed": 1.5},
        {"seed": True},
        {"seed": None},
        {"seed": -1},
        {"seed": 2**63},
        {"max_tokens": 3.5},
        {"max_tokens": 17},
        {"top_k": "5"},
        {"n": 2},
        {"temperature": "0.7"},
        {"stop_token_ids": [100]},
        {"stop_token_ids": [-1]},
        {"allowed_token_ids": ["a"]},
        {"logit_bias": {"100": 1.0}},
        {"logit_bias": {"x": 1.0}},
    ],
)
def test_values_that_kill_or_hang_an_engine_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(RequestError) as caught:
        check_sampling({**GOOD, **changes}, 16, vocabulary=100)
    assert caught.value.kind == "sampling_invalid"


@pytest.mark.parametrize(
    "sampling",
    [
        GOOD,
        {"temperature": 0, "max_tokens": 16},
        {**GOOD, "seed": 0},
        {**GOOD, "seed": 2**63 - 1},
        {**GOOD, "stop_token_ids": [99], "logit_bias": {"0": -1.0}, "n": 1, "logprobs": 0},
    ],
)
def test_good_values_pass(sampling: dict[str, Any]) -> None:
    check_sampling(sampling, 16, vocabulary=100)


def test_parameters_are_handed_on_under_the_version_s_names() -> None:
    sampling = {**GOOD, "n": 1, "logit_bias": {"5": 2.0}, "structured_outputs": {"regex": "a+"}}
    assert make_params(sampling, 16, api(extras={"skip_clone": True})) == {
        "temperature": 0.7,
        "max_tokens": 16,
        "seed": 3,
        "logit_bias": {5: 2.0},
        "structured_outputs": {"regex": "a+"},
        "output_kind": "FINAL",
        "skip_clone": True,
    }
    old = make_params(sampling, 16, api(structured_field="guided_decoding"))
    assert old["guided_decoding"] == {"regex": "a+"}
    with pytest.raises(RequestError, match=r"use 0\.6\.3 or newer"):
        make_params(sampling, 16, api(structured=None))


def test_a_greedy_request_has_no_seed() -> None:
    assert "seed" not in make_params({**GOOD, "temperature": 0}, 16, api())
