"""`snakemake --profile profiles/slurm` on a real cluster: who gets which cards, and when."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.slurm.cluster import NODES, Cluster
from tests.slurm.conftest import Submit
from tests.slurm.project import engine_records, fill_in_profile, make_slurm_project
from tests.workflow.kills import merged
from tests.workflow.test_quickstart import accuracy, copy_of_checkout, headline

pytestmark = pytest.mark.slurm


def test_the_jobs_of_an_array_have_a_card_each_and_the_bytes_of_a_local_run(
    submit: Submit, tmp_path: Path
) -> None:
    local = make_slurm_project(tmp_path / "local", None, 1)
    local.run("runs")
    project = make_slurm_project(tmp_path / "project", 1, 4, latency_s=0.2)
    output = submit(project, "runs", "--slurm-array-jobs", "generate").succeed()
    assert "Submitted array job" in output
    records = engine_records(project)
    assert len(records) == 4
    cards = [(record["slurm"]["node"], record["visible_gpus"]) for record in records]
    assert sorted(cards) == [(node, card) for node in NODES for card in "01"]
    assert len({record["slurm"]["job"] for record in records}) == 4
    assert merged(project) == merged(local)


def test_two_gpus_of_a_job_are_on_one_node_however_many_are_free_elsewhere(
    submit: Submit, cluster: Cluster, tmp_path: Path
) -> None:
    # One card of each node is taken for a while: two are free, but not on one node.
    for node in NODES:
        words = ("--gpus=1", "--mem=100", "--output=/dev/null", f"--nodelist={node}")
        cluster.call("sbatch", *words, "--wrap=sleep 12")
    project = make_slurm_project(tmp_path / "project", 2, 2, latency_s=0.1)
    submit(project, "runs").succeed()
    records = engine_records(project)
    assert [record["visible_gpus"] for record in records] == ["0,1", "0,1"]
    assert {record["slurm"]["node"] for record in records} <= set(NODES)


def test_arrays_that_would_go_wrong_are_refused_before_anything_is_submitted(
    submit: Submit, cluster: Cluster, tmp_path: Path
) -> None:
    project = make_slurm_project(tmp_path / "project", 1, 4)
    call = submit(project, "--jobs", "3", "--slurm-array-jobs", "generate")
    assert call.end() == 1
    assert "with --jobs 3 some of 4 shards would never be submitted" in call.output
    assert "Traceback" not in call.output
    assert not call.jobs("all")


@pytest.mark.engine
@pytest.mark.slow
def test_the_quickstart_runs_on_a_real_engine_of_a_node(
    submit: Submit, cpu_environment: Path, tmp_path: Path
) -> None:
    project = copy_of_checkout(tmp_path, cpu_environment)
    config = project.read_config()
    for prompts in config["prompts"].values():
        prompts["limit"] = 60
    config["runs"] = [
        {"engine": "adder-cpu", "prompts": name, "sampling": "greedy", "max_error_rate": 0.1}
        for name in config["prompts"]
    ]
    project.write_config(config)
    fill_in_profile(project)
    output = submit(project).succeed()
    assert output.count("has been submitted with SLURM jobid") == 1
    assert "report: results/experiments/quickstart/report.html" in output
    (record,) = engine_records(project)
    assert record["backend"] == "vllm"
    assert record["slurm"]["node"] in NODES
    assert record["visible_gpus"] is None
    assert json.loads(project.one("runs/adder-cpu.chat.greedy-*/facts.json").read_text())
    assert min(accuracy(row) for row in headline(project).values()) >= 0.9
