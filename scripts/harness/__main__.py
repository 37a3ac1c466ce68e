"""Build the requests of a task, or score our answers to them: `python -m scripts.harness`.

Both read one JSON of settings: `task` (a name, or a YAML file), `options`, `files` (those whose
digests are part of the address), `dataset_revisions`, `model` (a folder), `tokenizer_mode`,
`trust_remote_code`, `max_model_len`, `chat_template_kwargs`.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Before transformers is imported: it would say that there is no PyTorch.
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import lm_eval
from lm_eval.utils import handle_non_serializable

from scripts.harness.data import close_door
from scripts.harness.evaluation import Loaded, evaluate, load, missing
from scripts.harness.model import Recorded, Recorder, Replayer, read_tokenizer
from scripts.harness.requests import (
    HarnessError,
    read_answers,
    read_prompts,
    sampling_segments,
    write_requests,
)


def build_parser() -> argparse.ArgumentParser:
    """Return the command line of this program."""
    parser = argparse.ArgumentParser(prog="python -m scripts.harness", description=__doc__)
    parser.add_argument("what", choices=["build", "score"])
    parser.add_argument("--settings", required=True, type=json.loads, help="JSON, see above")
    parser.add_argument("--prompts", required=True, type=Path, help="prompts.jsonl of the task")
    parser.add_argument("--completions", type=Path, help="score: completions.parquet of the run")
    parser.add_argument("--output", required=True, type=Path, help="folder to write to")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Do what is asked; 0 on success, 1 with one line on stderr for what a user can mend."""
    arguments = build_parser().parse_args(argv)
    logging.basicConfig(format="%(levelname)s %(message)s", level=logging.INFO, stream=sys.stderr)
    try:
        if arguments.what == "build":
            build(arguments.settings, arguments.prompts, arguments.output)
        else:
            score(arguments.settings, arguments.prompts, arguments.completions, arguments.output)
    except ModuleNotFoundError as error:
        print(f"error: {missing(arguments.settings['task'], error)}", file=sys.stderr)
        return 1
    except HarnessError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def build(settings: dict[str, Any], prompts: Path, output: Path) -> None:
    """Write `prompts`, and task.json to `output`: tasks, samplings, what data was read."""
    data = close_door(settings["dataset_revisions"], settings["files"])
    loaded = load(settings["task"])
    recorder = Recorder(list(loaded.tasks.values()), *_model_arguments(settings))
    try:
        evaluate(recorder, loaded, settings["options"])
    except Recorded:
        write_requests(prompts, recorder.requests, _targets(loaded))
    else:
        raise HarnessError(f"task '{settings['task']}' asks nothing that can be generated")
    record = {
        "lm_eval": lm_eval.__version__,
        "requests": len(recorder.requests),
        "samplings": sampling_segments(recorder.requests),
        "datasets": data,
        "tasks": {name: task.dump_config() for name, task in loaded.tasks.items()},
    }
    _write(output / "task.json", record)


def score(settings: dict[str, Any], prompts: Path, completions: Path, output: Path) -> None:
    """Write results.json and samples.jsonl, as the harness's own command does, to `output`."""
    close_door(settings["dataset_revisions"], settings["files"])
    loaded = load(settings["task"])
    model = Replayer(read_prompts(prompts), read_answers(completions), *_model_arguments(settings))
    results = evaluate(model, loaded, settings["options"])
    samples = results.pop("samples")
    with (output / "samples.jsonl").open("w", encoding="utf-8") as stream:
        for name in sorted(samples):
            for sample in samples[name]:
                stream.write(_json({"task": name, **sample}) + "\n")
    kept = ("results", "groups", "group_subtasks", "versions", "n-shot", "higher_is_better")
    record = {key: results[key] for key in (*kept, "n-samples") if key in results}
    record["lm_eval"] = lm_eval.__version__
    record["roots"] = [getattr(root, "name", None) or root.task_name for root in loaded.roots]
    _write(output / "results.json", record)


def _model_arguments(settings: dict[str, Any]) -> tuple[Any, int, dict[str, Any]]:
    tokenizer = read_tokenizer(
        settings["model"], settings["tokenizer_mode"], settings["trust_remote_code"]
    )
    return tokenizer, settings["max_model_len"], settings["chat_template_kwargs"]


def _targets(loaded: Loaded) -> dict[str, Any]:
    """Return the right answer of each document that is asked, as text."""
    targets = {}
    for name, task in loaded.tasks.items():
        for instance in task.instances:
            target = task.doc_to_target(instance.doc)
            targets[f"{name}/{instance.doc_id}"] = (
                target if isinstance(target, list) else str(target)
            )
    return targets


def _json(value: Any) -> str:
    return json.dumps(value, default=handle_non_serializable, ensure_ascii=False)


def _write(path: Path, record: dict[str, Any]) -> None:
    text = json.dumps(record, default=handle_non_serializable, ensure_ascii=False, indent=2)
    path.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
