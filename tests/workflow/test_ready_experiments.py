"""Every config under config/experiments/ can be planned, and rehearsed to its report."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.workflow.project import ROOT

CONFIGS = sorted((ROOT / "config/experiments").glob("*.yaml"))


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_a_ready_experiment_is_planned_without_network_and_gpu(
    config: Path, tmp_path: Path
) -> None:
    environment = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "--dry-run"]
    path = str(config.relative_to(ROOT))
    result = subprocess.run(
        [*command, "--configfile", path],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    said = result.stdout + result.stderr
    assert result.returncode == 0, said
    assert f"`python -m scripts.pin {path}` writes the newest commit" in said
    assert f"python -m scripts.pin {path}" in config.read_text(encoding="utf-8")
    assert list(tmp_path.iterdir()) == []


def test_the_list_of_experiments_names_each() -> None:
    text = (ROOT / "config/experiments/README.md").read_text(encoding="utf-8")
    assert CONFIGS
    for config in CONFIGS:
        assert f"`{config.name}`" in text
