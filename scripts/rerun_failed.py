"""Ask again the requests of an experiment that another try could answer.

    python -m scripts.rerun_failed results/experiments/quickstart
    python -m scripts.rerun_failed results/experiments/mine -- --configfile mine.yaml

What follows `--` goes to snakemake. Retried are requests that killed their engine or whose output
was corrupted: every other error is decided by the prompt and the engine, and would come again.
Removes what the errors went into (runs, evaluations, replications, reports, batches) and runs
snakemake, which makes it again: good answers are in the journals, so only these requests are asked.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.llm_batch.addresses import address, folder_address, read_json
from scripts.llm_batch.errors import WorkflowError, run_cli
from scripts.llm_batch.journals import read_journal
from scripts.llm_batch.retries import RETRYABLE, read_marks, write_marks

CORES = ("--cores", "--jobs")
DRY = frozenset({"-n", "--dry-run", "--dryrun"})
"""Words of snakemake's command line."""

log = logging.getLogger(__name__)


def build_parser() -> argparse.ArgumentParser:
    """Return the command line of this program."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("experiment", type=Path, help="results/experiments/<experiment>")
    parser.add_argument(
        "--types",
        default=",".join(RETRYABLE),
        help="types of error to ask again, with commas (default: %(default)s)",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Ask again what failed; snakemake's exit code, 0 if nothing failed."""
    own, words = split_words(sys.argv[1:] if argv is None else argv)
    arguments = build_parser().parse_args(own)
    kinds = checked_kinds(arguments.types.split(","))
    folder: Path = arguments.experiment
    results = Results(folder.parent.parent)
    refuse_other_snakemake(results.root.parent)
    runs = failed_runs(results, folder, kinds)
    if not runs:
        print(f"{folder}: no request ended with {' or '.join(kinds)}; there is nothing to ask")
        return 0
    if DRY.intersection(words):
        print(f"{folder}: would ask again {described(runs.values())}; nothing is removed")
        return 0
    print(f"{folder}: asking again {described(runs.values())}", flush=True)
    for run in runs:
        give_up_errors(results.journals(run), kinds)
    for made in results.made_from(list(runs)):
        log.info("removing %s", made)
        shutil.rmtree(made)
    code = subprocess.run(snakemake_command(words), check=False).returncode
    left = {run: errors_of(run, kinds) for run in runs}
    if all(counts is not None for counts in left.values()):
        print(f"{folder}: {described(runs.values())} before, {described(left.values())} now")
    return code


def split_words(words: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """Return the words before and after the first `--`."""
    place = list(words).index("--") if "--" in words else len(words)
    return words[:place], words[place + 1 :]


def checked_kinds(kinds: Sequence[str]) -> list[str]:
    """Return types of error that can be asked again; raise `WorkflowError` for any other."""
    allowed = " and ".join(RETRYABLE)
    for kind in kinds:
        if kind not in RETRYABLE:
            raise WorkflowError(
                f"--types {kind}: only {allowed} can be asked again; any other error is decided "
                "by the prompt and the engine and would come again: mend the prompts or the config"
            )
    return list(dict.fromkeys(kinds))


def refuse_other_snakemake(folder: Path) -> None:
    """Raise `WorkflowError` if snakemake holds the folder: its outputs are not ours to remove."""
    locks = folder / ".snakemake" / "locks"
    if locks.is_dir() and any(locks.iterdir()):
        raise WorkflowError(
            f"{locks}: another snakemake is at work here; wait for it, or if it was killed free "
            "the folder with `snakemake --unlock`"
        )


@dataclass(frozen=True)
class Results:
    """The folder `results/`, and what in it was made from what."""

    root: Path

    def journals(self, run: Path) -> list[Path]:
        """Return the folders of journals of the engine of a run, whatever it was named."""
        engine = address("engines", _identity(run)["engine"])
        return sorted(self.root.glob(f"engines/*-{engine}/journals"))

    def made_from(self, runs: Sequence[Path]) -> Iterator[Path]:
        """Yield the folders of runs and of all that they went into or came from.

        Runs come last: should this be interrupted, the next try still finds what failed.
        """
        addresses = {folder_address(run) for run in runs}
        evaluations = list(self._where("evaluations", lambda i: i["run"] in addresses))
        scored = {folder_address(evaluation) for evaluation in evaluations}
        yield from self._where(
            "reports", lambda i: any(entry["evaluation"] in scored for entry in i["evaluations"])
        )
        yield from evaluations
        yield from self._where("replications", lambda i: i["run"] in addresses)
        yield from self._where("batches", lambda i: not addresses.isdisjoint(i["runs"]))
        yield from runs

    def _where(self, stage: str, wanted: Callable[[Mapping[str, Any]], bool]) -> Iterator[Path]:
        for path in sorted(self.root.glob(f"{stage}/*/identity.json")):
            if wanted(_identity(path.parent)):
                yield path.parent


def _identity(folder: Path) -> Mapping[str, Any]:
    identity: Mapping[str, Any] = read_json(folder / "identity.json")["identity"]
    return identity


def failed_runs(
    results: Results, experiment: Path, kinds: Sequence[str]
) -> dict[Path, Counter[str]]:
    """Return the runs of an experiment that have errors of `kinds`, and how many of each."""
    record = read_json(experiment / "experiment.json")
    found = {}
    for folders in record["runs"].values():
        run = results.root / "runs" / folders["run"]
        counts = errors_of(run, kinds)
        if counts is None:
            raise WorkflowError(f"{run}: not complete; run `snakemake --cores all` first")
        if counts:
            found[run] = counts
    return found


def errors_of(run: Path, kinds: Sequence[str]) -> Counter[str] | None:
    """Return how many errors of `kinds` a run has; None if it is not complete."""
    if not (run / "manifest.json").is_file():
        return None
    errors = read_json(run / "facts.json")["errors"]
    return Counter({kind: errors[kind] for kind in kinds if kind in errors})


def give_up_errors(folders: Iterable[Path], kinds: Sequence[str]) -> None:
    """Have the errors of `kinds` that the journals in `folders` hold count no longer."""
    for folder in folders:
        marks = {
            path: frozenset(kinds_in(path)).intersection(kinds) - void
            for path, void in read_marks(sorted(folder.glob("*.jsonl"))).items()
        }
        write_marks(folder, {path: void for path, void in marks.items() if void})


def kinds_in(journal: Path) -> Iterator[str]:
    """Yield the types of the errors in a journal."""
    for answer in read_journal(journal):
        if answer.get("error"):
            yield answer["error"]["type"]


def snakemake_command(words: Sequence[str]) -> list[str]:
    """Return the command line; on all cores unless `words` say otherwise."""
    said = any(word[:2] in ("-c", "-j") or word.split("=")[0] in CORES for word in words)
    return [sys.executable, "-m", "snakemake", *([] if said else ["--cores", "all"]), *words]


def described(counts: Iterable[Counter[str] | None]) -> str:
    """Return counts in words, for instance `2 engine_killed and 1 output_corrupted`."""
    total: Counter[str] = sum((count for count in counts if count), Counter())
    return " and ".join(f"{number} {kind}" for kind, number in sorted(total.items())) or "none"


if __name__ == "__main__":
    run_cli(main)
