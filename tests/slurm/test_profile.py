"""`snakemake --profile profiles/slurm` on a real cluster: who gets which cards, and when."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.slurm.cluster import NODES
from tests.slurm.conftest import Submit
from tests.slurm.project import engine_records, make_slurm_project
from tests.workflow.kills import merged

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
