"""Keys and seeds of requests."""

from __future__ import annotations

from typing import Any

from scripts.llm_batch.ledger import key_column
from scripts.llm_batch.requests import (
    SamplingKey,
    prompt_digest,
    request_key,
    sample_seed,
    sampling_key,
    unseeded_digests,
)

PROMPT = prompt_digest(b"What is 1 + 1?")


def sampling(n: int = 4, seed: int = 0, **params: Any) -> SamplingKey:
    return sampling_key({"params": {"max_tokens": 16, **params}, "n": n, "seed": seed})


def test_a_greedy_request_has_no_seed() -> None:
    # The identity of a greedy sampling has none either.
    greedy = sampling_key({"params": {"max_tokens": 16, "temperature": 0}, "n": 1})
    assert sample_seed(greedy, PROMPT, 0, 0) is None


def test_the_seed_of_a_sample_never_changes() -> None:
    assert sample_seed(sampling(temperature=0.7), PROMPT, 0, 0) == 1759932446046924


def test_samples_occurrences_prompts_and_sampling_seeds_have_seeds_of_their_own() -> None:
    warm = sampling(temperature=0.7)
    other = prompt_digest(b"What is 2 + 2?")
    seeds = {
        sample_seed(warm, PROMPT, 0, 0),
        sample_seed(warm, PROMPT, 0, 1),
        sample_seed(warm, PROMPT, 1, 0),
        sample_seed(warm, other, 0, 0),
        sample_seed(sampling(temperature=0.7, seed=1), PROMPT, 0, 0),
    }
    assert len(seeds) == 5


def test_seeds_are_exact_as_floats() -> None:
    warm = sampling(temperature=0.7)
    seeds = [sample_seed(warm, PROMPT, 0, sample) for sample in range(2000)]
    assert all(seed is not None and 0 <= seed < 2**53 for seed in seeds)
    assert max(seed for seed in seeds if seed is not None) > 2**51


def test_max_tokens_is_not_part_of_the_key() -> None:
    short, long = sampling(temperature=0.7), sampling(temperature=0.7, max_tokens=99)
    assert request_key(short, PROMPT, 7) == request_key(long, PROMPT, 7)


def test_everything_else_of_a_sampling_is_part_of_the_key() -> None:
    keys = {
        request_key(sampling(temperature=0.7), PROMPT, 7),
        request_key(sampling(temperature=0.8), PROMPT, 7),
        request_key(sampling(temperature=0.7, top_p=0.9), PROMPT, 7),
        request_key(sampling(temperature=0.7, stop=["\n"]), PROMPT, 7),
        request_key(sampling(temperature=0.7), PROMPT, 8),
        request_key(sampling(temperature=0.7), prompt_digest(b"?"), 7),
    }
    assert len(keys) == 6


def test_n_is_not_part_of_the_key_so_that_more_samples_keep_the_old_ones() -> None:
    assert request_key(sampling(n=4), PROMPT, 7) == request_key(sampling(n=8), PROMPT, 7)


def test_keys_of_many_prompts_are_those_of_each() -> None:
    prompts = [prompt_digest(str(number).encode()) for number in range(50)]
    greedy = sampling(temperature=0)
    column = key_column(unseeded_digests(greedy, prompts))
    assert column.to_pylist() == [request_key(greedy, prompt, None) for prompt in prompts]
    assert key_column(b"").to_pylist() == []
