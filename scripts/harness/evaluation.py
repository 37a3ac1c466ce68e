"""Loading a task, and one call of the harness's own evaluation with a model of ours."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
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
    # To list the harness's own tasks takes seconds, and a file needs none of them.
    manager = TaskManager(include_defaults=not Path(spec).is_file())
    try:
        found = manager.load([spec])
    except (KeyError, FileNotFoundError) as error:
        if not (Path(spec).is_file() or spec in manager.all_tasks):
            raise HarnessError(f"lm-evaluation-harness has no task '{spec}'") from None
        raise HarnessError(
            f"task '{spec}' cannot be loaded ({type(error).__name__}: {error}): it names a file, "
            "a split or a field that its data does not have"
        ) from None
    except ModuleNotFoundError as error:
        raise missing(spec, error) from None
    for name, task in found["tasks"].items():
        if getattr(task, "UNSAFE_CODE", False):
            raise HarnessError(f"task '{name}' runs code that a model wrote; this is not offered")
        if getattr(task, "MULTIMODAL", False):
            raise HarnessError(f"task '{name}' has images or sound; only text can be asked")
    below = {name for names in found.get("group_map", {}).values() for name in names}
    every = {**found.get("groups", {}), **found["tasks"]}
    roots = [item for name, item in every.items() if name not in below]
    return Loaded(roots, dict(found["tasks"]), manager)


def missing(spec: str, error: ModuleNotFoundError) -> HarnessError:
    """Return the line that tells of a package which a task imports and which is in no lock."""
    found = f"the package {error.name}, which envs/lm-eval.in leaves out" if error.name else error
    return HarnessError(f"task '{spec}' needs {found}; choose another task")


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
