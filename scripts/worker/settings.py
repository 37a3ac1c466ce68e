"""What the supervisor tells the worker, in one JSON file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Settings:
    """One engine start.

    `requests` are files of JSON lines answered one after another; the engine is drained between
    them, because vLLM's CPU sampler ignores the seeds of requests that run beside greedy ones.
    `start` counts the engine starts of one call of the supervisor from 0. `window` is the largest
    number of requests in the engine, None for twice `max_num_seqs`. `args` are the engine's
    arguments, `defaults` those that are left out where a vLLM version does not know them.
    `adapters` are the folders of the LoRA adapters that requests name, by name. Times are seconds
    since 1970.
    """

    backend: str
    determinism: str
    model: str
    adapters: dict[str, str]
    defaults: dict[str, Any]
    args: dict[str, Any]
    dummy: dict[str, Any]
    requests: list[str]
    window: int | None
    start: int
    spawned: float
    journal: str
    header: dict[str, Any]
    progress: str
    status: str
    facts: str
    total: int


def read_settings(path: str) -> Settings:
    """Read the settings file at `path`."""
    with open(path, encoding="utf-8") as stream:
        return Settings(**json.load(stream))
