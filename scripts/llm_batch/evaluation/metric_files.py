"""Metrics in a Python file of the user's: the file's bytes are identity, its place is not."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from scripts.llm_batch.addresses import file_sha256
from scripts.llm_batch.config.records import Config, Metric
from scripts.llm_batch.digests import DigestMemo
from scripts.llm_batch.errors import WorkflowError

OWN = "python"
DIGEST = "file_sha256"


def with_digests(config: Config, memo: DigestMemo) -> Config:
    """Return `config` with the file's digest in place of its path, in each metric that a run has.

    Raises `WorkflowError` for a file that cannot be read.
    """
    used = {name for run in config.runs for name in run.metrics}
    metrics = {
        name: _with_digest(metric, memo) if name in used and metric.type == OWN else metric
        for name, metric in config.metrics.items()
    }
    return replace(config, metrics=metrics)


def _with_digest(metric: Metric, memo: DigestMemo) -> Metric:
    settings = {key: value for key, value in metric.settings.items() if key != "path"}
    return replace(
        metric, settings={**settings, DIGEST: memo.sha256(Path(metric.settings["path"]))}
    )


def metric_files(config: Config, evaluation: Mapping[str, Any]) -> dict[str, str]:
    """Return the files of the metrics in an evaluation's identity, by the metric's name."""
    return {
        name: str(config.metrics[name].settings["path"])
        for name, specification in evaluation["metrics"].items()
        if DIGEST in specification
    }


def with_path(
    name: str, specification: Mapping[str, Any], files: Mapping[str, str]
) -> dict[str, Any]:
    """Return a specification of an identity with the path of its file in place of the digest.

    Raises `WorkflowError` if the file is not the one that the plan saw.
    """
    if DIGEST not in specification:
        return dict(specification)
    if name not in files:
        raise WorkflowError(f"--files: no file for metrics.{name}")
    path = Path(files[name])
    try:
        digest = file_sha256(path)
    except OSError as error:
        raise WorkflowError(f"{path}: cannot be read: {error.strerror}") from None
    if digest != specification[DIGEST]:
        raise WorkflowError(
            f"{path}: changed since the workflow was planned; run it again, the changed file gets "
            "an address of its own"
        )
    return {**{k: v for k, v in specification.items() if k != DIGEST}, "path": str(path)}


def file_problem(path: Path, function: str) -> str | None:
    """Return what is wrong with the file of a metric, as far as reading tells, or None."""
    try:
        tree = ast.parse(path.read_bytes())
    except OSError as error:
        return f"'{path}' cannot be read: {error.strerror}; write the path of a Python file"
    except SyntaxError as error:
        return f"{path}:{error.lineno}: {error.msg}; mend the file"
    except ValueError as error:
        return f"'{path}' is not Python ({error}); write the path of a Python file"
    names = {name for node in tree.body for name in _bound(node)}
    if not names & {function, "*"}:
        return f"'{path}' defines no function '{function}'; write it, or name another as 'function'"
    return None


def _bound(node: ast.stmt) -> list[str]:
    """Return the names that a statement of a module binds; `*` for all of another module's."""
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return [node.name]
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return [alias.asname or alias.name for alias in node.names]
    targets = node.targets if isinstance(node, ast.Assign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]
