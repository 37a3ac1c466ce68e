"""`sbatch profiles/slurm/run.sbatch`: the whole workflow in one allocation, warned midway."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.slurm.cluster import NODES, Cluster, wait_for
from tests.slurm.project import SECONDS, engine_records, make_slurm_project, shard_answers
from tests.workflow.kills import journaled, merged

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

SHARDS = 4
SCRIPT = "profiles/slurm/run.sbatch"


def test_an_allocation_of_two_nodes_is_shared_out_warned_queued_again_and_goes_on(
    cluster: Cluster, tmp_path: Path
) -> None:
    local = make_slurm_project(tmp_path / "local", None, 1)
    local.run("runs")
    project = make_slurm_project(tmp_path / "project", 1, SHARDS, latency_s=0.8)
    options = ("--parsable", f"--chdir={project.folder}", "--nodes=2", "--mem=2000", "--time=10")
    job = cluster.call("sbatch", *options, str(project.folder / SCRIPT), "runs")
    log = project.folder / f"slurm-{job}.out"

    def state() -> str:
        return cluster.call("squeue", "-h", "-t", "all", "-j", job, "-o", "%T")

    def output() -> str:
        return log.read_text() if log.exists() else ""

    def answered() -> bool:
        assert state() in ("PENDING", "RUNNING"), output()
        counts = shard_answers(project)
        return len(counts) == SHARDS and min(counts.values()) > 0

    wait_for("answers of all shards", answered, SECONDS)
    cluster.call("scancel", "--batch", "--signal=USR1", job)
    wait_for("second start", lambda: output().count("Building DAG") == 2, SECONDS)
    wait_for("end", lambda: state() not in ("PENDING", "RUNNING", "COMPLETING"), SECONDS)
    assert state() == "COMPLETED", output()

    records = engine_records(project)
    assert Counter(record["exit"] for record in records) == {"interrupted": 4, "finished": 4}
    assert {record["slurm"]["job"] for record in records} == {job}
    cards = Counter((record["slurm"]["node"], record["visible_gpus"]) for record in records)
    assert cards == {(node, card): 2 for node in NODES for card in "01"}
    assert merged(project) == merged(local)
    assert set(Counter(journaled(project)).values()) == {1}
