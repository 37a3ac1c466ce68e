"""What passes between the harness and us: requests as they are asked, answers as they came."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq


class HarnessError(Exception):
    """A message for the user, in one line."""


@dataclass(frozen=True)
class Request:
    """One request to an engine.

    `token_ids` is the prompt; `text` is the same to read. `scored_from` is the position of the
    first token whose log-probability is asked for, None where text is to be generated. `instance`
    is what the harness asks for; it may take several requests (`part` numbers them).
    """

    token_ids: list[int]
    text: str
    sampling: Mapping[str, Any]
    scored_from: int | None
    instance: Any
    part: int = 0


@dataclass(frozen=True)
class Answer:
    """A generated text, or of each scored token the log-probabilities by token id."""

    text: str
    logprobs: list[dict[int, float]]


def write_requests(path: Path, requests: Sequence[Request], targets: Mapping[str, Any]) -> None:
    """Write prompts.jsonl: one request a line; `targets` are the right answers of documents."""
    with path.open("w", encoding="utf-8") as stream:
        for request, repeat in zip(requests, _repeats(requests), strict=True):
            row = _row(request, repeat)
            row["target"] = targets[f"{row['task']}/{row['doc']}"]
            stream.write(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n")


def _row(request: Request, repeat: int) -> dict[str, Any]:
    instance = request.instance
    name = f"{instance.task_name}/{instance.doc_id}/{instance.idx}"
    if request.part:
        name += f"/part-{request.part}"
    if repeat:
        name += f"/repeat-{repeat}"
    prompt: dict[str, Any] = {"token_ids": request.token_ids}
    if request.scored_from is not None:
        prompt["scored_from"] = request.scored_from
    return {
        "id": name,
        "task": instance.task_name,
        "doc": instance.doc_id,
        "request": instance.request_type,
        "text": request.text,
        "prompt": prompt,
    }


def _repeats(requests: Sequence[Request]) -> Iterator[int]:
    """Yield how often each request's instance was asked before."""
    seen: dict[tuple[int, int], int] = {}
    for request in requests:
        key = (id(request.instance), request.part)
        yield seen.get(key, 0)
        seen[key] = seen.get(key, 0) + 1


def sampling_segments(requests: Sequence[Request]) -> list[dict[str, Any]]:
    """Return the samplings of requests: `params` hold from line `line` on (the first is 1)."""
    segments: list[dict[str, Any]] = []
    for line, request in enumerate(requests, start=1):
        if not segments or segments[-1]["params"] != request.sampling:
            segments.append({"line": line, "params": dict(request.sampling)})
    return segments


def read_prompts(path: Path) -> list[dict[str, Any]]:
    """Return the `prompt` of each line of prompts.jsonl."""
    with path.open(encoding="utf-8") as stream:
        return [json.loads(line)["prompt"] for line in stream]


def read_answers(path: Path) -> list[Answer]:
    """Return the answers in completions.parquet, in the order of its lines.

    Raises `HarnessError` if one is missing or in error.
    """
    # Not read_table: it would take "name=value" in a folder's name for a column.
    with pq.ParquetFile(path) as file:
        table = file.read(columns=["line", "text", "prompt_logprobs", "error_type"])
    if table.column("line").to_pylist() != list(range(1, table.num_rows + 1)):
        raise HarnessError(f"{path}: its rows are not the lines of the task, one each")
    answers = []
    for row in table.to_pylist():
        if row["error_type"] is not None:
            raise HarnessError(f"{path}: line {row['line']} is an error ({row['error_type']})")
        answers.append(Answer(row["text"], _logprobs(row["prompt_logprobs"])))
    return answers


def _logprobs(text: str | None) -> list[dict[int, float]]:
    """Return log-probabilities in the engine's order, on which `is_greedy` depends where they tie.

    JSON has no infinity: null stands for it.
    """
    if text is None:
        return []
    return [
        {
            item["token_id"]: float("-inf") if item["logprob"] is None else item["logprob"]
            for item in position
        }
        for position in json.loads(text)
    ]
