"""What `python -m scripts.plan` foretells of a sweep is what snakemake then does."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any

from tests.workflow.project import Project

SWEEP = {"temperature": [0, 0.7], "top_p": [0.8, 0.9]}
SEEDS = list(range(600))


def plan(project: Project, *arguments: str) -> dict[str, Any]:
    """Run the real program and return its JSON."""
    command = [sys.executable, "-m", "scripts.plan", "--json", *arguments]
    done = subprocess.run(command, cwd=project.folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert isinstance(document, dict)
    return document


def test_a_sweep_is_foretold_run_and_then_found_complete(project: Project) -> None:
    config = project.read_config()
    config["runs"] = [{"engine": "toy", "prompts": "questions", "sampling": "warm", "sweep": SWEEP}]
    config["samplings"]["warm"]["n"] = 1
    project.write_config(config)
    foretold = plan(project)
    assert foretold["replications"] == 0
    # Each is asked again by an engine start of its own, which the tables cannot show.
    assert plan(project, "--config", "replicate=2")["replications"] == 3
    runs = {run["run"]: run for run in foretold["runs"]}
    assert list(runs) == [
        "toy.questions.warm+temperature_0",
        "toy.questions.warm+temperature_0.7+top_p_0.8",
        "toy.questions.warm+temperature_0.7+top_p_0.9",
    ]
    # The first is the run `greedy` of before under another name; sample 0 of `warm` has the same
    # seed, whatever n is.
    assert [run["reused"] for run in runs.values()] == [12, 0, 12]
    (engine,) = foretold["engines"]
    assert (engine["requests"], engine["reused"], engine["engine_starts"]) == (36, 24, 1)

    dry = project.run("--dry-run")
    assert all(run["folder"] in dry.output for run in foretold["runs"])
    before = project.answered()
    project.run()
    assert project.answered() - before == engine["open"] == 12

    after = plan(project, "--config", "shards=2")
    assert [run["complete"] for run in after["runs"]] == [True] * 3
    assert (after["total"]["open"], after["total"]["engine_starts"]) == (0, 0)


def test_a_batch_of_more_runs_than_one_argument_holds_is_cut(fresh_project: Project) -> None:
    config = fresh_project.read_config()
    config["runs"] = [
        {"engine": "toy", "prompts": "questions", "sampling": "warm", "sweep": {"seed": SEEDS}}
    ]
    config["samplings"]["warm"]["n"] = 1
    fresh_project.write_config(config)
    fresh_project.run("--until", "shard_prompts", "--quiet", "rules")
    (batch,) = (fresh_project.folder / "results/batches").glob("*/batch.json")
    written = json.loads(batch.read_text())
    assert (len(written["runs"]), written["requests"]) == (len(SEEDS), 12 * len(SEEDS))


def test_a_slip_in_a_config_is_told_by_line_before_snakemake_reads_it(project: Project) -> None:
    (project.folder / "mine.yaml").write_text("experiment: mine\nruns:\n\t- engine: toy\n")
    expected = "error: mine.yaml:3: not YAML: .* a line begins with a tab; indent with blanks"
    for arguments in (["snakemake", "--dry-run"], ["scripts.plan"]):
        command = [sys.executable, "-m", *arguments, "--configfile", "mine.yaml"]
        done = subprocess.run(
            command, cwd=project.folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 1
        assert re.fullmatch(expected, done.stderr.splitlines()[-1])
        assert "Traceback" not in done.stderr
