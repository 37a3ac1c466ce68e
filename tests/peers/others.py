"""Programs of others that are compared: `vllm run-batch` and lm-evaluation-harness."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scripts.llm_batch.errors import WorkflowError
from tests.peers.gpu_speed import options
from tests.peers.measuring import run_measured
from tests.peers.stage import Engine, Result, failed

START_TIMEOUT_S = 300.0

TASK = "peers"


def run_batch_missing(python: Path | None, form: str) -> str | None:
    """Return why `vllm run-batch` cannot be run, None if it can."""
    if form != "chat":
        return "it takes chat messages only (--form chat)"
    return import_error(python, "vllm.entrypoints.openai.run_batch")


def lm_eval_missing(python: Path | None, sampling: str) -> str | None:
    """Return why lm-evaluation-harness cannot be run, None if it can."""
    if sampling != "greedy":
        return "it has no seed for each request (--sampling greedy)"
    return import_error(python, "lm_eval.models.vllm_causallms")


def import_error(python: Path | None, module: str) -> str | None:
    """Return why an interpreter cannot import `module`, None if it can."""
    if python is None:
        return "no --peer-python"
    if shutil.which(python) is None:
        return f"{python}: no interpreter there"
    done = subprocess.run(
        [python, "-c", f"import {module}"],
        capture_output=True,
        text=True,
        timeout=START_TIMEOUT_S,
        check=False,
    )
    if done.returncode == 0:
        return None
    return f"{python}: {(done.stderr.strip() or 'it cannot be imported').splitlines()[-1]}"


def read_requests(path: Path) -> list[dict[str, Any]]:
    """Return the requests of a file."""
    with path.open(encoding="utf-8") as stream:
        return [json.loads(line) for line in stream]


def run_run_batch(python: Path, engine: Engine, path: Path, folder: Path) -> Result:
    """Answer requests with `vllm run-batch`."""
    folder.mkdir(parents=True, exist_ok=True)
    snapshot = str((engine.model / "snapshot").resolve())
    asked, answered = folder / "asked.jsonl", folder / "answered.jsonl"
    with asked.open("w", encoding="utf-8") as stream:
        for request in read_requests(path):
            stream.write(json.dumps(batch_line(request, snapshot)) + "\n")
    command: list[str | Path] = [
        *(python, "-m", "vllm.entrypoints.openai.run_batch"),
        *("--input-file", asked, "--output-file", answered, "--model", snapshot),
        *options(engine.arguments()),
    ]
    measured = run_measured(command, folder / "log.txt", engine.variables())
    if measured.code != 0 or not answered.is_file():
        raise failed("vllm run-batch", measured)
    answers = {}
    for line in read_requests(answered):
        if line["response"]["status_code"] != 200:
            raise WorkflowError(f"vllm run-batch: {line['error'] or line['response']}")
        text = line["response"]["body"]["choices"][0]["message"]["content"]
        answers[line["custom_id"]] = (text or "", list[int]())
    return Result("run-batch", measured, len(answers), {}, answers)


def batch_line(request: Mapping[str, Any], model: str) -> dict[str, Any]:
    """Return a request as OpenAI's batch files have it."""
    return {
        "custom_id": request["key"],
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {
            "model": model,
            "messages": request["prompt"]["messages"],
            **request["sampling"],
        },
    }


def run_lm_eval(python: Path, engine: Engine, path: Path, folder: Path) -> Result:
    """Answer greedy requests with lm-evaluation-harness and a task made for them."""
    folder.mkdir(parents=True, exist_ok=True)
    requests = read_requests(path)
    chat = "messages" in requests[0]["prompt"]
    rows = [{"key": request["key"], "prompt": prompt_text(request)} for request in requests]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_task(folder, requests[0]["max_tokens"])
    settings = {
        "pretrained": str((engine.model / "snapshot").resolve()),
        "add_bos_token": False,
        **engine.arguments(),
    }
    command: list[str | Path] = [
        *(python, "-m", "lm_eval", "--model", "vllm", "--tasks", TASK),
        *("--model_args", ",".join(f"{name}={value}" for name, value in settings.items())),
        *("--include_path", folder / "task", "--batch_size", "auto", "--log_samples"),
        *("--output_path", folder / "output"),
        *(["--apply_chat_template"] if chat else []),
    ]
    variables = {**engine.variables(), "HF_HOME": str(folder / "cache")}
    measured = run_measured(command, folder / "log.txt", variables)
    samples = sorted((folder / "output").rglob("samples_*.jsonl"))
    if measured.code != 0 or not samples:
        raise failed("lm-evaluation-harness", measured)
    answers = {
        sample["doc"]["key"]: (str(sample["resps"][0][0]), list[int]())
        for sample in read_requests(samples[-1])
    }
    return Result("lm-eval", measured, len(answers), {}, answers)


def prompt_text(request: Mapping[str, Any]) -> str:
    """Return the text of a prompt; a chat's is its one message, the template comes later."""
    prompt = request["prompt"]
    return str(prompt["text"] if "text" in prompt else prompt["messages"][0]["content"])


def write_task(folder: Path, max_tokens: int) -> None:
    """Write the task: prompts as they are, no examples, nothing computed from the answers."""
    task = {
        "task": TASK,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / "rows.jsonl")}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "{{prompt}}",
        "doc_to_target": "{{key}}",
        "generation_kwargs": {
            "until": [],
            "do_sample": False,
            "temperature": 0.0,
            "max_gen_toks": max_tokens,
        },
        "metric_list": [{"metric": "bypass"}],
    }
    # JSON is YAML too.
    (folder / "task").mkdir(exist_ok=True)
    (folder / "task" / "task.yaml").write_text(json.dumps(task, indent=1))
