"""The check before anything is generated: whom it stops, and whom it lets pass."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scripts.llm_batch.doctor.start import SWITCH, look_ahead, refuse_job, refuse_plan
from scripts.llm_batch.environments.identity import environment_identity
from scripts.llm_batch.errors import ConfigError, WorkflowError
from scripts.llm_batch.generate.settings import EngineSpec
from scripts.llm_batch.machine.read import SIMULATED_MACHINE
from scripts.llm_batch.plan.fetch import FetchPlan
from scripts.llm_batch.plan.records import EnginePlan
from scripts.llm_batch.plan.stages import make_stage
from tests.unit.tiny_environments import ROOT

ENVS = ROOT / "envs"
MODEL = ROOT / "config" / "quickstart" / "model"


def simulated(name: str) -> dict[str, str]:
    return {SIMULATED_MACHINE: str(ROOT / "tests" / "machines" / f"composed-{name}.json")}


def planned(environment: str | None, gpus: int = 1, conda: bool = True, **args: Any) -> EnginePlan:
    """Return an engine of a plan with the quickstart's model; a dummy without environment."""
    stage = None
    if environment is not None:
        known = environment_identity(environment, ENVS, conda=conda)
        stage = make_stage("environments", environment, known)
    model = FetchPlan(make_stage("models", "adder", {}), str(MODEL))
    identity = {"args": args} if args else {}
    return EnginePlan(make_stage("engines", "small", identity), stage, model, {}, gpus)


def test_an_engine_that_works_passes(tmp_path: Path) -> None:
    refuse_plan([planned("cu129")], ENVS, tmp_path, True, simulated("h100-driver-535"))
    refuse_plan([planned("cpu", 0)], ENVS, tmp_path, True, simulated("laptop"))


def test_an_environment_that_does_not_run_here_is_refused_before_a_job_starts(
    tmp_path: Path,
) -> None:
    with pytest.raises(ConfigError) as caught:
        refuse_plan([planned("cu130")], ENVS, tmp_path, True, simulated("h100-driver-535"))
    assert str(caught.value) == (
        "engines.small: environment cu130 does not run here: CUDA 13.0 needs driver 580.65.06 or "
        "newer, here is driver 535.161.08 (CUDA 12.2); update the driver, or take an older variant"
    )


def test_each_impossible_engine_is_a_line_and_twins_are_told_once(tmp_path: Path) -> None:
    engines = [planned("cu129", 3, tensor_parallel_size=3)] * 2 + [planned("cu130")]
    with pytest.raises(ConfigError) as caught:
        refuse_plan(engines, ENVS, tmp_path, True, simulated("h100-driver-535"))
    first, second = str(caught.value).splitlines()
    assert "tensor_parallel_size 3 does not divide the 4 attention heads of adder" in first
    assert "cu130" in second


def test_a_head_node_without_a_gpu_is_no_reason_where_jobs_run_elsewhere(tmp_path: Path) -> None:
    refuse_plan([planned("cu130")], ENVS, tmp_path, False, simulated("laptop"))
    with pytest.raises(ConfigError, match="no GPU"):
        refuse_plan([planned("cu130")], ENVS, tmp_path, True, simulated("laptop"))
    impossible = planned("cu130", 3, tensor_parallel_size=3)
    with pytest.raises(ConfigError, match="does not divide"):
        refuse_plan([impossible], ENVS, tmp_path, False, simulated("laptop"))


def test_looking_ahead_says_the_same_and_refuses_nothing(tmp_path: Path) -> None:
    lines = look_ahead([planned("cu130")] * 2, ENVS, tmp_path, simulated("h100-driver-535"))
    assert [line.partition(":")[0] for line in lines] == ["engines.small"]
    assert look_ahead([planned("cu129")], ENVS, tmp_path, simulated("h100-driver-535")) == []
    off = {**simulated("h100-driver-535"), SWITCH: "off"}
    assert look_ahead([planned("cu130")], ENVS, tmp_path, off) == []


def test_on_a_head_node_nothing_is_said_of_its_own_cards(tmp_path: Path) -> None:
    environ = {**simulated("laptop"), "PATH": str(tmp_path)}
    assert "no GPU" in look_ahead([planned("cu130")], ENVS, tmp_path, environ)[0]
    program = tmp_path / "sbatch"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert look_ahead([planned("cu130")], ENVS, tmp_path, environ) == []


def test_a_dummy_is_always_possible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "scripts.llm_batch.doctor.start.read_machine", lambda *_: pytest.fail("was looked at")
    )
    refuse_plan([planned(None, 9)], ENVS, tmp_path, True, {})


def test_whoever_knows_better_can_leave_the_check_out(tmp_path: Path) -> None:
    off = {**simulated("laptop"), SWITCH: "off"}
    refuse_plan([planned("cu130")], ENVS, tmp_path, True, off)
    refuse_job(job(tmp_path, "cu130"), ENVS, 1, off)


def job(folder: Path, environment: str, **args: Any) -> EngineSpec:
    """Return a job's engine in a built environment of which only the record is there."""
    interpreter = folder / "environment" / "bin" / "python"
    interpreter.parent.mkdir(parents=True, exist_ok=True)
    packages = {"torch": "2.10.0", "vllm": "0.19.1"}
    record = {"environment": environment, "packages": packages, "cuda": "12.8"}
    (folder / "environment" / "environment.json").write_text(json.dumps(record), encoding="utf-8")
    return EngineSpec(
        backend="vllm",
        args=args,
        dummy={},
        tuning={},
        determinism="fast",
        model=MODEL,
        adapters=(),
        interpreter=interpreter,
        device="cuda",
    )


def test_a_job_checks_the_machine_that_it_is_on(tmp_path: Path) -> None:
    refuse_job(job(tmp_path, "cu128"), ENVS, 1, simulated("h100-driver-535"))
    with pytest.raises(WorkflowError, match="the engine cannot work here: environment cu128 does"):
        refuse_job(job(tmp_path, "cu128"), ENVS, 1, simulated("a100-driver-450"))
    with pytest.raises(WorkflowError, match=r"does not divide.*LLM_BATCH_DOCTOR=off leaves"):
        refuse_job(
            job(tmp_path, "cu128", tensor_parallel_size=3), ENVS, 3, simulated("h100-driver-535")
        )


def test_without_its_conda_layer_an_environment_brings_no_compiler(tmp_path: Path) -> None:
    whole, bare = planned("cu129"), planned("cu129", conda=False)
    machine = simulated("h200-driver-575")
    refuse_plan([whole], ENVS, tmp_path, True, machine)
    with pytest.raises(ConfigError, match="Triton compiles its launcher with a C compiler"):
        refuse_plan([bare], ENVS, tmp_path, True, machine)


def test_an_interpreter_that_is_there_is_judged_by_what_it_has(tmp_path: Path) -> None:
    found = {"packages": {"vllm": "0.8.5.post1", "torch": "2.6.0"}}
    stage = make_stage("environments", "container", {"external": found})
    engine = replace(planned("cu129", kv_cache_dtype="fp8"), environment=stage)
    refuse_plan([engine], ENVS, tmp_path, True, simulated("h100-driver-535"))
    strict = replace(engine, stage=make_stage("engines", "small", {"determinism": "strict"}))
    with pytest.raises(ConfigError, match=r"which vLLM 0\.8\.5\.post1 lacks"):
        refuse_plan([strict], ENVS, tmp_path, True, simulated("h100-driver-535"))


def test_a_namesake_of_an_environment_is_not_judged_by_its_description(tmp_path: Path) -> None:
    # cu130 in envs/ needs another driver; this one has another vLLM, so it is not that.
    refuse_job(job(tmp_path, "cu130"), ENVS, 1, simulated("h100-driver-535"))


def test_a_job_in_an_environment_of_ones_own_is_judged_by_its_packages(tmp_path: Path) -> None:
    refuse_job(job(tmp_path, "mine"), ENVS, 1, simulated("h100-driver-535"))
    with pytest.raises(WorkflowError, match="needs the package bitsandbytes"):
        refuse_job(
            job(tmp_path, "mine", quantization="bitsandbytes"),
            ENVS,
            1,
            simulated("h100-driver-535"),
        )
