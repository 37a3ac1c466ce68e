"""Requests: the key under which an answer is found again, and the seed of each sample.

A request is one sample of one prompt under one sampling. Its key leaves out `max_tokens`, because
an answer that stopped by itself within a new limit is the answer under that limit too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from scripts.llm_batch.addresses import canonical_json

BY_TASK = "by_task"
"""Key of a run's sampling: each request has the parameters that its task asks for."""

KEY_DIGITS = 32

SEED_BITS = 53
"""Seeds stay exact where columns with a null become floats (pandas) and in JavaScript."""


@dataclass(frozen=True)
class SamplingKey:
    """A sampling, digested once for all prompts.

    With `same_for_all` each request has `seed` itself, as a task of lm-evaluation-harness asks.
    """

    params: Mapping[str, Any]
    n: int
    seed: int | None
    digest: str
    same_for_all: bool = False

    @property
    def max_tokens(self) -> int:
        """The limit of completion tokens."""
        return int(self.params["max_tokens"])


def sampling_key(identity: Mapping[str, Any]) -> SamplingKey:
    """Return the sampling of a run's identity, ready to key requests."""
    params = dict(identity["params"])
    own = params.pop("seed", None)
    greedy = is_greedy(params)
    without_limit = {name: value for name, value in params.items() if name != "max_tokens"}
    return SamplingKey(
        params=params,
        n=int(identity["n"]),
        seed=None if greedy else int(identity["seed"] if own is None else own),
        digest=hashlib.sha256(canonical_json(without_limit).encode()).hexdigest(),
        same_for_all=own is not None,
    )


def is_greedy(params: Mapping[str, Any]) -> bool:
    """Tell whether `params` always take the likeliest token (temperature 0)."""
    return float(params.get("temperature", 1.0)) == 0.0


def prompt_digest(content: bytes) -> str:
    """Return the sha256 of a prompt's content (the JSON that is sent), whatever its row holds."""
    return hashlib.sha256(content).hexdigest()


def sample_seed(sampling: SamplingKey, prompt: str, occurrence: int, sample: int) -> int | None:
    """Return the seed of one sample, None for greedy.

    `prompt` is the prompt's digest, `occurrence` how many rows before held the same content. Row
    order, shards and time play no part: the seed is the first 53 bits of
    sha256("<sampling seed>:<prompt>:<occurrence>:<sample>").
    """
    if sampling.seed is None or sampling.same_for_all:
        return sampling.seed
    text = f"{sampling.seed}:{prompt}:{occurrence}:{sample}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> (64 - SEED_BITS)


def request_key(sampling: SamplingKey, prompt: str, seed: int | None) -> str:
    """Return the 32-digit key of a request within its engine."""
    text = f"{prompt}:{sampling.digest}:{'' if seed is None else seed}"
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_DIGITS]


def unseeded_digests(sampling: SamplingKey, prompts: Iterable[str]) -> bytes:
    """Return the digests, of 32 bytes each, whose hexadecimal digits `request_key` begins with.

    For many prompts without a seed at once: half of the time that one after another takes.
    """
    sha256, rest = hashlib.sha256, f":{sampling.digest}:"
    return b"".join([sha256(f"{prompt}{rest}".encode()).digest() for prompt in prompts])
