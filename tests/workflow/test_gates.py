"""Gates and metrics of one's own through the real chain: a verdict, an exit code, nothing lost."""

from __future__ import annotations

import json

from tests.workflow.project import Project

LENGTH = """\
def score(completion, reference, row):
    return len(completion), row["finish_reason"]
"""


def test_a_gate_that_fails_ends_the_call_after_everything_is_written(project: Project) -> None:
    (project.folder / "mine.py").write_text(LENGTH)
    config = project.read_config()
    config["metrics"]["mine"] = {"type": "python", "path": "mine.py"}
    config["samplings"]["again"] = {**config["samplings"]["warm"], "seed": 5}
    config["runs"][0]["sampling"] = ["greedy", "warm", "again"]
    warm = {"run": "toy.questions.warm", "metric": "mine"}
    config["gates"] = [{**warm, "at_least": 1}, {**warm, "at_least": 1e6}]
    project.write_config(config)

    failed = project.snakemake()
    assert failed.code != 0
    logs = (project.folder / "logs/check_experiment").glob("*.log")
    said = "".join(log.read_text() for log in logs)
    assert "gate failed: toy.questions.warm has at least 1e+06 on mine: refuted" in said
    newest = max(
        (project.folder / "results/reports").glob("*/comparisons.json"),
        key=lambda path: path.stat().st_mtime,
    )
    document = json.loads(newest.read_text())
    assert [gate["passed"] for gate in document["gates"]] == [True, False]
    assert [one["runs"] for one in document["settings"]] == [
        ["toy.questions.greedy"],
        ["toy.questions.warm", "toy.questions.again"],
    ]
    assert newest.with_name("report.html").is_file()

    config["gates"].pop()
    project.write_config(config)
    planned = project.planned()
    assert set(planned) == {"report", "check_experiment", "link_experiment"}, "no engine starts"
    project.run()
    verdict = json.loads(
        (project.folder / "results/reports" / f"{project_report(project)}/verdict.json").read_text()
    )
    assert [gate["passed"] for gate in verdict["gates"]] == [True]

    (project.folder / "mine.py").write_text(f"# A comment is another file.\n{LENGTH}")
    assert set(project.planned()) >= {"evaluate_run", "report"}


def project_report(project: Project) -> str:
    """Return the folder of the report that the experiment's links point to."""
    experiment = json.loads(
        (project.folder / "results/experiments/rehearsal/experiment.json").read_text()
    )
    return str(experiment["report"])
