"""How long a call takes that finds everything in place: 100 runs of a million prompts.

    python -m tests.peers.noop --runs 100 --rows 1000000

The prompts file is real. The results are simulated: every file that the plan names is there, as
long as a real one of that kind and count, but sparse, holding nothing but what the plan reads
(which batch made a run). `snakemake --touch` writes Snakemake's records of them. What is timed is
the real command, from its start to "Nothing to be done".
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.peers.measuring import ROOT, Measured, number, run_measured, table
from tests.peers.scale import write_prompts

SECONDS = 900

BYTES_A_ROW = {".parquet": 50, ".jsonl": 500}
"""As `scale.py` leaves them; other files are small."""

COLUMNS = ("call", "wall (s)", "CPU (s)", "memory (MB)")


def config(runs: int) -> dict[str, Any]:
    """Return a config of `runs` samplings of one prompts file on one dummy engine."""
    samplings = {
        f"s{place:03}": {"temperature": 0.7, "seed": place, "max_tokens": 16}
        for place in range(runs)
    }
    prompts = {"path": "prompts.jsonl", "template": "{{ question }}", "reference": "answer"}
    return {
        "experiment": "noop",
        "models": {"toy": {"path": "model"}},
        "engines": {"toy": {"model": "toy", "backend": "dummy", "tuning": {"shards": 4}}},
        "prompts": {"questions": {**prompts, "id": "id"}},
        "samplings": samplings,
        "metrics": {"exact": {"type": "exact_match"}},
        "runs": [{"engine": "toy", "prompts": "questions", "sampling": list(samplings)}],
    }


def snakemake(folder: Path, *arguments: str) -> list[str]:
    """Return the command line of the workflow in `folder`."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile")]
    config_file = str(folder / "config.yaml")
    return [*command, "--directory", str(folder), "--configfile", config_file, *arguments]


def output_files(folder: Path) -> list[str]:
    """Return every file and folder that the plan makes, as Snakemake lists them."""
    done = subprocess.run(
        snakemake(folder, "--summary", "--quiet"),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=True,
    )
    lines = [line.split("\t") for line in done.stdout.splitlines() if "\t" in line]
    return [fields[0] for fields in lines if fields[0].startswith("results/")]


def simulate(folder: Path, names: Sequence[str], rows: int) -> int:
    """Make the files, sparse; return how many."""
    batches = [name.split("/")[2] for name in names if name.startswith("results/batches/")]
    for name in names:
        path = folder / name
        if not path.suffix:
            path.mkdir(parents=True, exist_ok=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".json":
            path.write_text(json.dumps({"simulated": True, "facts": {"batch": batches[0]}}))
            continue
        with path.open("wb") as stream:
            stream.truncate(rows * BYTES_A_ROW.get(path.suffix, 0) + 1)
    return len(names)


def build_parser() -> argparse.ArgumentParser:
    """Return the command line of this program."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--calls", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where to make the temporary folder")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; 0 if every call had nothing to do."""
    arguments = build_parser().parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="noop-", dir=arguments.folder) as name:
        folder = Path(name)
        write_prompts(folder / "prompts.jsonl", arguments.rows)
        (folder / "config.yaml").write_text(yaml.safe_dump(config(arguments.runs)))
        count = simulate(folder, output_files(folder), arguments.rows)
        done = [call(folder, "--touch", "--cores", "1", "--quiet", name="--touch")]
        done += [
            call(folder, "--cores", "1", name=f"call {number}")
            for number in range(1, arguments.calls + 1)
        ]
        nothing = ["Nothing to be done" in measured.log.read_text() for _, measured in done[1:]]
    print(table(COLUMNS, [cells(name, measured) for name, measured in done]))
    print(f"\n{arguments.runs} runs of {arguments.rows:,} prompts, {count:,} simulated files")
    if not all(nothing):
        print("error: a call had something to do", file=sys.stderr)
    return 0 if all(nothing) else 1


def call(folder: Path, *arguments: str, name: str) -> tuple[str, Measured]:
    """Run the workflow and measure it."""
    log = folder / f"{name.strip('-')}.log"
    measured = run_measured(snakemake(folder, *arguments), log, os.environ)
    if measured.code != 0:
        raise SystemExit(f"{name} failed:\n{measured.tail()}")
    return name, measured


def cells(name: str, measured: Measured) -> tuple[str, ...]:
    """Return a row of the table."""
    memory = measured.peak_bytes / 1e6
    return (name, number(measured.seconds, 1), number(measured.cpu_seconds, 1), number(memory, 0))


if __name__ == "__main__":
    sys.exit(main())
