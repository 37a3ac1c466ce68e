"""The programs that are compared: our generate stage, and a bare `LLM.generate` set up alike."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from scripts.llm_batch.errors import WorkflowError
from scripts.llm_batch.generate.settings import EngineSpec, engine_arguments, worker_environment
from tests.peers.measuring import ROOT, Measured, run_measured

BARE = Path(__file__).with_name("bare.py")


def make_request(
    number: int, prompt: Mapping[str, Any], sampling: Mapping[str, Any]
) -> dict[str, Any]:
    """Return a request as `shard_prompts` writes it; `number` makes it one of its kind."""
    content = json.dumps([number, prompt, sampling])
    return {
        "key": hashlib.sha256(content.encode()).hexdigest()[:32],
        "max_tokens": sampling["max_tokens"],
        "prompt": prompt,
        "sampling": sampling,
        "on_too_long": "error",
        "expected_tokens": sampling["max_tokens"],
    }


def write_requests(path: Path, requests: Iterable[Mapping[str, Any]]) -> Path:
    """Write a requests file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as stream:
        for request in requests:
            stream.write(json.dumps(request, separators=(",", ":")) + "\n")
    return path


def make_environment(folder: Path, python: Path, cuda: str | None) -> Path:
    """Make a folder that looks like results/environments/* and uses the interpreter `python`.

    Its bin/python keeps PYTHONPATH, which `scripts.generate` takes away from its workers.
    """
    program = folder / "bin" / "python"
    program.parent.mkdir(parents=True, exist_ok=True)
    lines = ["#!/bin/sh", f'exec {shlex.quote(str(python))} "$@"', ""]
    if path := os.environ.get("PYTHONPATH"):
        lines.insert(1, f"export PYTHONPATH={shlex.quote(path)}")
    program.write_text("\n".join(lines))
    program.chmod(0o755)
    (folder / "environment.json").write_text(json.dumps({"cuda": cuda}))
    return folder


def make_model(folder: Path, snapshot: Path) -> Path:
    """Make a folder that looks like results/models/* around a model's own folder."""
    folder.mkdir(parents=True, exist_ok=True)
    link = folder / "snapshot"
    link.unlink(missing_ok=True)
    link.symlink_to(snapshot.resolve())
    return folder


@dataclass(frozen=True)
class Engine:
    """An engine: folders as the workflow makes them, `args` and `tuning` as in the config."""

    environment: Path
    model: Path
    cuda: str | None
    args: Mapping[str, Any]
    tuning: Mapping[str, Any]
    determinism: str = "fast"

    @property
    def python(self) -> Path:
        """Return the interpreter."""
        return self.environment.absolute() / "bin" / "python"

    def spec(self) -> EngineSpec:
        """Return what `scripts.generate` makes of these."""
        return EngineSpec(
            backend="vllm",
            args=self.args,
            dummy={},
            tuning=self.tuning,
            determinism=self.determinism,
            model=(self.model / "snapshot").resolve(),
            adapters=(),
            interpreter=self.python,
            device="cpu" if self.cuda is None else "cuda",
        )

    def arguments(self) -> dict[str, Any]:
        """Return the arguments with which our stage starts vLLM."""
        defaults, arguments = engine_arguments(self.spec())
        return {**defaults, **arguments}

    def variables(self) -> dict[str, str]:
        """Return the environment variables with which our stage starts vLLM."""
        return worker_environment(self.spec(), os.environ)


@dataclass(frozen=True)
class Result:
    """One measured run. `facts`: start-up split, generate_s, tokens; `answers`: key to tokens."""

    peer: str
    measured: Measured
    requests: int
    facts: Mapping[str, Any]
    answers: Mapping[str, tuple[str, list[int]]]


def failed(peer: str, measured: Measured) -> WorkflowError:
    """Return the error for a program that did not do its work."""
    return WorkflowError(
        f"{peer} ended with code {measured.code}; {measured.log} ends with:\n{measured.tail()}"
    )


def run_bare(engine: Engine, requests: Path, folder: Path) -> Result:
    """Answer `requests` with one `LLM.generate`, its start and its end included."""
    folder.mkdir(parents=True, exist_ok=True)
    task = {
        "arguments": {"model": str((engine.model / "snapshot").resolve()), **engine.arguments()},
        "requests": str(requests),
        "answers": str(folder / "answers.jsonl"),
        "facts": str(folder / "facts.json"),
    }
    (folder / "task.json").write_text(json.dumps(task))
    command = [engine.python, BARE, folder / "task.json"]
    measured = run_measured(command, folder / "log.txt", engine.variables())
    if measured.code != 0:
        raise failed("bare LLM.generate", measured)
    facts = json.loads((folder / "facts.json").read_text())
    with (folder / "answers.jsonl").open(encoding="utf-8") as stream:
        rows = [json.loads(line) for line in stream]
    answers = {row["key"]: (row["text"], row["token_ids"]) for row in rows}
    return Result("bare", measured, len(rows), facts, answers)


def run_ours(engine: Engine, requests: Path, folder: Path) -> Result:
    """Answer `requests` with the generate stage, as its rule starts it; nothing is reused."""
    completions, facts_path = folder / "completions.parquet", folder / "facts.json"
    identity = {
        "backend": "vllm",
        "args": dict(engine.args),
        "determinism": engine.determinism,
    }
    command: list[str | Path] = [
        *(sys.executable, "-m", "scripts.generate"),
        *("--requests", requests),
        *("--journals", folder / "engine" / "journals"),
        *("--journal-name", "peers-000000000000.0"),
        *("--model", engine.model),
        *("--environment", engine.environment),
        *("--engine", json.dumps(identity)),
        *("--tuning", json.dumps(dict(engine.tuning))),
        *("--completions", completions),
        *("--facts", facts_path),
    ]
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    measured = run_measured(command, folder / "log.txt", environment)
    if measured.code != 0:
        raise failed("scripts.generate", measured)
    facts = json.loads(facts_path.read_text())
    if facts["errors"]:
        raise WorkflowError(f"scripts.generate answered with errors: {facts['errors']}")
    rows = pq.read_table(completions, columns=["key", "text", "token_ids"]).to_pylist()
    answers = {row["key"]: (row["text"], row["token_ids"]) for row in rows}
    return Result("ours", measured, len(rows), flat_facts(facts), answers)


def flat_facts(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts of the one engine start of a shard, named as those of the bare script."""
    engine = facts["engines"][-1]
    return {**engine, "starts": len(facts["engines"])}


def share_identical(results: Sequence[Result], keys: Sequence[str]) -> float | None:
    """Return the share of `keys` that all `results` answer with the same tokens."""
    if len(results) < 2 or not keys:
        return None
    first, *others = (result.answers for result in results)
    same = sum(
        all(other[key][1] == first[key][1] for other in others) for key in keys if key in first
    )
    return same / len(keys)
