"""Judge an experiment, after everything else has been written: errors of runs, and gates.

In: the facts of each run, and the comparisons with the verdicts of the gates. Out: `verdict.json`,
only if every run keeps its `max_error_rate` and every gate passes.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scripts.llm_batch.addresses import read_json, write_json_atomic
from scripts.llm_batch.arguments import json_argument
from scripts.llm_batch.errors import WorkflowError, run_cli
from scripts.llm_batch.retries import RETRYABLE


def build_parser() -> argparse.ArgumentParser:
    """Return the command line of this program."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--limits",
        required=True,
        type=json_argument,
        help="JSON: the path of each run's facts, and its max_error_rate; - for stdin",
    )
    parser.add_argument(
        "--comparisons", required=True, type=Path, help="comparisons.json, with the gates' verdicts"
    )
    parser.add_argument("--output", required=True, type=Path, help="verdict.json to write")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Write the verdict; 0 if every run keeps its limit and every gate passes."""
    arguments = build_parser().parse_args(argv)
    report: Path = arguments.output.with_name("report.html")
    verdicts = [
        judge(Path(run["facts"]), run["max_error_rate"], report) for run in arguments.limits
    ]
    gates = read_json(arguments.comparisons)["gates"]
    broken = [verdict["message"] for verdict in verdicts if verdict["message"]]
    broken += [f"gate failed: {gate['message']}" for gate in gates if not gate["passed"]]
    if broken:
        raise WorkflowError("; ".join(broken))
    write_json_atomic(arguments.output, {"runs": verdicts, "gates": gates})
    return 0


def judge(path: Path, limit: float, report: Path) -> dict[str, Any]:
    """Return a run's error rate (errors / completions), its limit, and a message if above it.

    `path` is that of the run's facts.
    """
    facts, folder = read_json(path), path.parent
    errors = sum(facts["errors"].values())
    rate = errors / facts["completions"] if facts["completions"] else 0.0
    message = None
    if rate > limit:
        kinds = ", ".join(f"{count} {kind}" for kind, count in facts["errors"].items())
        message = (
            f"{folder.name}: {errors} of {facts['completions']} completions are errors ({kinds}): "
            f"{rate:.2%}, above max_error_rate {limit:.2%}; see {folder}/failures.jsonl, mend the "
            "prompts or raise the run's max_error_rate in a config; "
            f"{report} is written all the same"
        )
        if set(RETRYABLE).intersection(facts["errors"]):
            message += "; `python -m scripts.rerun_failed` asks again what another try could answer"
    return {"run": facts["run"], "error_rate": rate, "limit": limit, "message": message}


if __name__ == "__main__":
    run_cli(main)
