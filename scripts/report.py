"""Compare the runs of an experiment in one self-contained page: rule report.

In: the folders of runs and their evaluations. Out: report.html, report.md for a pull request,
tables/ (every table as CSV and Parquet, with an index), plots/ (every plot as SVG), config.yaml and
comparisons.json (run against run, gates), with identity.json and manifest.json beside them.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scripts.llm_batch.arguments import json_argument
from scripts.llm_batch.errors import run_cli
from scripts.llm_batch.report.write import Sources, write_report

FOLDERS = ("runs", "evaluations", "replications")


def build_parser() -> argparse.ArgumentParser:
    """Return the command line of this program."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.report", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument(
        "--sources",
        required=True,
        type=json_argument,
        help="JSON with the report's identity and the folders of runs, evaluations and "
        "replications, in order; - for stdin",
    )
    parser.add_argument("--command", required=True, help="command line that makes all this again")
    parser.add_argument(
        "--report", required=True, type=Path, help="report.html to write, the rest beside it"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Write the report's folder; 0 on success."""
    arguments = build_parser().parse_args(argv)
    sources: dict[str, Any] = arguments.sources
    folders = {name: [Path(path) for path in sources[name]] for name in FOLDERS}
    write_report(
        Sources(
            identity=sources["identity"],
            runs=folders["runs"],
            evaluations=folders["evaluations"],
            replications=folders["replications"],
            command=arguments.command,
            config=sources.get("config", {}),
        ),
        arguments.report,
    )
    return 0


if __name__ == "__main__":
    run_cli(main)
