"""`python -m scripts.doctor`: its table, its JSON, its exit codes, and what it keeps to itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scripts import doctor
from scripts.llm_batch.doctor.examine import built_environment, notes, visible
from scripts.llm_batch.doctor.variants import load_variant
from scripts.llm_batch.environments.identity import environment_identity
from scripts.llm_batch.errors import WorkflowError
from scripts.llm_batch.machine.read import SIMULATED_MACHINE, load_machine
from scripts.llm_batch.plan.stages import make_stage
from tests.unit.config_cases import BASE, make_project
from tests.unit.tiny_environments import ROOT

ENVS = ROOT / "envs"


def machine_path(name: str) -> str:
    return str(ROOT / "tests" / "machines" / f"composed-{name}.json")


@pytest.fixture(autouse=True)
def all_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    code = doctor.main(words)
    return code, capsys.readouterr().out


def test_the_table_has_a_line_for_everything_that_was_asked(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, text = run(capsys, "--machine", machine_path("busy-4090-driver-545"))
    assert code == 0
    flat = " ".join(text.split())
    for said in (
        "SIMULATED",
        "not recorded on a real machine",
        "glibc 2.35",
        "545.23.06, supports CUDA 12.3",
        "nvcc 12.3 (/usr/local/cuda/bin/nvcc)",
        "C compiler 11.4.0",
        "800.0 GB free",
        "hub login none",
        "NVIDIA GeForce RTX 4090, compute capability 8.9, 2.5 of 25.8 GB free, 98 % busy",
        "GPU 0 is used: 21.7 GiB in use by python of maria (pid 31337)",
        "environment auto is cu129 here",
    ):
        assert said in flat
    for name in ("cu118", "cu121", "cu124", "cu126", "cu128", "cu129", "cu130", "cpu"):
        assert f"\n{name} " in text


def test_json_has_the_machine_the_verdicts_and_auto(capsys: pytest.CaptureFixture[str]) -> None:
    code, text = run(capsys, "--json", "--machine", machine_path("5090-driver-570"))
    found = json.loads(text)
    assert code == 0
    assert found["machine"]["inventory"]["driver_version"] == "570.86.10"
    assert found["auto"]["environment"] == "cu129"
    verdicts = {entry["name"]: entry for entry in found["environments"]}
    assert verdicts["cu130"]["status"] == "no"
    assert verdicts["cu128"]["status"] == "limited"
    assert [finding["rule"] for finding in verdicts["cu128"]["findings"]] == [
        "minor-version",
        "ptx",
    ]
    assert verdicts["cu128"]["vllm_cuda"] == "12.9"


@pytest.mark.parametrize(
    ("machine", "names", "code"),
    [
        ("laptop", (), 0),
        ("laptop", ("cpu",), 0),
        ("laptop", ("cpu", "cu128"), 1),
        ("k80-driver-470", (), 1),
        ("5090-driver-570", ("cu128",), 0),
        ("5090-driver-570", ("cu130",), 1),
    ],
)
def test_the_exit_code_says_whether_what_is_named_runs(
    machine: str, names: tuple[str, ...], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(capsys, *names, "--machine", machine_path(machine))[0] == code


def test_an_unknown_environment_is_refused() -> None:
    with pytest.raises(WorkflowError, match="there is no environment 'cu127x'"):
        doctor.main(["cu127x"])


@pytest.mark.parametrize("conda", [True, False])
def test_a_built_environment_needs_no_disk_and_says_what_is_in_it(
    conda: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = make_stage("environments", "cu128", environment_identity("cu128", ENVS, conda=conda))
    folder = tmp_path / "environments" / stage.folder
    folder.mkdir(parents=True)
    record = {"cuda": "12.8", "packages": {"torch": "2.10.0+cu128", "vllm": "0.19.1"}}
    (folder / "environment.json").write_text(json.dumps(record), encoding="utf-8")
    assert built_environment(load_variant("cu128", ENVS), ENVS, tmp_path) is None
    (folder / "manifest.json").write_text("{}", encoding="utf-8")
    arguments = ("cu128", "--results", str(tmp_path), "--machine", machine_path("h100-driver-590"))
    code, text = run(capsys, *arguments)
    assert code == 0
    assert "torch 2.10.0+cu128, CUDA 12.8" in text
    assert run(capsys, "cu129", *arguments[1:])[0] == 1


def test_only_visible_cards_count(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("cu130", "--json", "--machine", machine_path("mixed-driver-580"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert run(capsys, *words)[0] == 1
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    code, text = run(capsys, *words)
    assert code == 0
    assert json.loads(text)["auto"]["environment"] == "cu130"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert json.loads(run(capsys, *words)[1])["auto"]["environment"] == "cpu"


def test_hiding_cards_keeps_the_topology_of_those_left() -> None:
    machine = load_machine(Path(machine_path("a100-driver-550")))
    seen = visible(machine, {"CUDA_VISIBLE_DEVICES": "6,2"})
    assert [gpu.index for gpu in seen.gpus] == [2, 6]
    assert seen.inventory.topology == (("X", "NV12"), ("NV12", "X"))


def test_slices_and_different_cards_are_told() -> None:
    mig = "\n".join(notes(load_machine(Path(machine_path("mig-a100-driver-535")))))
    assert "GPU 0 is cut into slices (MIG: 42.1 GB, 20.9 GB, 10.2 GB)" in mig
    mixed = "\n".join(notes(load_machine(Path(machine_path("mixed-driver-580")))))
    assert "the cards differ" in mixed


def test_a_machine_can_be_kept_and_asked_about_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_very-secret")
    path = tmp_path / "recorded-here.json"
    code, text = run(capsys, "--record", str(path), "--results", str(tmp_path), "--json")
    assert code in (0, 1)
    kept = path.read_text(encoding="utf-8")
    assert "recorded by scripts.doctor" in kept
    assert str(tmp_path) not in kept
    assert "very-secret" not in kept + text
    again = json.loads(run(capsys, "--machine", str(path), "--json")[1])
    assert again["machine"]["hub_login"] == "HF_TOKEN"
    assert "simulated machine recorded-here.json" in again["machine"]["origin"]


def test_a_simulated_machine_cannot_be_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SIMULATED_MACHINE, machine_path("laptop"))
    with pytest.raises(WorkflowError, match="not a machine to record"):
        doctor.main(["--record", str(tmp_path / "out.json")])
    assert not (tmp_path / "out.json").exists()


def test_engines_of_a_config_are_judged_and_decide_the_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_project(tmp_path)
    (tmp_path / "models/tiny/model.safetensors").write_bytes(b"weights that nobody reads")
    shape = {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 64}
    (tmp_path / "models/tiny/config.json").write_text(json.dumps(shape), encoding="utf-8")
    (tmp_path / "config.yaml").write_text(BASE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    asked = ("--configfile", "config.yaml", "--machine", machine_path("h100-driver-535"))
    code, text = run(capsys, *asked, "--config", "environment=auto")
    assert code == 0
    assert "cpu          cu129        1            possible" in text
    spoilt = BASE.replace("dtype: float32", "tensor_parallel_size: 3")
    (tmp_path / "config.yaml").write_text(spoilt, encoding="utf-8")
    code, text = run(capsys, *asked, "--config", "environment=auto", "--json")
    assert code == 1
    (engine,) = json.loads(text)["engines"]
    assert (engine["name"], engine["environment"], engine["gpus"]) == ("cpu", "cu129", 3)
    assert [finding["rule"] for finding in engine["findings"]] == ["heads"]
    assert not (tmp_path / "results").exists()


def test_one_model_can_be_asked_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    words = ("--model", "config/quickstart/model", "--config", "environment=cu130", "--json")
    code, text = run(capsys, *words, "--machine", machine_path("h100-driver-535"))
    assert code == 1
    (engine,) = json.loads(text)["engines"]
    assert engine["findings"][0]["text"].startswith("environment cu130 does not run here: CUDA 13")
    code, _ = run(capsys, *words, "--machine", machine_path("5090-driver-580"))
    assert code == 0


@pytest.mark.parametrize("command", ["", "sbatch"])
def test_the_doctor_and_the_workflow_agree_about_auto_on_a_head_node(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    command: str,
) -> None:
    if command:
        (tmp_path / command).touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    _, text = run(capsys)
    assert ("auto is refused here when the workflow runs" in text) == bool(command)
