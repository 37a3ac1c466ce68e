"""Loading a task, and one call of the harness's own evaluation with a model of ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import lm_eval
from lm_eval.tasks import TaskManager

from scripts.harness.requests import HarnessError

DEFAULT_FEWSHOT_SEED = 1234
"""The harness's own."""


class Loaded(NamedTuple):
    """What a name stands for: `roots` are handed to the harness, `tasks` are all that it asks."""

    roots: list[Any]
    tasks: dict[str, Any]
    manager: TaskManager


def load(spec: str) -> Loaded:
    """Return the task, group or tag of the name or file `spec`; raises `HarnessError`."""
    manager = TaskManager()
    try:
        found = manager.load([spec])
    except (KeyError, FileNotFoundError):
        raise HarnessError(f"lm-evaluation-harness has no task '{spec}'") from None
    except ModuleNotFoundError as error:
        raise HarnessError(
            f"task '{spec}' needs the package {error.name}, which envs/lm-eval.in leaves out"
        ) from None
    for name, task in found["tasks"].items():
        if getattr(task, "UNSAFE_CODE", False):
            raise HarnessError(f"task '{name}' runs code that a model wrote; this is not offered")
        if getattr(task, "MULTIMODAL", False):
            raise HarnessError(f"task '{name}' has images or sound; only text can be asked")
    below = {name for names in found.get("group_map", {}).values() for name in names}
    every = {**found.get("groups", {}), **found["tasks"]}
    roots = [item for name, item in every.items() if name not in below]
    return Loaded(roots, dict(found["tasks"]), manager)


def evaluate(model: Any, loaded: Loaded, options: Mapping[str, Any]) -> dict[str, Any]:
    """Let the harness build requests, ask `model`, filter, score and aggregate.

    `options` are those of a task's identity, under the harness's names.
    """
    chat = bool(options.get("apply_chat_template", False))
    results = lm_eval.simple_evaluate(
        model=model,
        tasks=loaded.roots,
        task_manager=loaded.manager,
        num_fewshot=options.get("num_fewshot"),
        limit=options.get("limit"),
        gen_kwargs=dict(options.get("gen_kwargs") or {}) or None,
        system_instruction=options.get("system_instruction"),
        apply_chat_template=chat,
        fewshot_as_multiturn=chat and options.get("fewshot_as_multiturn", True),
        fewshot_random_seed=options.get("fewshot_seed", DEFAULT_FEWSHOT_SEED),
    )
    found: dict[str, Any] = results
    return found
