"""`python -m scripts.rerun_failed`: one command asks again what another try could answer."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.workflow.project import SECONDS, Outcome, Project, make_project

RUNS = ("toy.questions.greedy", "toy.questions.warm")


def rerun(project: Project, *words: str, experiment: str = "rehearsal") -> Outcome:
    command = [sys.executable, "-m", "scripts.rerun_failed", f"results/experiments/{experiment}"]
    done = subprocess.run(
        [*command, *words],
        cwd=project.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
        env={**os.environ, "PYTHONPATH": ""},
        check=False,
    )
    assert "Traceback" not in done.stdout
    return Outcome(done.returncode, done.stdout)


def keys_of(project: Project, run: str) -> list[str]:
    """Return the keys of a run's requests, in the order of its prompts."""
    address = project.one(f"runs/{run}-*").name.rpartition("-")[2]
    ledger = pq.read_table(project.one(f"batches/*/ledger/{address}.parquet"))
    keys: list[str] = ledger.column("key").to_pylist()
    return keys


def failed(key: str, kind: str) -> dict[str, Any]:
    """Return the journal line of a request that ended with an error."""
    error = {"type": kind, "message": "as a test wants it"}
    return {"key": key, "max_tokens": 8, "truncated_prompt_tokens": 0, "error": error}


def journal_errors(project: Project, engine: str, errors: Iterable[dict[str, Any]]) -> Path:
    """Leave a journal in which an engine of an earlier time gave `errors`."""
    path = project.folder / "results/engines" / engine / "journals/earlier.0.jsonl"
    path.parent.mkdir(parents=True)
    lines = [{"journal": {"version": 1, "backend": "dummy"}}, *errors]
    path.write_text("".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines))
    return path


@pytest.fixture(scope="module")
def unlucky_once(finished_project: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A finished project of whose 36 answers five are errors that will not come again."""
    project = make_project(tmp_path_factory.mktemp("unlucky") / "project")
    greedy, warm = (keys_of(finished_project, run) for run in RUNS)
    engine = finished_project.one("engines/toy-*").name
    errors = [failed(key, "engine_killed") for key in (*greedy[:2], *warm[5:7])]
    journal_errors(project, engine, [*errors, failed(warm[9], "output_corrupted")])
    outcome = project.snakemake()
    assert outcome.code != 0
    assert "above max_error_rate" in outcome.output
    return project


@pytest.fixture
def unlucky(unlucky_once: Project, tmp_path: Path) -> Project:
    """A copy of it."""
    folder = tmp_path / "unlucky"
    shutil.copytree(unlucky_once.folder, folder, symlinks=True)
    return Project(folder)


def completions(project: Project) -> dict[str, bytes]:
    """Return what is merged of every run."""
    found = project.folder.glob("results/runs/*/completions.*")
    return {f"{path.parent.name}/{path.name}": path.read_bytes() for path in found}


def test_only_what_failed_is_asked_again(unlucky: Project, finished_project: Project) -> None:
    before = unlucky.answered()
    outcome = rerun(unlucky)
    assert outcome.code == 0, outcome.output
    assert "4 engine_killed and 1 output_corrupted before, none now" in outcome.output
    assert unlucky.answered() == before + 5
    assert completions(unlucky) == completions(finished_project)
    assert unlucky.run().nothing_to_do
    again = rerun(unlucky)
    assert again.code == 0
    assert "there is nothing to ask" in again.output


def test_one_type_of_error_is_asked_again_alone(unlucky: Project) -> None:
    before = unlucky.answered()
    greedy = {n: b for n, b in completions(unlucky).items() if "greedy" in n}
    outcome = rerun(unlucky, "--types", "output_corrupted", "--", "--cores", "1", "runs")
    assert outcome.code == 0, outcome.output
    assert "1 output_corrupted before, none now" in outcome.output
    assert unlucky.answered() == before + 1
    facts = json.loads(unlucky.one("runs/toy.questions.warm-*/facts.json").read_text())
    assert facts["errors"] == {"engine_killed": 2}
    assert (facts["answered"], facts["reused"]) == (1, 23)
    # Of the same batch, which is made again: other errors stay what they are.
    assert {n: b for n, b in completions(unlucky).items() if "greedy" in n} == greedy


def test_a_retry_that_was_killed_goes_on_with_plain_snakemake(
    unlucky: Project, finished_project: Project
) -> None:
    """Which errors count no longer is written down, so nothing depends on who runs snakemake."""
    assert rerun(unlucky, "--", "--until", "shard_prompts").code == 0
    assert not list(unlucky.folder.glob("results/runs/*/manifest.json"))
    assert "run `snakemake --cores all` first" in rerun(unlucky).output
    before = unlucky.answered()
    unlucky.run()
    assert unlucky.answered() == before + 5
    assert completions(unlucky) == completions(finished_project)


def test_a_request_that_kills_again_is_asked_once_a_retry(fresh_project: Project) -> None:
    config = fresh_project.read_config()
    config["engines"]["toy"]["dummy"] = {"poison": "number 7"}
    config["runs"][0] |= {"sampling": ["greedy"], "max_error_rate": 0.5}
    fresh_project.write_config(config)
    fresh_project.run()
    before = fresh_project.answered()
    assert before == 12
    outcome = rerun(fresh_project, "--", "--cores", "2", "runs")
    assert outcome.code == 0, outcome.output
    assert "1 engine_killed before, 1 engine_killed now" in outcome.output
    assert fresh_project.answered() == before + 1


def test_a_dry_run_removes_nothing(unlucky: Project) -> None:
    before = sorted((unlucky.folder / "results").rglob("*"))
    outcome = rerun(unlucky, "--", "-n")
    assert outcome.code == 0
    assert "would ask again 4 engine_killed and 1 output_corrupted" in outcome.output
    assert sorted((unlucky.folder / "results").rglob("*")) == before


def test_errors_that_would_come_again_are_refused(project: Project) -> None:
    outcome = rerun(project, "--types", "engine_killed,prompt_too_long")
    assert outcome.code == 1
    assert outcome.output.startswith("error: --types prompt_too_long: only engine_killed and")
    assert "would come again" in outcome.output
    assert len(outcome.output.splitlines()) == 1


def test_without_such_errors_nothing_is_touched(
    project: Project, finished_project: Project
) -> None:
    outcome = rerun(project)
    assert outcome.code == 0
    assert "there is nothing to ask" in outcome.output
    assert not list(project.folder.glob("results/engines/*/retried.json"))
    assert completions(project) == completions(finished_project)


def test_an_experiment_that_is_not_there_is_one_line(project: Project) -> None:
    outcome = rerun(project, experiment="other")
    assert outcome.code == 1
    assert "results/experiments/other/experiment.json: missing" in outcome.output
    assert len(outcome.output.splitlines()) == 1


def test_it_keeps_off_a_folder_in_which_snakemake_runs(unlucky: Project) -> None:
    lock = unlucky.folder / ".snakemake/locks/0.input.lock"
    lock.parent.mkdir(exist_ok=True)
    lock.write_text("")
    outcome = rerun(unlucky)
    assert outcome.code == 1
    assert "another snakemake is at work here" in outcome.output
    assert len(list(unlucky.folder.glob("results/runs/*/manifest.json"))) == 2
