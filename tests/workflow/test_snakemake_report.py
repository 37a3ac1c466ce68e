"""Snakemake's own report holds the page, the tables and the plots, each with its caption."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

from tests.workflow.project import Project

CAPTIONS = (
    "One self-contained page",
    "for a pull request",
    "The config as it was read",
    "Table <em>headline</em>",
    "Table <em>comparisons</em>",
    "A figure of each run with its interval over rows",
    "Length of completions in tokens",
    "Experiment <strong>rehearsal</strong>",
)


def test_it_is_made_offline_and_holds_every_item_with_its_caption(
    finished_project: Project, tmp_path: Path
) -> None:
    path = tmp_path / "report.zip"
    # As people type it: without --cores. Nobody answers at this proxy.
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "ALL_PROXY"), "http://127.0.0.1:9")
    result = subprocess.run(
        [sys.executable, "-m", "snakemake", "--report", str(path)],
        cwd=finished_project.folder,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": "", **nowhere},
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr

    report = finished_project.one("reports/*")
    with zipfile.ZipFile(path) as packed:
        items = {Path(name).name for name in packed.namelist()}
        html = packed.read("report/report.html").decode()
    files = {file.name for kind in ("tables/*.csv", "plots/*.svg") for file in report.glob(kind)}
    assert len(files) > 12
    assert items == files | {"report.html", "report.md", "config.yaml"}
    for caption in CAPTIONS:
        assert caption in html, caption
