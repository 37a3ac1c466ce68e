"""LoRA adapters in the workflow: what is asked again when one is added, and their stage folders."""

from __future__ import annotations

import shutil

from scripts.llm_batch.addresses import read_json
from tests.engine.lora import make_adapter
from tests.engine.real import QUICKSTART
from tests.workflow.project import Project


def test_another_adapter_costs_only_its_own_requests(project: Project) -> None:
    before = project.answered()
    base = project.one("runs/toy.questions.warm-*").name
    config = project.read_config()
    config["adapters"] = {"fr": {"path": "nowhere"}, "de": {"path": "nowhere"}}
    config["runs"][0]["adapter"] = ["none", "fr"]
    project.write_config(config)
    assert project.planned()["generate"] == 1
    project.run()
    assert project.answered() == 2 * before
    assert project.one("runs/toy.questions.warm-*").name == base

    config["runs"][0]["adapter"] = ["fr", "de"]
    project.write_config(config)
    project.run()
    assert project.answered() == 3 * before
    texts = {
        name: (project.one(f"runs/{name}.questions.greedy-*") / "completions.jsonl").read_text()
        for name in ("toy", "toy+fr", "toy+de")
    }
    assert len(set(texts.values())) == 3
    identity = read_json(project.one("runs/toy+fr.questions.warm-*") / "identity.json")["identity"]
    assert identity["adapter"] == "fr"


def test_an_adapter_is_checked_and_linked_before_an_engine_gets_it(fresh_project: Project) -> None:
    project = fresh_project
    shutil.rmtree(project.folder / "model")
    shutil.copytree(QUICKSTART, project.folder / "model")
    make_adapter(project.folder / "adapters" / "fr", seed=1, rank=4)
    config = project.read_config()
    config["adapters"] = {"fr": {"path": "adapters/fr"}}
    config["engines"]["toy"] = {"model": "toy", "environment": "cpu", "args": {"dtype": "float32"}}
    config["runs"][0]["adapter"] = ["none", "fr"]
    project.write_config(config)
    planned = project.run("--dry-run", "--printshellcmds").output
    assert planned.count("rule fetch_adapter:") == planned.count("rule generate:") == 1
    command = next(line for line in planned.splitlines() if "scripts.generate" in line)
    folder = command.partition("--adapters ")[2].split()[0]
    assert folder.startswith("results/adapters/fr-")
    project.run(f"{folder}/manifest.json")
    assert read_json(project.folder / folder / "adapter.json")["rank"] == 4
    assert (project.folder / folder / "snapshot" / "adapter_config.json").is_file()

    weights = project.folder / "adapters" / "fr" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    assert folder not in project.run("--dry-run", "--printshellcmds").output
