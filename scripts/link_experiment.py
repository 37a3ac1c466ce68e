"""Link the newest run of a config under its experiment's name, for people.

Out: `results/experiments/<experiment>/` with the report, its tables, `runs/<run>` for each run,
and, written last, `experiment.json`, the addresses behind the names.
"""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts.llm_batch.addresses import write_json_atomic
from scripts.llm_batch.arguments import json_argument
from scripts.llm_batch.errors import run_cli

REPORT_FILES = (
    "report.html",
    "report.md",
    "config.yaml",
    "tables",
    "plots",
)


def build_parser() -> argparse.ArgumentParser:
    """Return the command line of this program."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--experiment", required=True, type=json_argument, help="JSON of the record, or - for stdin"
    )
    parser.add_argument("--output", required=True, type=Path, help="experiment.json to write")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Replace the links; 0 on success."""
    arguments = build_parser().parse_args(argv)
    folder: Path = arguments.output.parent
    results = folder.parent.parent
    folder.mkdir(parents=True, exist_ok=True)
    replace_links(folder, planned_links(arguments.experiment, results))
    write_json_atomic(arguments.output, arguments.experiment)
    return 0


def planned_links(experiment: Mapping[str, Any], results: Path) -> dict[str, Path]:
    """Return what each link under the experiment's folder points to."""
    report = results / "reports" / experiment["report"]
    links = {name: report / name for name in REPORT_FILES if (report / name).exists()}
    for name, folders in experiment["runs"].items():
        links[f"runs/{name}"] = results / "runs" / folders["run"]
        links[f"evaluations/{name}"] = results / "evaluations" / folders["evaluation"]
    return links


def replace_links(folder: Path, links: Mapping[str, Path]) -> None:
    """Make exactly these links in `folder`; those of an earlier config go."""
    for group in ("runs", "evaluations"):
        shutil.rmtree(folder / group, ignore_errors=True)
    for old in folder.iterdir():
        if old.is_symlink() and old.name not in links:
            old.unlink()
    for name, target in links.items():
        link = folder / name
        link.parent.mkdir(parents=True, exist_ok=True)
        temporary = link.with_name(f".{link.name}.{os.getpid()}")
        temporary.symlink_to(os.path.relpath(target, link.parent))
        temporary.replace(link)


if __name__ == "__main__":
    run_cli(main)
