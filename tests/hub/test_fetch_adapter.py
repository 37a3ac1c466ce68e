"""LoRA adapters from the hub: their two files, fetched and checked like a model's."""

from __future__ import annotations

import json
from pathlib import Path

from scripts.llm_batch.addresses import address, canonical_json
from tests.engine.lora import make_adapter
from tests.hub.fetching import Fetching
from tests.hub.stand_in_hub import read_folder


def test_an_adapter_is_fetched_and_refused_by_the_same_rules_as_a_folder(
    fetching: Fetching, tmp_path: Path
) -> None:
    files = read_folder(make_adapter(tmp_path / "adapter", seed=1, rank=8))
    others = {"README.md": b"card", "tokenizer.json": b"{}", "optimizer.pt": b"x"}
    commit = fetching.hub.repo("ann/lora").commit(files | others)
    identity = {"repo": "ann/lora", "revision": commit}
    folder = tmp_path / "results/adapters" / f"fr-{address('adapters', identity)}"
    command = ["scripts.fetch_adapter", "--identity", canonical_json(identity)]
    command += ["--output", str(folder / "manifest.json")]
    said = fetching.program(*command)
    assert said.code == 0, said.text
    assert {path.name: path.read_bytes() for path in (folder / "snapshot").iterdir()} == files
    described = json.loads((folder / "adapter.json").read_text())
    assert described["rank"] == 8
    assert described["source"] == f"ann/lora@{commit}"
    assert fetching.program("scripts.verify").code == 0


def test_an_adapter_without_safetensors_is_refused(fetching: Fetching, tmp_path: Path) -> None:
    commit = fetching.hub.repo("ann/lora").commit({"adapter_config.json": b"{}", "a.bin": b"x"})
    identity = {"repo": "ann/lora", "revision": commit}
    folder = tmp_path / "results/adapters" / f"fr-{address('adapters', identity)}"
    command = ["scripts.fetch_adapter", "--identity", canonical_json(identity)]
    said = fetching.program(*command, "--output", str(folder / "manifest.json"))
    assert said.error == f"ann/lora@{commit[:12]}: has no adapter_model.safetensors"
