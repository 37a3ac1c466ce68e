"""Checks of engines: that their environment exists, and what a CPU engine would die of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from scripts.llm_batch.config.build import names_of
from scripts.llm_batch.config.errors import ConfigPath, Problem
from scripts.llm_batch.config.schema import SCHEMA_PATH, known_reference
from scripts.llm_batch.doctor.choose import AUTO
from scripts.llm_batch.environments.identity import environment_names

ENVS = SCHEMA_PATH.parents[2] / "envs"
CPU = "cpu"


def engine_problems(path: ConfigPath, entry: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield what is wrong with an engine that is more than a dummy."""
    names = environment_names(ENVS)
    if "environment" not in entry:
        text = f"the key 'environment' is missing; add it: auto, or one of {', '.join(names)}"
        yield Problem(path, text)
        return
    known = [*names, AUTO]
    problem = known_reference((*path, "environment"), entry["environment"], "envs/", known)
    if problem:
        yield problem
    if entry["environment"] == CPU:
        yield from _cpu_problems(path, entry.get("args", {}), entry.get("tuning", {}))


def _cpu_problems(
    path: ConfigPath, args: Mapping[str, Any], tuning: Mapping[str, Any]
) -> Iterator[Problem]:
    """Yield what vLLM's CPU engine dies of when it gets a seeded request."""
    if tuning.get("enable_chunked_prefill"):
        text = "vLLM's CPU engine dies of prompts that are cut into steps; remove it"
        yield Problem((*path, "tuning", "enable_chunked_prefill"), text)
    tokens, length = tuning.get("max_num_batched_tokens"), args.get("max_model_len")
    if tokens is not None and length is not None and tokens < length:
        text = (
            f"{tokens} is less than max_model_len ({length}); a CPU engine reads a prompt in one "
            "step, so write at least as much"
        )
        yield Problem((*path, "tuning", "max_num_batched_tokens"), text)


def strict_problems(config: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield runs whose answers cannot be kept the same: on a CPU only float32 can."""
    for position, run in enumerate(config["runs"]):
        if run.get("determinism") != "strict":
            continue
        for name in names_of(run["engine"]):
            engine = config["engines"][name]
            dtype = engine.get("args", {}).get("dtype", "auto")
            real = engine.get("backend", "vllm") != "dummy"
            if real and engine.get("environment") == CPU and dtype not in ("float32", "float"):
                text = (
                    f"strict on a CPU needs float32, and engine '{name}' has {dtype}: other "
                    f"formats differ from CPU to CPU; set engines.{name}.args.dtype, or write fast"
                )
                yield Problem(("runs", position, "determinism"), text)
