"""Data sets from the hub: fetched by split, checked, and asked as prompts with examples."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scripts.llm_batch.addresses import address, canonical_json
from tests.hub.fetching import Fetching
from tests.workflow.project import make_project

CARD = b"""---
configs:
- config_name: main
  data_files:
  - {split: train, path: main/train-*}
  - {split: test, path: main/test-*}
- config_name: other
  data_files: other/*.jsonl
---
# Sums
"""

CONFIG = """\
experiment: sums
models: {toy: {path: model}}
engines:
  toy: {model: toy, backend: dummy}
prompts:
  sums:
    dataset: ann/sums
    config: main
    split: test
    filter: level == 1
    limit: 5
    sample_seed: 1
    few_shot:
      split: train
      count: 2
      seed: 3
      messages:
        - {role: user, content: "{{ question }}"}
        - {role: assistant, content: "{{ answer }}"}
    messages:
      - {role: system, content: Add.}
      - {role: user, content: "{{ question }}"}
    reference: answer
samplings: {greedy: {temperature: 0, max_tokens: 8}}
metrics: {number: {type: numeric_match}}
runs:
  - {engine: toy, prompts: sums, sampling: greedy, replicate: 3}
"""


def parquet(start: int, count: int) -> bytes:
    """Return a file of sums; every second one has level 1."""
    rows = [
        {"question": f"{n}+{n}=", "answer": f"{2 * n}", "level": n % 2}
        for n in range(start, start + count)
    ]
    stream = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), stream)
    return stream.getvalue()


@pytest.fixture
def commit(fetching: Fetching) -> str:
    """The commit of a data set with two configs and two splits."""
    files = {
        "README.md": CARD,
        "main/train-00000-of-00001.parquet": parquet(1000, 10),
        "main/test-00000-of-00002.parquet": parquet(0, 20),
        "main/test-00001-of-00002.parquet": parquet(20, 20),
        "other/a.jsonl": b'{"question": "x"}\n',
    }
    return fetching.hub.repo("ann/sums", "datasets").commit(files)


def fetch(fetching: Fetching, **identity: Any) -> tuple[Path, Any]:
    """Fetch a data set; return its folder and what the program said."""
    identity = {"dataset": "ann/sums", **identity}
    folder = fetching.folder / "results/datasets" / f"d-{address('datasets', identity)}"
    command = ["scripts.fetch_dataset", "--identity", canonical_json(identity)]
    return folder, fetching.program(*command, "--output", str(folder / "manifest.json"))


def test_only_the_files_of_the_wanted_splits_are_fetched(fetching: Fetching, commit: str) -> None:
    folder, said = fetch(fetching, revision=commit, config="main", splits=["test"])
    assert said.code == 0, said.text
    described = json.loads((folder / "dataset.json").read_text())
    tests = [f"main/test-0000{n}-of-00002.parquet" for n in (0, 1)]
    assert described["splits"] == {"test": tests}
    assert [file["path"] for file in described["files"]] == tests
    assert not any("train" in path for path in fetching.bodies())
    assert fetching.program("scripts.verify").code == 0
    (folder / "snapshot" / tests[0]).resolve().write_bytes(b"other")
    assert fetching.program("scripts.verify").code == 1
    assert fetching.program("scripts.verify", "--refetch").code == 0


def test_what_the_data_set_has_not_is_told(fetching: Fetching, commit: str) -> None:
    _, said = fetch(fetching, revision=commit, config="main", splits=["dev"])
    expected = f"ann/sums@{commit[:12]}: has no split 'dev'; take one of 'train', 'test'"
    assert said.error == expected
    _, said = fetch(fetching, revision="0" * 40, config="main", splits=["dev"])
    assert "/datasets/ann/sums/commits/main" in said.error


def test_a_gated_data_set_is_explained_too(fetching: Fetching, commit: str) -> None:
    fetching.hub.repo("ann/sums", "datasets").gated = True
    _, said = fetch(fetching, revision=commit, config="main", splits=["test"])
    assert f"gated; accept its terms at {fetching.hub.url}/datasets/ann/sums" in said.error


def test_a_data_set_is_pinned_fetched_filtered_sampled_and_asked_with_examples(
    fetching: Fetching, commit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("HF_")]:
        monkeypatch.delenv(name)
    for name, value in fetching.environment.items():
        monkeypatch.setenv(name, value)
    project = make_project(fetching.folder / "project")
    fetching.folder = project.folder
    (project.folder / "config/config.yaml").write_text(CONFIG)
    assert "prompts.sums: without a revision" in project.run("--dry-run").output
    assert fetching.program("scripts.pin", "config/config.yaml").code == 0
    project.run("all", "replicate")
    lines = project.one("runs/*/completions.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert len(rows) == 5
    assert {row["tags"]["level"] for row in rows} == {1}
    assert [row["line"] for row in rows] == sorted(row["line"] for row in rows)
    for row in rows:
        messages = json.loads(row["prompt"]) if isinstance(row["prompt"], str) else row["prompt"]
        roles = [message["role"] for message in messages]
        assert roles == ["system", "user", "assistant", "user", "assistant", "user"]
        asked = messages[-1]["content"]
        assert asked == f"{row['line'] - 1}+{row['line'] - 1}="
        assert row["reference"] == str(2 * (row["line"] - 1))
        assert all(message["content"].startswith("10") for message in messages[1:-1:2])
    assert json.loads(project.one("replications/*/replication.json").read_text())
    # Nothing is left to do, and nothing is asked of the hub to know that.
    fetching.hub.asked.clear()
    assert project.run().nothing_to_do
    assert fetching.hub.asked == []
