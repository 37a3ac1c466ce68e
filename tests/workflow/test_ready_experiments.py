"""Every config under config/experiments/ can be planned, and rehearsed to its report."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.workflow.project import ROOT, SECONDS

CONFIGS = sorted((ROOT / "config/experiments").glob("*.yaml"))
OF_THE_HUB = [path for path in CONFIGS if "repo:" in path.read_text(encoding="utf-8")]
STUDY = "config/experiments/top-p-top-k.yaml"
PAGE = ROOT / "docs/top-p-top-k.md"


def said_by(*command: str, home: Path) -> str:
    """Return what a program says that finds no hub; insist that it succeeds."""
    environment = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(home)}
    result = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout + result.stderr


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_a_ready_experiment_is_planned_without_network_and_gpu(
    config: Path, tmp_path: Path
) -> None:
    path = str(config.relative_to(ROOT))
    said = said_by("snakemake", "--cores", "2", "--dry-run", "--configfile", path, home=tmp_path)
    first_step = f"python -m scripts.pin {path}"
    unpinned = config in OF_THE_HUB
    assert (f"`{first_step}` writes the newest commit" in said) == unpinned
    assert (first_step in config.read_text(encoding="utf-8")) == unpinned
    assert list(tmp_path.iterdir()) == []


def test_the_page_of_the_study_counts_what_its_config_plans(tmp_path: Path) -> None:
    command = ("scripts.plan", "--json", "--configfile", STUDY)
    planned = json.loads(said_by(*command, home=tmp_path))["total"]
    page = PAGE.read_text(encoding="utf-8")
    found = re.search(r"\| asked \| ([\d\u202f]+) runs, ([\d\u202f]+) requests:", page)
    assert found
    counts = [int(text.replace("\u202f", "")) for text in found.groups()]
    assert counts == [planned["runs"], planned["requests"]]
    assert f"{counts[0]} runs of one engine start" in (ROOT / "README.md").read_text("utf-8")


def test_the_page_of_the_study_shows_plots_that_are_there_and_fetches_nothing() -> None:
    pictures = re.findall(r"!\[[^\]]+\]\((.*?)\)", PAGE.read_text(encoding="utf-8"))
    assert sorted(pictures) == sorted(
        str(path.relative_to(PAGE.parent)) for path in PAGE.with_suffix("").iterdir()
    )
    for picture in pictures:
        text = (PAGE.parent / picture).read_text(encoding="utf-8")
        tree = ElementTree.fromstring(text)
        assert tree.tag == "{http://www.w3.org/2000/svg}svg"
        # No variable of the report's page is left, and nothing comes from elsewhere.
        assert "var(" not in text
        assert "href" not in text


def test_the_list_of_experiments_names_each() -> None:
    text = (ROOT / "config/experiments/README.md").read_text(encoding="utf-8")
    assert CONFIGS
    for config in CONFIGS:
        assert f"`{config.name}`" in text
