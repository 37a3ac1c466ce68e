"""What a user can mend is one line of the real command, without the places that Snakemake adds."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.workflow.project import Project

CASES = {
    "a misspelt key": (
        "temperature: 0.7",
        "temprature: 0.7",
        "error: config/config.yaml:22: samplings.warm.temprature: unknown key; "
        "did you mean 'temperature'? allowed: ",
    ),
    "prompts that are not there": (
        "path: prompts.jsonl",
        "path: nowhere.jsonl",
        "error: config/config.yaml:13: prompts.questions.path: no such file: 'nowhere.jsonl'; ",
    ),
    "more GPUs than there are": (
        "dummy: {}",
        "dummy: {gpus: 64}",
        "error: engines.toy: the engine needs 64 GPUs, and ",
    ),
}


@pytest.mark.parametrize(("old", "new", "said"), CASES.values(), ids=CASES)
def test_a_refusal_is_the_last_line_and_the_only_one_about_it(
    fresh_project: Project, old: str, new: str, said: str
) -> None:
    path = fresh_project.folder / "config/config.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--cores", "1"],
        cwd=fresh_project.folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 1
    assert "error" not in done.stdout.lower()
    *before, last = done.stderr.splitlines()
    assert last.startswith(said), done.stderr
    for line in before:
        assert not line.startswith(("  File ", "Traceback", "WorkflowError", "error")), done.stderr
    assert not (fresh_project.folder / "results/batches").exists()

    path.write_text(text)
    assert "locked" not in fresh_project.run("--dry-run").output
