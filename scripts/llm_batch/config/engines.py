"""Checks of engines: that their environment exists, and what a CPU engine would die of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from scripts.llm_batch.config.build import names_of
from scripts.llm_batch.config.errors import ConfigPath, Problem
from scripts.llm_batch.config.schema import SCHEMA_PATH, known_reference
from scripts.llm_batch.doctor.choose import AUTO
from scripts.llm_batch.environments.identity import environment_names, load_spec, lock_path
from scripts.llm_batch.errors import ConfigError
from scripts.llm_batch.gpus.sizes import parallel_size

ENVS = SCHEMA_PATH.parents[2] / "envs"


def engine_problems(
    path: ConfigPath, entry: Mapping[str, Any], environments: Mapping[str, Any]
) -> Iterator[Problem]:
    """Yield what is wrong with an engine that is more than a dummy.

    `environments` is the config's section of that name.
    """
    names = sorted({*environment_names(ENVS), *environments})
    if "environment" not in entry:
        text = f"the key 'environment' is missing; add it: auto, or one of {', '.join(names)}"
        yield Problem(path, text)
        return
    known = [*names, AUTO]
    problem = known_reference((*path, "environment"), entry["environment"], "envs/", known)
    if problem:
        yield problem
    if known_device(entry["environment"], environments) == "cpu":
        yield from _cpu_problems(path, entry.get("args", {}), entry.get("tuning", {}))


def node_problems(
    path: ConfigPath, entry: Mapping[str, Any], environments: Mapping[str, Any]
) -> Iterator[Problem]:
    """Yield why an engine cannot be spread over its `tuning.nodes`.

    The number of nodes is placement: the order of sums is decided by the parallel sizes. Except
    where nodes cut a tensor parallel group, for vLLM's own all-reduce works within a node only;
    there the engine must say that it does without (args, so identity).
    """
    args, tuning = entry.get("args", {}), entry.get("tuning", {})
    nodes, at = tuning.get("nodes", 1), (*path, "tuning", "nodes")
    if nodes == 1:
        return
    dummy = entry.get("backend", "vllm") == "dummy"
    size = entry.get("dummy", {}).get("gpus") if dummy else parallel_size(args)
    if size is not None and size % nodes:
        what = "dummy.gpus" if dummy else "tensor_parallel_size × pipeline_parallel_size"
        text = f"{nodes} nodes cannot have equal shares of {size} ({what}); change one of them"
        yield Problem(at, text)
        return
    backend = tuning.get("distributed_executor_backend")
    if backend not in (None, "mp"):
        text = f"{backend} does not start engines on other nodes here; remove it, or write mp"
        yield Problem((*path, "tuning", "distributed_executor_backend"), text)
    tensor = int(args.get("tensor_parallel_size") or 1)
    cut = not dummy and bool((size // nodes) % tensor)
    cpu = known_device(entry.get("environment"), environments) == "cpu"
    if cut and not cpu and not args.get("disable_custom_all_reduce"):
        text = (
            f"tensor_parallel_size {tensor} is more than the {size // nodes} GPUs of a node, so "
            "sums go over the network; say so with args.disable_custom_all_reduce: true, or let "
            "pipeline_parallel_size be the number of nodes"
        )
        yield Problem(at, text)


def environment_problems(path: ConfigPath, entry: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield what is wrong with an entry of environments."""
    if path[-1] == AUTO:
        text = f"'{AUTO}' is the newest environment that runs here; give this one another name"
        yield Problem(path, text)
        return
    if "python" in entry and len(entry) > 1:
        other = next(key for key in entry if key != "python")
        text = f"without effect beside 'python'; remove one of them, '{other}' or 'python'"
        yield Problem((*path, other), text)
    if not entry.keys() & {"python", "file"}:
        problem = known_reference(path, str(path[-1]), "envs/", environment_names(ENVS))
        if problem:
            text = f"{problem.text}; for one of your own add 'python' or 'file'"
            yield Problem(path, text)


def environment_files(path: ConfigPath, entry: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield what is wrong with the files that an entry of environments names."""
    if "file" not in entry:
        return
    file = Path(entry["file"]).expanduser()
    for needed in (file, lock_path(file.stem, file.parent)):
        if not needed.is_file():
            text = f"no such file: '{needed}'; a description and its lock lie side by side"
            yield Problem((*path, "file"), text)
            return
    try:
        load_spec(file.stem, file.parent)
    except ConfigError as error:
        yield Problem((*path, "file"), str(error))


def known_device(name: str | None, environments: Mapping[str, Any]) -> str | None:
    """Return `cpu` or `cuda`; None for an interpreter, which is asked when the plan is made."""
    if name is None or "python" in environments.get(name, {}):
        return None
    entry = environments.get(name, {})
    file = Path(entry["file"]).expanduser() if "file" in entry else ENVS / f"{name}.yaml"
    try:
        return load_spec(file.stem, file.parent).device
    except ConfigError:
        return None


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
    environments = config.get("environments", {})
    for position, run in enumerate(config["runs"]):
        if run.get("determinism") != "strict":
            continue
        for name in names_of(run["engine"]):
            engine = config["engines"][name]
            dtype = engine.get("args", {}).get("dtype", "auto")
            real = engine.get("backend", "vllm") != "dummy"
            device = known_device(engine.get("environment"), environments) if real else None
            if device == "cpu" and dtype not in ("float32", "float"):
                text = (
                    f"strict on a CPU needs float32, and engine '{name}' has {dtype}: other "
                    f"formats differ from CPU to CPU; set engines.{name}.args.dtype, or write fast"
                )
                yield Problem(("runs", position, "determinism"), text)
