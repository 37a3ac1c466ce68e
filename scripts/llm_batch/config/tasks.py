"""Checks of tasks of lm-evaluation-harness: their keys and files, and which runs can ask them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts.llm_batch.config.build import TASK_SAMPLING, judged_names
from scripts.llm_batch.config.errors import ConfigPath, Problem
from scripts.llm_batch.errors import ConfigError
from scripts.llm_batch.tasks.identity import OPTIONS, is_file, task_files

OF_A_FILE = (
    *("from_run", "from_runs"),
    *("path", "dataset", "revision", "config", "split", "files", "filter", "sample_seed"),
    *("few_shot", "body_settings", "template", "messages", "reference", "id", "on_too_long"),
)


def is_task(prompts: Mapping[str, Any]) -> bool:
    """Tell whether an entry of prompts is a task."""
    return "lm_eval_task" in prompts


def task_problems(path: ConfigPath, entry: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield what is wrong with the keys of one entry of prompts, be it a task or a file."""
    if not is_task(entry):
        for key in OPTIONS:
            if key in entry:
                yield Problem((*path, key), "only with lm_eval_task; remove it")
        return
    for key in OF_A_FILE:
        if key in entry:
            text = "without effect beside 'lm_eval_task', which writes its own prompts; remove it"
            yield Problem((*path, key), text)
    for key in ("chat_template_kwargs", "fewshot_as_multiturn"):
        if entry.get(key) and not entry.get("apply_chat_template"):
            yield Problem((*path, key), "without effect; set apply_chat_template: true, too")


def task_file_problems(path: ConfigPath, entry: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield what is wrong with the YAML file of a task and the files that it names."""
    file = Path(entry["lm_eval_task"]).expanduser()
    if not is_file(entry["lm_eval_task"]):
        return
    if not file.is_file():
        yield Problem((*path, "lm_eval_task"), f"no such file: '{file}'; mend the path")
        return
    try:
        task_files(file)
    except ConfigError as error:
        yield Problem((*path, "lm_eval_task"), str(error))


def task_run_problems(
    path: ConfigPath, run: Any, entry: Mapping[str, Any], config: Mapping[str, Any]
) -> Iterator[Problem]:
    """Yield why `run`, written in `entry` at `path`, cannot ask its task, or has no task to ask."""
    task = is_task(config["prompts"][run.prompts])
    if task != (run.sampling == TASK_SAMPLING):
        text = (
            f"prompts '{run.prompts}' is a task, which says how each request is sampled; write "
            f"sampling: {TASK_SAMPLING}, and what differs in prompts.{run.prompts}.gen_kwargs"
            if task
            else f"'{TASK_SAMPLING}' is for prompts with lm_eval_task, and '{run.prompts}' has none"
        )
        yield Problem((*path, "sampling"), text)
    if not task:
        return
    engine = config["engines"][run.engine]
    if engine.get("backend", "vllm") == "dummy":
        text = f"a dummy ('{run.engine}') has no tokenizer, and task '{run.prompts}' needs one"
        yield Problem((*path, "engine"), f"{text}; leave the run out of the rehearsal")
    elif engine.get("args", {}).get("max_model_len") is None:
        text = (
            f"task '{run.prompts}' cuts prompts to the context: set "
            f"engines.{run.engine}.args.max_model_len"
        )
        yield Problem((*path, "engine"), text)
    if entry.get("metrics"):
        text = f"task '{run.prompts}' is scored by lm-evaluation-harness; remove metrics"
        yield Problem((*path, "metrics"), text)


def judged_task_problems(config: Mapping[str, Any], runs: Sequence[Any]) -> Iterator[Problem]:
    """Yield prompts that are made from a run which asks a task: its rows are token ids."""
    asking = {run.name for run in runs if is_task(config["prompts"][run.prompts])}
    for name, entry in config["prompts"].items():
        for judged in judged_names(entry):
            if judged in asking:
                text = f"'{judged}' asks a task, whose rows cannot be judged; name another run"
                yield Problem(("prompts", name), text)
