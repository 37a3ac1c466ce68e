"""Calls of lm-evaluation-harness in its own environment: what it is told, and what goes wrong."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.llm_batch.addresses import canonical_json, file_sha256
from scripts.llm_batch.environments.uv_calls import run_logged
from scripts.llm_batch.errors import WorkflowError

ROOT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class Harness:
    """The harness, ready to be called for one task and one model; paths are placement.

    `identity` is that of the stage `tasks`; `files` are the paths of the files whose digests it
    holds, by the same names, and `task` is the path of the YAML among them, None for a task that
    the harness brings.
    """

    environment: Path
    model: Path
    identity: Mapping[str, Any]
    files: Mapping[str, str]
    task: str | None

    def call(self, what: str, prompts: Path, output: Path, more: Sequence[str] = ()) -> None:
        """Let the harness `build` or `score` in folder `output`; raises `WorkflowError`."""
        self._check_files()
        command = [
            *(str(self.environment.absolute() / "bin" / "python"), "-m", "scripts.harness", what),
            *("--settings", json.dumps(self._settings())),
            *("--prompts", str(prompts), "--output", str(output), *more),
        ]
        code, lines = run_logged(command, {**os.environ, "PYTHONPATH": str(ROOT)})
        if code:
            errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
            last = errors[-1] if errors else (lines or ["no message"])[-1]
            reason = f"lm-evaluation-harness ended with exit code {code} ({last}), its log is above"
            raise WorkflowError(f"{self._name}: {errors[-1] if errors else reason}")

    @property
    def _name(self) -> str:
        return self.task or str(self.identity["prompts"]["lm_eval"]["task"])

    def _settings(self) -> dict[str, Any]:
        prompts = self.identity["prompts"]
        options = {key: value for key, value in prompts["lm_eval"].items() if key != "files"}
        return {
            "task": self._name,
            "options": {**options, "limit": prompts.get("limit")},
            "files": sorted(self.files.values()),
            "dataset_revisions": options.get("dataset_revisions", {}),
            "model": str(self.model / "snapshot"),
            "max_model_len": self.identity["max_model_len"],
            "tokenizer_mode": self.identity.get("tokenizer_mode", "auto"),
            "trust_remote_code": self.identity.get("trust_remote_code", False),
            "chat_template_kwargs": prompts.get("chat_template_kwargs", {}),
        }

    def _check_files(self) -> None:
        for name, digest in self.identity["prompts"]["lm_eval"].get("files", {}).items():
            path = Path(self.files[name])
            try:
                found = file_sha256(path)
            except OSError as error:
                raise WorkflowError(f"{path}: cannot be read: {error.strerror}") from None
            if found != digest:
                raise WorkflowError(
                    f"{path}: changed since the workflow was planned; run it again, the changed "
                    "task gets an address of its own"
                )


def harness_spec(
    environment: str,
    model: str,
    identity: Mapping[str, Any],
    files: Mapping[str, str],
    task: str | None,
) -> str:
    """Return the word of a command line from which `harness_of` makes a `Harness`."""
    spec = {
        "environment": environment,
        "model": model,
        "identity": identity,
        "files": dict(files),
        "task": task,
    }
    return canonical_json(spec)


def harness_of(text: str) -> Harness:
    """Return the `Harness` of a command line's word."""
    spec = json.loads(text)
    return Harness(
        Path(spec["environment"]),
        Path(spec["model"]),
        spec["identity"],
        spec["files"],
        spec["task"],
    )
