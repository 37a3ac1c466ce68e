"""`environment: auto`: replaced by a name before anything is checked or addressed."""

from __future__ import annotations

import copy
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.llm_batch.config.load import load_config
from scripts.llm_batch.config.records import Config
from scripts.llm_batch.digests import DigestMemo
from scripts.llm_batch.doctor.auto import choose_here, refuse_elsewhere
from scripts.llm_batch.doctor.choose import Choice
from scripts.llm_batch.errors import ConfigError
from scripts.llm_batch.machine.read import SIMULATED_MACHINE
from scripts.llm_batch.plan.make import make_plan
from scripts.llm_batch.rules.experiment import reproduce_command
from tests.unit.config_cases import BASE, make_project
from tests.unit.made_up_driver import Card, MadeUpDriver
from tests.unit.tiny_environments import ROOT

ENVS = ROOT / "envs"
SOURCES = [Path("config.yaml")]


def machine(name: str) -> str:
    return str(ROOT / "tests" / "machines" / f"composed-{name}.json")


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    make_project(tmp_path)
    (tmp_path / "models/tiny/model.safetensors").write_bytes(b"weights")
    (tmp_path / "config.yaml").write_text(BASE.replace("environment: cpu", "environment: auto"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return tmp_path


def base(**engine: Any) -> dict[str, Any]:
    raw: dict[str, Any] = copy.deepcopy(yaml.safe_load(BASE))
    raw["engines"]["cpu"].update({"environment": "auto", **engine})
    return raw


def cpu() -> Choice:
    return Choice("cpu", "a test says so")


def load(raw: dict[str, Any]) -> Config:
    return load_config(raw, SOURCES, cpu)


def test_auto_has_the_address_of_the_environment_it_stands_for() -> None:
    named = load_config(base(environment="cpu"), SOURCES, lambda: pytest.fail("was asked"))
    auto = load(base())
    assert auto.engines["cpu"] == named.engines["cpu"]
    assert (auto.auto, named.auto) == (cpu(), None)
    plans = [make_plan(config, ENVS, DigestMemo(Path("memo"))) for config in (auto, named)]
    assert plans[0] == plans[1]


def test_auto_is_taken_from_the_command_line_too() -> None:
    config = load({**base(environment="cu128"), "environment": "auto"})
    assert config.engines["cpu"].environment == "cpu"


def test_auto_can_be_one_of_a_sweep() -> None:
    raw = base(environment="cpu")
    raw["runs"][0]["sweep"] = {"environment": ["auto", "cu128"]}
    config = load(raw)
    assert {engine.environment for engine in config.engines.values()} == {"cpu", "cu128"}


def test_a_dummy_engine_looks_at_no_machine() -> None:
    raw = base(backend="dummy")
    config = load_config(raw, SOURCES, lambda: pytest.fail("the machine was asked"))
    assert config.auto is None


def test_checks_see_the_environment_that_auto_is() -> None:
    raw = base(tuning={"enable_chunked_prefill": True})
    with pytest.raises(ConfigError, match="CPU engine dies of prompts that are cut"):
        load(raw)


def test_a_refusal_has_its_place_in_the_config() -> None:
    def refuse() -> Choice:
        raise ConfigError("environment auto: nothing runs here; buy a GPU")

    with pytest.raises(ConfigError) as caught:
        load_config(base(), SOURCES, refuse)
    assert str(caught.value) == (
        "config.yaml:7: engines.cpu.environment: nothing runs here; buy a GPU"
    )


@pytest.mark.parametrize(
    ("name", "chosen"), [("h100-driver-535", "cu129"), ("v100-driver-470", "cu118")]
)
def test_auto_here_is_what_this_machine_supports_and_says_if_it_is_simulated(
    name: str, chosen: str
) -> None:
    choice = choose_here(ENVS, {SIMULATED_MACHINE: machine(name)})
    assert choice.name == chosen
    assert "simulated machine composed" in choice.reason
    hidden = {SIMULATED_MACHINE: machine(name), "CUDA_VISIBLE_DEVICES": ""}
    assert choose_here(ENVS, hidden).name == "cpu"


@pytest.mark.parametrize("command", ["sbatch", "qsub", "bsub"])
def test_a_head_node_without_a_gpu_wants_a_name(command: str, tmp_path: Path) -> None:
    environ = {"PATH": str(tmp_path / "bin"), "HOME": str(tmp_path), "CUDA_VISIBLE_DEVICES": ""}
    program = tmp_path / "bin" / command
    program.parent.mkdir()
    assert choose_here(ENVS, environ).name == "cpu"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    with pytest.raises(ConfigError, match=f"no GPU on this node, and {command} sends jobs"):
        choose_here(ENVS, environ)


def test_a_node_with_a_gpu_decides_for_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    MadeUpDriver([Card("00000000:01:00.0")]).install(monkeypatch)
    program = tmp_path / "bin" / "sbatch"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    environ = {"PATH": str(tmp_path / "bin"), "HOME": str(tmp_path)}
    assert choose_here(ENVS, environ).name == "cu130"


def test_jobs_that_run_elsewhere_need_a_name() -> None:
    refuse_elsewhere(None, "slurm")
    with pytest.raises(ConfigError, match=r"elsewhere \(slurm\).*--config environment=cu128"):
        refuse_elsewhere(Choice("cu128", "it is the newest"), "slurm")


def test_the_command_that_reproduces_names_what_auto_was() -> None:
    command = reproduce_command([], {"environment": "auto", "shards": 2}, load(base()))
    assert shlex.split(command)[4:] == ["environment=cpu", "shards=2"]
    named = reproduce_command([], {}, load_config(base(environment="cpu"), SOURCES))
    assert "environment" not in named
