"""From a hub to the report: pinned, fetched with a token, answered by real vLLM without the hub."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.hub.fetching import Fetching
from tests.hub.test_access import TOKEN, files_with
from tests.workflow.project import ROOT, Project, make_project

pytestmark = pytest.mark.engine

CONFIG = """\
experiment: from-hub
models:
  adder: {repo: ann/adder}   # gated: Ann was let in
engines:
  adder:
    model: adder
    environment: cpu
    args: {dtype: float32, max_model_len: 64}
prompts:
  chat:
    path: prompts.jsonl
    messages:
      - {role: user, content: "{{ question }}"}
    reference: answer
    id: id
samplings:
  greedy: {temperature: 0, max_tokens: 8}
metrics:
  number: {type: numeric_match}
runs:
  - {engine: adder, prompts: chat, sampling: greedy}
"""


def test_a_gated_model_is_pinned_fetched_and_answers_with_the_hub_off(
    fetching: Fetching,
    model_bytes: dict[str, bytes],
    cpu_environment: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hub = fetching.hub
    hub.users = {TOKEN: "ann"}
    hub.repo("ann/adder", gated=True, readers={"ann"}).commit(model_bytes)
    fetching.variables["HF_TOKEN"] = TOKEN
    project = project_with(fetching, cpu_environment)
    for name in [name for name in os.environ if name.startswith("HF_")]:
        monkeypatch.delenv(name)
    for name, value in fetching.environment.items():
        monkeypatch.setenv(name, value)

    assert fetching.program("scripts.pin", "config/config.yaml").code == 0
    project.run("models")
    # A branch that moves, and a hub that is gone, change nothing any more.
    hub.repo("ann/adder").commit(model_bytes | {"config.json": b"{}"})
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    hub.asked.clear()
    project.run("--keep-incomplete")
    assert hub.asked == []

    figures = read_json(project.one("evaluations/*/metrics.json"))["values"]
    (accuracy,) = [each["value"] for each in figures if each["statistic"] == "accuracy"]
    assert accuracy == 1.0
    config = yaml.safe_load((project.folder / "config/config.yaml").read_text())
    commit = config["models"]["adder"]["revision"]
    page = (project.folder / "results/experiments/from-hub/report.html").read_text()
    assert f"ann/adder@{commit}" in page
    assert hashlib.sha256(model_bytes["model.safetensors"]).hexdigest() in page
    assert files_with(project.folder, TOKEN) == []


def project_with(fetching: Fetching, environment: Path) -> Project:
    """Return a project in the folder of `fetching` with the real environment and 50 prompts."""
    project = make_project(fetching.folder / "project")
    fetching.folder = project.folder
    (project.folder / "results/environments").mkdir(parents=True)
    (project.folder / "results/environments" / environment.name).symlink_to(environment)
    (project.folder / "config/config.yaml").write_text(CONFIG)
    lines = (ROOT / "config/quickstart/prompts.jsonl").read_text().splitlines()
    project.write_prompts([json.loads(line) for line in lines[:50]])
    return project


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())
