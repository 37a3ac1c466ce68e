"""The stage `tasks` of a plan: the requests of a task, written for one model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.llm_batch.config.records import Config, Prompts
from scripts.llm_batch.digests import DigestMemo
from scripts.llm_batch.plan.stages import Stage, make_stage
from scripts.llm_batch.tasks.identity import is_file, task_files


@dataclass(frozen=True)
class TaskPlan:
    """A task for one model: `files` are the paths of what its identity has digests of.

    `path` is the task's YAML, None for a task that the harness brings.
    """

    stage: Stage
    harness: Stage
    files: Mapping[str, str]
    path: str | None

    @property
    def prompts_path(self) -> str:
        """Where its requests lie."""
        return f"results/tasks/{self.stage.folder}/prompts.jsonl"

    @property
    def manifest(self) -> str:
        """What is written last of all in its folder."""
        return f"results/tasks/{self.stage.folder}/manifest.json"


def asks_tasks(config: Config) -> bool:
    """Tell whether any run asks a task."""
    return any(config.prompts[run.prompts].lm_eval for run in config.runs)


def task_prompts_identity(prompts: Prompts, harness: Stage, memo: DigestMemo) -> dict[str, Any]:
    """Return what decides the requests of a task, but for the model.

    That is the harness's lock, the task (a name in that lock, or the bytes of its files) and the
    options that differ from the harness's defaults.
    """
    options = dict(prompts.lm_eval or {})
    files = own_files(prompts)
    if files:
        del options["task"]
        options["files"] = {name: memo.sha256(Path(path)) for name, path in files.items()}
    identity: dict[str, Any] = {"lm_eval": {"harness": harness.address, **options}}
    if prompts.chat_template_kwargs:
        identity["chat_template_kwargs"] = dict(prompts.chat_template_kwargs)
    if prompts.limit is not None:
        identity["limit"] = prompts.limit
    return identity


def own_files(prompts: Prompts) -> dict[str, str]:
    """Return the files of a task of one's own by name, none for one that the harness brings."""
    task = (prompts.lm_eval or {})["task"]
    if not is_file(task):
        return {}
    return {name: str(path) for name, path in task_files(Path(task)).items()}


def plan_task(
    prompts: Prompts,
    identity: Mapping[str, Any],
    args: Mapping[str, Any],
    model: Stage,
    harness: Stage,
) -> TaskPlan:
    """Return the task whose prompts have `identity`, for an engine of `model` with `args`."""
    whole = {"prompts": identity, "model": model.address, "max_model_len": args["max_model_len"]}
    whole |= {key: args[key] for key in ("tokenizer_mode", "trust_remote_code") if key in args}
    task = (prompts.lm_eval or {})["task"]
    return TaskPlan(
        stage=make_stage("tasks", prompts.name, whole),
        harness=harness,
        files=own_files(prompts),
        path=task if is_file(task) else None,
    )
