"""The plan of a fixed config: its addresses never change unless their meaning does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from scripts.llm_batch.config.load import load_config
from scripts.llm_batch.digests import DigestMemo
from scripts.llm_batch.plan.make import make_plan
from scripts.llm_batch.plan.records import Plan

CONFIG: dict[str, Any] = {
    "experiment": "golden",
    "models": {"toy": {"path": "model"}},
    "engines": {"toy": {"model": "toy", "backend": "dummy", "args": {"max_model_len": 64}}},
    "prompts": {"plain": {"path": "rows.jsonl", "template": "{{ q }}"}},
    "samplings": {
        "greedy": {"temperature": 0, "max_tokens": 8},
        "warm": {"temperature": 0.7, "n": 2, "seed": 1, "max_tokens": 8},
    },
    "runs": [{"engine": "toy", "prompts": "plain", "sampling": ["greedy", "warm"]}],
}

GOLDEN = {
    "toy.plain.greedy": "toy.plain.greedy-b7886b25c8a3",
    "toy.plain.warm": "toy.plain.warm-f2704bc84ffc",
}


@pytest.fixture(autouse=True)
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rows.jsonl").write_text('{"q": "1+1"}\n')
    monkeypatch.chdir(tmp_path)


def plan(**changes: Any) -> Plan:
    return make_plan(load_config({**CONFIG, **changes}, []), Path("envs"), DigestMemo(Path("memo")))


def folders(planned: Plan) -> dict[str, str]:
    return {run.stage.name: folder for folder, run in planned.runs.items()}


def test_the_addresses_of_a_fixed_config_never_change() -> None:
    planned = plan()
    assert folders(planned) == GOLDEN
    assert list(planned.batches) == ["toy-fc5d3762f450"]
    assert planned.report.folder == "golden-cd12aa4214ba"


def test_an_adapter_changes_the_address_of_its_own_runs_only() -> None:
    runs = [{**CONFIG["runs"][0], "adapter": ["none", "fr"]}]
    planned = plan(adapters={"fr": {"path": "fr"}}, runs=runs)
    found = folders(planned)
    assert {name: found.pop(name) for name in GOLDEN} == GOLDEN
    assert found == {
        "toy+fr.plain.greedy": "toy+fr.plain.greedy-eb715089758b",
        "toy+fr.plain.warm": "toy+fr.plain.warm-e6770d8399cb",
    }
    assert len(planned.engines) == len(planned.batches) == 1
