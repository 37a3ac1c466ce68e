"""The script that holds the doctor against nvidia-smi, tried on a made-up driver and nvidia-smi."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scripts.llm_batch.errors import WorkflowError
from scripts.llm_batch.machine.records import Machine, load_record
from tests.peers import gpu_doctor
from tests.unit.made_up_driver import Card, MadeUpDriver

SMI = """#!/bin/sh
case "$1" in
--query-gpu=*) echo "00000000:01:00.0, GPU-00000000:01:00.0, Made-up GPU, {driver}, 9.0, 81559"
               echo "00000000:41:00.0, GPU-00000000:41:00.0, Made-up GPU, {driver}, 9.0, 81559" ;;
--query-compute-apps=*) ;;
topo) printf '\\tGPU0\\tGPU1\\tCPU Affinity\\n'
      printf 'GPU0\\t X \\tNV18\\t0-15\\nGPU1\\tNV18\\t X \\t0-15\\n' ;;
*) echo "| NVIDIA-SMI {driver}   Driver Version: {driver}   CUDA Version: 13.0     |" ;;
esac
"""


@pytest.fixture(autouse=True)
def two_cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cards = [
        Card(f"00000000:{bus}:00.0", total=81559 << 20, free=81000 << 20, links={"switch": 18})
        for bus in ("41", "01")
    ]
    MadeUpDriver(cards).install(monkeypatch)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(gpu_doctor, "HOLD", "raise SystemExit")


def install_smi(folder: Path, driver: str) -> None:
    program = folder / "nvidia-smi"
    program.write_text(SMI.replace("{driver}", driver), encoding="utf-8")
    program.chmod(0o755)


def test_agreement_is_told_and_the_machine_is_recorded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    install_smi(tmp_path, "580.65.06")
    assert gpu_doctor.main(["--out", str(tmp_path / "out")]) == 0
    text = capsys.readouterr().out
    assert "FAILED" not in text
    assert "ok      GPU 1 PCI address: 00000000:41:00.0" in text
    assert "ok      topology: [['X', 'NV18'], ['NV18', 'X']]" in text
    kept = tmp_path / "out" / "recorded-2x-made-up-gpu-driver-580.65.06.json"
    recorded = load_record(Machine, kept)
    assert recorded.origin.startswith("recorded by scripts.doctor on ")
    assert [gpu.uuid[:12] for gpu in recorded.gpus] == ["GPU-00000000", "GPU-00000001"]
    found = json.loads((tmp_path / "out/doctor.json").read_text(encoding="utf-8"))
    assert found["machine"]["inventory"]["driver_version"] == "580.65.06"


def test_disagreement_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    install_smi(tmp_path, "570.26")
    assert gpu_doctor.main(["--out", str(tmp_path / "out")]) == 1
    assert "FAILED  driver: 580.65.06 (nvidia-smi: 570.26)" in capsys.readouterr().out


def test_without_nvidia_smi_nothing_is_compared(tmp_path: Path) -> None:
    with pytest.raises(WorkflowError, match="nvidia-smi: not on PATH"):
        gpu_doctor.main(["--out", str(tmp_path / "out")])
