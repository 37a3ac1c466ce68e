"""Environments that are there already: recorded package by package, and asked only once."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.build_environment import main
from scripts.llm_batch.addresses import address, canonical_json, read_json
from scripts.llm_batch.config.records import Environment
from scripts.llm_batch.environments import external
from scripts.llm_batch.environments.external import ExternalRecords
from scripts.llm_batch.environments.sources import Source, find_source
from scripts.llm_batch.errors import ConfigError, WorkflowError
from tests.unit.tiny_environments import ROOT, install_fakes

ENVS = ROOT / "envs"


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    """A virtual environment with made-up packages that are called torch and vllm."""
    return install_fakes(tmp_path / "venv", cuda=None)


def source(venv: Path, records: ExternalRecords | None = None, name: str = "own") -> Source:
    """Return the source of an environment that is an interpreter."""
    python = str(venv / "bin/python")
    settings = {name: Environment(name, python, None, True)}
    return find_source(name, settings, ENVS, records or ExternalRecords())


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Every interpreter that is started for a record."""
    asked: list[str] = []
    ask = external.ask

    def counting(place: str) -> dict[str, object]:
        asked.append(place)
        return ask(place)

    monkeypatch.setattr(external, "ask", counting)
    yield asked


def test_the_record_names_every_package_and_neither_place_nor_name(
    venv: Path, tmp_path: Path
) -> None:
    found = source(venv)
    record = found.identity["external"]
    assert record["packages"] == {"torch": "2.13.0", "vllm": "0.28.0"}
    assert record["torch"] == "2.13.0+made-up"
    assert str(tmp_path) not in canonical_json(found.identity)
    elsewhere = install_fakes(tmp_path / "elsewhere", cuda=None)
    assert source(elsewhere, name="another").identity == found.identity


def test_the_device_is_what_torch_was_built_for(venv: Path, tmp_path: Path) -> None:
    assert source(venv).device == "cpu"
    with_cuda = source(install_fakes(tmp_path / "cuda", cuda="12.8"))
    assert with_cuda.device == "cuda"
    assert with_cuda.identity["external"]["cuda"] == "12.8"


def test_an_interpreter_is_asked_once_until_its_packages_change(
    venv: Path, tmp_path: Path, starts: list[str]
) -> None:
    memo = tmp_path / "results/.externals.json"
    first = source(venv, ExternalRecords(memo))
    assert source(venv, ExternalRecords(memo)) == first
    assert len(starts) == 1
    time.sleep(0.02)
    install_fakes(venv, cuda=None, vllm="0.29.0")
    second = source(venv, ExternalRecords(memo))
    assert len(starts) == 2
    assert second.identity["external"]["packages"]["vllm"] == "0.29.0"
    assert address("environments", second.identity) != address("environments", first.identity)


def test_a_script_that_starts_an_interpreter_will_do(venv: Path, tmp_path: Path) -> None:
    script = tmp_path / "container"
    script.write_text(f'#!/bin/sh\nexec "{venv}/bin/python" "$@"\n')
    script.chmod(0o755)
    settings = {"own": Environment("own", str(script), None, True)}
    found = find_source("own", settings, ENVS, ExternalRecords())
    assert found.identity == source(venv).identity


@pytest.mark.parametrize("lacks", ["torch", "vllm"])
def test_an_interpreter_without_vllm_or_torch_is_refused(venv: Path, lacks: str) -> None:
    subprocess.run(["rm", "-r", *venv.glob(f"lib/*/site-packages/{lacks}")], check=True)
    with pytest.raises(ConfigError, match=f"/bin/python: {lacks} cannot be found by this"):
        source(venv)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no program there that can be started"),
        ("#!/bin/sh\necho module not loaded >&2\nexit 3\n", "it says: module not loaded"),
    ],
)
def test_what_is_no_interpreter_is_refused_in_one_line(
    tmp_path: Path, text: str | None, message: str
) -> None:
    (tmp_path / "bin").mkdir()
    python = tmp_path / "bin/python"
    if text:
        python.write_text(text)
        python.chmod(0o755)
    with pytest.raises(ConfigError, match=message) as caught:
        source(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_recorded_interpreter_has_a_stage_folder_that_calls_it(
    venv: Path, tmp_path: Path
) -> None:
    found = source(venv)
    folder = tmp_path / f"results/environments/own-{address('environments', found.identity)}"
    words = ["--identity", json.dumps(found.identity), *found.words]
    assert main([*words, "--output", str(folder / "manifest.json")]) == 0
    record = read_json(folder / "environment.json")
    assert record["packages"] == {"torch": "2.13.0", "vllm": "0.28.0"}
    assert (record["vllm"], record["cuda"]) == ("0.28.0", None)
    assert record["external"] == str(venv / "bin/python")
    code = "import sys, vllm; print(sys.prefix)"
    result = subprocess.run([folder / "bin/python", "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == str(venv)
    before = (folder / "environment.json").stat().st_mtime_ns
    assert main([*words, "--output", str(folder / "manifest.json")]) == 0
    assert (folder / "environment.json").stat().st_mtime_ns == before


def test_an_interpreter_that_changed_after_planning_is_not_recorded(
    venv: Path, tmp_path: Path
) -> None:
    found = source(venv)
    install_fakes(venv, cuda=None, vllm="0.29.0")
    folder = tmp_path / f"results/environments/own-{address('environments', found.identity)}"
    words = ["--identity", json.dumps(found.identity), *found.words]
    with pytest.raises(WorkflowError, match="packages changed since the workflow was planned"):
        main([*words, "--output", str(folder / "manifest.json")])
    assert not folder.exists()


def test_an_editable_installation_is_named_in_the_record(venv: Path) -> None:
    (info,) = venv.glob("lib/*/site-packages/vllm-*.dist-info")
    about = {"url": "file:///src/vllm", "dir_info": {"editable": True}}
    (info / "direct_url.json").write_text(json.dumps(about))
    assert source(venv).identity["external"]["sources"] == {
        "vllm": {"dir_info": {"editable": True}}
    }


def test_a_variant_without_its_conda_layer_has_an_address_of_its_own() -> None:
    whole = find_source("cu130", {}, ENVS, ExternalRecords())
    wheels = find_source(
        "cu130", {"cu130": Environment("cu130", None, None, False)}, ENVS, ExternalRecords()
    )
    assert set(whole.identity["lock_sha256"]) == {
        "cu130.linux-64.pin.txt",
        "cu130.requirements.txt",
    }
    assert set(wheels.identity["lock_sha256"]) == {"cu130.requirements.txt"}
    assert whole.device == wheels.device == "cuda"
    assert whole.locks == tuple(str(ENVS / name) for name in whole.identity["lock_sha256"])


def test_a_description_of_ones_own_is_taken_with_its_lock(tmp_path: Path) -> None:
    text = (ENVS / "cu118.yaml").read_text().replace("name: cu118", "name: mine")
    (tmp_path / "mine.yaml").write_text(text)
    lock = (ENVS / "cu118.requirements.txt").read_text()
    (tmp_path / "mine.requirements.txt").write_text(lock.replace("eed23c5c", "00000000"))
    settings = {"seed": Environment("seed", None, str(tmp_path / "mine.yaml"), True)}
    found = find_source("seed", settings, ENVS, ExternalRecords())
    assert found.identity["name"] == "mine"
    assert found.words == ("--environments-dir", str(tmp_path))
    assert found.locks == (str(tmp_path / "mine.requirements.txt"),)
