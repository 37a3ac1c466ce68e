"""Score the completions of one run and summarise them: rule evaluate_run.

Reads `completions.parquet` in the run's folder; writes scores.parquet and metrics.json, beside
them identity.json and, last, manifest.json.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pyarrow.parquet as pq

from scripts.llm_batch.addresses import (
    atomic_path,
    read_json,
    write_identity,
    write_json_atomic,
    write_manifest,
)
from scripts.llm_batch.errors import WorkflowError, run_cli
from scripts.llm_batch.evaluation.document import Subject, metrics_document
from scripts.llm_batch.evaluation.metric_files import with_path
from scripts.llm_batch.evaluation.metrics import NamedMetric, build_metric
from scripts.llm_batch.evaluation.scoring import read_completions, score, score_table
from scripts.llm_batch.tasks.call import harness_of
from scripts.llm_batch.tasks.evaluation import Scorer, evaluate_task

LOG = logging.getLogger(__name__)


def parse_identity(text: str) -> dict[str, Any]:
    """Return the identity `{"run": address, "metrics": {name: {"type": …, settings}}}`."""
    try:
        identity = json.loads(text)
    except ValueError as error:
        raise WorkflowError(f"--identity: not JSON ({error})") from None
    if not isinstance(identity, dict) or not isinstance(identity.get("run"), str):
        raise WorkflowError('--identity: expected an object with "run", the address of a run')
    metrics = identity.get("metrics")
    if not isinstance(metrics, dict) or not all(isinstance(one, dict) for one in metrics.values()):
        raise WorkflowError('--identity: expected "metrics", an object of metrics by name')
    return identity


def build_metrics(identity: Mapping[str, Any], files: Mapping[str, str]) -> list[NamedMetric]:
    """Return the metrics of an identity; `files` are those of metrics in a Python file, by name."""
    return [
        build_metric(name, with_path(name, specification, files))
        for name, specification in sorted(identity["metrics"].items())
    ]


def evaluate_run(
    run: Path,
    name: str,
    identity: Mapping[str, Any],
    scores_path: Path,
    metrics_path: Path,
    files: Mapping[str, str] = MappingProxyType({}),
    scorer: Scorer | None = None,
) -> None:
    """Evaluate the run in folder `run` and write the evaluation's folder.

    `files` are the Python files of metrics, by the metric's name; `scorer` scores a run that asked
    a task.
    """
    folder = scores_path.parent
    if metrics_path.parent != folder:
        raise WorkflowError(f"{metrics_path}: --metrics must lie beside --scores, in {folder}")
    started = time.monotonic()
    subject = Subject(name, identity["run"])
    if scorer is not None:
        write_identity(folder, "evaluations", identity)
        document, written = evaluate_task(run, subject, scorer, scores_path, metrics_path)
    else:
        metrics = build_metrics(identity, files)
        completions = read_completions(run / "completions.parquet", is_judging(run))
        write_identity(folder, "evaluations", identity)
        scored = [(metric, score(completions, metric)) for metric in metrics]
        with atomic_path(scores_path) as temporary:
            pq.write_table(score_table(completions, scored), temporary, compression="zstd")
        document = metrics_document(subject, completions, scored)
        write_json_atomic(metrics_path, document)
        written = [scores_path, metrics_path]
    seconds = round(time.monotonic() - started, 3)
    write_manifest(folder, written, {"run": name, "seconds": seconds})
    LOG.info(
        "%s: %d completions of %d rows evaluated in %.1f s",
        *(name, document["completions"], document["rows"], seconds),
    )
    for value in document["values"]:
        LOG.info("%s", describe(value))


def is_judging(run: Path) -> bool:
    """Whether the prompts of a run were made from the completions of other runs."""
    path = run / "identity.json"
    identity = read_json(path)["identity"] if path.is_file() else {}
    return "from_runs" in identity.get("prompts", {})


def describe(value: Mapping[str, Any]) -> str:
    """Return one figure of metrics.json as a line for the log."""
    statistic = value["statistic"]
    if value["k"] is not None:
        statistic = statistic.rpartition("@")[0] + f"@{value['k']}"
    name = statistic if value["metric"] is None else f"{value['metric']} {statistic}"
    interval = ""
    if value["interval"] is not None:
        interval = f" [{value['low']:.4f}, {value['high']:.4f}] {value['interval']}"
    return f"{name}: {value['value']:.4f}{interval}, {value['rows']} rows"


def build_parser() -> argparse.ArgumentParser:
    """Return the command line of this program."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.evaluate_run", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--run", type=Path, required=True, help="folder of the merged run")
    parser.add_argument("--identity", required=True, help="the evaluation's identity, as JSON")
    parser.add_argument("--name", required=True, help="name of the run")
    parser.add_argument(
        "--files", type=json.loads, default={}, help="JSON: the Python files of metrics by name"
    )
    parser.add_argument("--harness", type=harness_of, help="JSON: what scores a task")
    parser.add_argument("--task", type=Path, help="prompts.jsonl of the task that was asked")
    parser.add_argument("--scores", type=Path, required=True, help="scores.parquet to write")
    parser.add_argument("--metrics", type=Path, required=True, help="metrics.json to write")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate one run; 0 on success."""
    options = build_parser().parse_args(argv)
    identity = parse_identity(options.identity)
    scorer = Scorer(options.harness, options.task) if options.harness else None
    evaluate_run(
        *(options.run, options.name, identity, options.scores, options.metrics, options.files),
        scorer=scorer,
    )
    return 0


if __name__ == "__main__":
    run_cli(main)
