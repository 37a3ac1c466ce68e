"""Let lm-evaluation-harness write the requests of one task for one model: rule build_task.

Writes prompts.jsonl (a request a line, tokenised) and task.json (samplings, data sets, the task's
config) in the task's folder; beside them identity.json and, last, manifest.json.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts.llm_batch.addresses import (
    atomic_path,
    read_json,
    write_identity,
    write_json_atomic,
    write_manifest,
)
from scripts.llm_batch.config.schema import load_schema
from scripts.llm_batch.errors import WorkflowError, run_cli
from scripts.llm_batch.tasks.call import Harness, harness_of

LOG = logging.getLogger(__name__)

NOT_SETTINGS = frozenset({"n"})
SEED_END = 2**63
OF_HARNESS = frozenset({"detokenize"})
"""What a request of the harness has besides the keys of `samplings`."""


def build_task(harness: Harness, folder: Path) -> None:
    """Write the folder of a task; raises `WorkflowError`."""
    prompts = folder / "prompts.jsonl"
    write_identity(folder, "tasks", harness.identity)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".scratch-") as scratch:
        with atomic_path(prompts) as temporary:
            harness.call("build", temporary, Path(scratch))
        record = read_json(Path(scratch) / "task.json")
    check_samplings(record["samplings"], harness)
    write_json_atomic(folder / "task.json", record)
    counts = {"requests": record["requests"], "lm_eval": record["lm_eval"]}
    write_manifest(folder, [prompts, folder / "task.json"], counts)
    LOG.info("%s: %d requests", folder, record["requests"])


def check_samplings(samplings: Sequence[Mapping[str, Any]], harness: Harness) -> None:
    """Raise `WorkflowError` for a parameter that no request can have: every one would fail."""
    known = load_schema()["properties"]["samplings"]["additionalProperties"]["properties"]
    task = harness.task or harness.identity["prompts"]["lm_eval"]["task"]
    asks = f"{task}: its generation_kwargs, or gen_kwargs of the config, ask for"
    for segment in samplings:
        unknown = sorted(set(segment["params"]) - (set(known) - NOT_SETTINGS) - OF_HARNESS)
        if unknown:
            raise WorkflowError(
                f"{asks} '{unknown[0]}', which a request of vLLM does not have; take it out"
            )
        seed = segment["params"].get("seed", 0)
        if type(seed) is not int or not 0 <= seed < SEED_END:
            raise WorkflowError(f"{asks} seed {seed!r}; write a whole number from 0 below 2**63")


def build_parser() -> argparse.ArgumentParser:
    """Return the command line of this program."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.build_task", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--harness", type=harness_of, required=True, help="JSON: what to call")
    parser.add_argument("--output", type=Path, required=True, help="manifest.json to write")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Build the requests of one task; 0 on success."""
    options = build_parser().parse_args(argv)
    build_task(options.harness, options.output.parent)
    return 0


if __name__ == "__main__":
    run_cli(main)
