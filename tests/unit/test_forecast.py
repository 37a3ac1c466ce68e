"""What a forecast expects of an engine comes from its facts, and is unknown without any."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts import plan as program
from scripts.llm_batch.addresses import address, write_identity
from scripts.llm_batch.config.load import load_config
from scripts.llm_batch.digests import DigestMemo
from scripts.llm_batch.plan.forecast import EngineForecast, RunForecast, forecast
from scripts.llm_batch.plan.make import make_plan
from scripts.llm_batch.plan.records import Plan
from tests.unit.config_cases import BASE, make_project

STARTS: list[dict[str, Any]] = [
    {
        "exit": "finished",
        "generate_s": 10.0,
        "completion_tokens": 600,
        "requests": 30,
        "startup_s": {"total": 20.0},
    },
    {
        "exit": "finished",
        "generate_s": 20.0,
        "completion_tokens": 600,
        "requests": 30,
        "startup_s": {"total": 40.0},
    },
    {"exit": "crashed", "generate_s": 5.0, "completion_tokens": 5000, "requests": 1},
]


@pytest.fixture
def planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    make_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    raw = yaml.safe_load(BASE)
    raw["engines"]["cpu"]["backend"] = "dummy"
    raw["engines"]["cpu"]["tuning"] = {"shards": 3}
    rows = [{"question": f"{i}+1", "answer": str(i + 1)} for i in range(40)]
    Path("data/rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    raw["samplings"]["warm"]["max_tokens"] = 5
    return make_plan(load_config(raw, []), Path("envs"), DigestMemo(Path("memo.json")))


def only(plan: Plan) -> tuple[EngineForecast, dict[str, RunForecast]]:
    ((engine, runs),) = forecast(plan, Path("results"))
    return engine, {run.run: run for run in runs}


def remember(plan: Plan, starts: list[dict[str, Any]]) -> None:
    """Write facts of an earlier batch of the same engine."""
    (engine,) = plan.engines.values()
    identity = {"engine": engine.stage.identity, "runs": ["0" * 12], "shards": 1}
    folder = Path("results/batches") / f"cpu-{address('batches', identity)}"
    (folder / "facts").mkdir(parents=True)
    write_identity(folder, "batches", identity)
    (folder / "facts/0.json").write_text(json.dumps({"engines": starts}))


def test_requests_are_counted_by_run_and_by_engine(planned: Plan) -> None:
    engine, runs = only(planned)
    assert {name: (run.completions, run.requests, run.open) for name, run in runs.items()} == {
        "cpu.chat.greedy": (40, 40, 40),
        "cpu.chat.warm": (160, 160, 160),
        "cpu.plain.greedy": (40, 40, 40),
    }
    assert (engine.runs, engine.requests, engine.reused, engine.engine_starts) == (3, 240, 0, 3)
    assert runs["cpu.chat.warm"].at_most_tokens == 160 * 5
    assert runs["cpu.chat.greedy"].at_most_tokens == 40 * 256


def test_nothing_is_expected_of_an_engine_without_facts(planned: Plan) -> None:
    engine, runs = only(planned)
    assert {run.expected_tokens for run in runs.values()} == {None}
    assert (engine.rate, engine.engine_hours, engine.gpu_hours) == (None, None, None)
    assert "?: this engine has answered nothing yet" in program.text(
        planned, [engine], list(runs.values())
    )


def test_expectations_are_those_of_the_starts_that_ended_well(planned: Plan) -> None:
    remember(planned, STARTS)
    engine, runs = only(planned)
    assert engine.rate == pytest.approx(1200 / 30)
    assert engine.start_s == pytest.approx(30)
    assert runs["cpu.chat.greedy"].expected_tokens == 40 * 20
    assert runs["cpu.chat.warm"].expected_tokens == 160 * 5, "no answer is longer than its limit"
    assert engine.expected_tokens == 40 * 20 * 2 + 160 * 5
    assert engine.engine_hours == pytest.approx((3 * 30 + 2400 / 40) / 3600)


def test_what_one_engine_does_not_know_the_sum_does_not_know(planned: Plan) -> None:
    engine, _ = only(planned)
    remember(planned, STARTS)
    known, _ = only(planned)
    assert program.total([known, known]).expected_tokens == 4800
    assert program.total([known, engine]).expected_tokens is None
    assert program.total_gpu_hours([known, engine]) is None


def test_a_forecast_writes_nothing_into_results(planned: Plan) -> None:
    remember(planned, STARTS)
    before = sorted(Path("results").rglob("*"))
    only(planned)
    assert sorted(Path("results").rglob("*")) == before
