"""Reading a machine: NVML's answers as records, and records as JSON and back."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pynvml
import pytest

from scripts.llm_batch.errors import WorkflowError
from scripts.llm_batch.machine import read
from scripts.llm_batch.machine.nvml import read_inventory
from scripts.llm_batch.machine.read import SIMULATED_MACHINE, read_gpus, read_machine
from scripts.llm_batch.machine.records import Machine, from_json, to_json
from tests.unit.made_up_driver import Card, MadeUpDriver

SWITCHED = 18


def test_cards_are_listed_in_pci_order_whatever_the_driver_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    driver = MadeUpDriver([Card("00000000:81:00.0"), Card("00000000:01:00.0")])
    driver.install(monkeypatch)
    inventory = read_inventory()
    assert [(gpu.index, gpu.pci_bus_id) for gpu in inventory.gpus] == [
        (0, "00000000:01:00.0"),
        (1, "00000000:81:00.0"),
    ]
    assert (inventory.driver_version, inventory.cuda_version) == ("580.65.06", "13.0")
    assert inventory.reason is None
    assert driver.open == 0


def test_memory_processes_and_use_of_a_card_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    card = Card("00000000:01:00.0", free=30 << 30, processes=[(2**22 + 1, 5), (os.getpid(), 7)])
    MadeUpDriver([card]).install(monkeypatch)
    (gpu,) = read_inventory().gpus
    assert (gpu.memory_used_bytes, gpu.memory_free_bytes) == (50 << 30, 30 << 30)
    assert (gpu.capability, gpu.utilization_percent) == ((9, 0), 37)
    own, hidden = gpu.processes
    assert own.pid == os.getpid()
    assert own.user is not None
    assert own.name is not None
    assert (hidden.user, hidden.name, hidden.memory_bytes) == (None, None, 5)


def test_slices_of_a_card_are_listed_with_their_own_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    MadeUpDriver([Card("00000000:01:00.0", slices=[10 << 30, 20 << 30])]).install(monkeypatch)
    (gpu,) = read_inventory().gpus
    assert gpu.mig
    assert [one.memory_total_bytes for one in gpu.mig_instances] == [10 << 30, 20 << 30]


@pytest.mark.parametrize(
    ("first", "second", "joined"),
    [
        ({1: 4}, {0: 4}, "NV4"),
        ({"switch": SWITCHED}, {"switch": SWITCHED}, "NV18"),
        ({"switch": SWITCHED}, {}, "SYS"),
        ({}, {}, "SYS"),
    ],
)
def test_the_topology_has_the_words_of_nvidia_smi(
    first: dict[int | str, int],
    second: dict[int | str, int],
    joined: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    MadeUpDriver([Card("a", links=first), Card("b", links=second)]).install(monkeypatch)
    assert read_inventory().topology == (("X", joined), (joined, "X"))


def test_a_driver_without_the_newer_questions_still_lists_its_cards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    missing = {
        "nvmlDeviceGetComputeRunningProcesses_v3",
        "nvmlDeviceGetMigMode",
        "nvmlDeviceGetNvLinkState",
        "nvmlDeviceGetTopologyCommonAncestor",
        "nvmlDeviceGetUtilizationRates",
        "nvmlSystemGetCudaDriverVersion",
    }
    cards = [Card("a", processes=[(1, 7)]), Card("b")]
    MadeUpDriver(cards, frozenset(missing)).install(monkeypatch)
    inventory = read_inventory()
    assert inventory.cuda_version is None
    assert inventory.topology == (("X", None), (None, "X"))
    assert inventory.gpus[0].utilization_percent is None
    assert [process.pid for process in inventory.gpus[0].processes] == [1]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, "no NVIDIA driver"),
        (pynvml.NVML_ERROR_DRIVER_NOT_LOADED, "not loaded"),
        (pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH, "restart the machine"),
        (pynvml.NVML_ERROR_UNKNOWN, "nvidia-smi"),
    ],
)
def test_without_a_driver_there_are_no_cards_and_a_reason(
    error: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise pynvml.NVMLError(error)

    monkeypatch.setattr(pynvml, "nvmlInit", fail)
    inventory = read_inventory()
    assert inventory.gpus == ()
    assert inventory.reason is not None
    assert said in inventory.reason
    assert inventory.broken is (error != pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)


def test_a_machine_survives_json(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cards = [Card("a", links={1: 2}, processes=[(1, 7)]), Card("b", slices=[1 << 30])]
    MadeUpDriver(cards).install(monkeypatch)
    machine = read_machine(tmp_path / "not/there/yet", {"PATH": os.environ["PATH"]})
    assert machine.is_this
    assert machine.results_disk.free_bytes > 0
    text = json.dumps(to_json(machine))
    assert from_json(Machine, json.loads(text)) == machine


def test_a_record_stands_for_the_machine_and_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    MadeUpDriver([Card("a")]).install(monkeypatch)
    record = to_json(read_machine(tmp_path, {}))
    path = tmp_path / "recorded.json"
    path.write_text(json.dumps({**record, "origin": "made up for a test"}), encoding="utf-8")
    monkeypatch.setattr(read, "read_inventory", lambda: pytest.fail("the machine was asked"))
    machine = read_machine(tmp_path, {SIMULATED_MACHINE: str(path)})
    assert not machine.is_this
    assert machine.origin == "simulated machine recorded.json: made up for a test"
    assert read_gpus({SIMULATED_MACHINE: str(path)}) == machine.inventory


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"glibc": 2.31}, "record.json.glibc: expected str, found float"),
        ({"nvcc": {"path": "/x"}}, "record.json.nvcc: the key 'version' is missing"),
        ({"colour": "red"}, "record.json: unknown key 'colour'"),
        ({"hub_login": "yes"}, "record.json.hub_login: expected one of HF_TOKEN"),
        ({"cpu_flags": "avx2"}, "record.json.cpu_flags: expected a list"),
        ({"inventory": []}, "record.json.inventory: expected a mapping"),
    ],
)
def test_a_wrong_record_is_told_with_its_place(
    change: dict[str, object], said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    MadeUpDriver([]).install(monkeypatch)
    record = {**to_json(read_machine(tmp_path, {})), **change}
    path = tmp_path / "record.json"
    path.write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(WorkflowError) as caught:
        read_machine(tmp_path, {SIMULATED_MACHINE: str(path)})
    assert said in str(caught.value)


def test_a_record_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(WorkflowError, match=r"gone\.json: not a record of a machine"):
        read_gpus({SIMULATED_MACHINE: str(tmp_path / "gone.json")})


def test_compilers_are_found_as_builds_find_them(tmp_path: Path) -> None:
    for folder, release in (("home/bin", "12.4"), ("path", "11.4")):
        program = tmp_path / folder / "nvcc"
        program.parent.mkdir(parents=True)
        program.write_text(f'#!/bin/sh\necho "Cuda tools, release {release}, V{release}.9"\n')
        program.chmod(0o755)
    environ = {"PATH": f"{tmp_path}/path"}
    found = read.find_nvcc(environ)
    assert found is not None
    assert found.version == "11.4"
    found = read.find_nvcc({**environ, "CUDA_HOME": f"{tmp_path}/home"})
    assert found is not None
    assert found.version == "12.4"
    assert read.find_nvcc({"PATH": str(tmp_path)}) is None


def test_a_hub_login_is_named_by_its_place_only(tmp_path: Path) -> None:
    home = {"HF_HOME": str(tmp_path)}
    assert read.hub_login(home) == "none"
    (tmp_path / "token").write_text("hf_secret", encoding="utf-8")
    assert read.hub_login(home) == "token file"
    assert read.hub_login({**home, "HF_TOKEN": "hf_secret"}) == "HF_TOKEN"


def test_the_c_library_is_the_one_that_runs_not_the_one_linked_for(tmp_path: Path) -> None:
    machine = read_machine(tmp_path, {})
    assert f"{machine.libc} {machine.glibc}" == os.confstr("CS_GNU_LIBC_VERSION")
