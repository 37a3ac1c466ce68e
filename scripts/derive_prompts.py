"""Make prompts from the completions of other runs: rule derive_prompts.

In: one merged run, or two on the same rows, and the prompts files they were asked from. Out:
`rows.jsonl`, and beside it identity.json and, last, manifest.json.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Sequence
from pathlib import Path

from scripts.llm_batch.addresses import atomic_path, write_identity, write_manifest
from scripts.llm_batch.errors import WorkflowError, run_cli
from scripts.llm_batch.judged import Counts, Source, derive_rows

LOG = logging.getLogger(__name__)


def build_parser() -> argparse.ArgumentParser:
    """Return the command line of this program."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.derive_prompts", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--identity", required=True, type=json.loads, help="JSON of the stage's")
    parser.add_argument("--runs", required=True, type=Path, nargs="+", help="folders, in order")
    parser.add_argument("--prompts", required=True, type=Path, nargs="+", help="their files")
    parser.add_argument("--output", required=True, type=Path, help="rows.jsonl to write")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Write the rows; 0 on success."""
    arguments = build_parser().parse_args(argv)
    if len(arguments.runs) not in (1, 2) or len(arguments.prompts) != len(arguments.runs):
        raise WorkflowError("--runs: expected one or two, and a file of --prompts for each")
    folder: Path = arguments.output.parent
    write_identity(folder, "prompts", arguments.identity)
    pairs = zip(arguments.runs, arguments.prompts, strict=True)
    counts = Counts()
    with (
        atomic_path(arguments.output) as path,
        path.open("w", encoding="utf-8") as stream,
    ):
        for row in derive_rows([Source(*pair) for pair in pairs], counts):
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")
    LOG.info("%s: %d rows", arguments.output, counts.rows)
    if counts.left_out:
        LOG.warning(
            "%d completions are not judged: they, or what they would be compared with, are errors",
            counts.left_out,
        )
    facts = {"rows": counts.rows, "left_out": counts.left_out}
    write_manifest(folder, [arguments.output], facts)
    return 0


if __name__ == "__main__":
    run_cli(main)
