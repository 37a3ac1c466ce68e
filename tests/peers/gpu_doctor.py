"""Hold the doctor against nvidia-smi on a real GPU: one card and half a minute are enough.

    python -m tests.peers.gpu_doctor --out FOLDER

Needs PyYAML, psutil and nvidia-ml-py. Prints the doctor's table and a line a check, and ends with 1
if one failed. In FOLDER: `doctor.json`, `doctor.txt`, and `recorded-<card>-driver-<version>.json`,
which belongs into tests/machines/, with its verdicts in tests/unit/test_doctor_verdicts.py.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from scripts.doctor import ENVS, record
from scripts.llm_batch.addresses import write_text_atomic
from scripts.llm_batch.doctor.examine import examine, to_record
from scripts.llm_batch.doctor.listing import listing
from scripts.llm_batch.errors import WorkflowError, run_cli
from scripts.llm_batch.gpus.devices import devices
from scripts.llm_batch.machine.nvml import read_inventory
from scripts.llm_batch.machine.read import read_machine
from scripts.llm_batch.machine.records import Gpu, Machine

FIELDS = ("pci.bus_id", "uuid", "name", "driver_version", "compute_cap", "memory.total")
RESERVED_MIB = 1024
"""nvidia-smi leaves what the driver reserves out of a card's memory on some versions."""


class Check(NamedTuple):
    """What was compared: what the doctor says and what nvidia-smi says."""

    name: str
    ours: Any
    theirs: Any
    right: bool

    def __str__(self) -> str:
        word = "ok    " if self.right else "FAILED"
        return f"{word}  {self.name}: {self.ours} (nvidia-smi: {self.theirs})"


def build_parser() -> argparse.ArgumentParser:
    """Return the command line of this program."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", required=True, type=Path, help="folder for what is found")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Print table and checks, write the files; 0 if all checks pass."""
    out: Path = build_parser().parse_args(argv).out
    out.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    machine = read_machine(Path("results"))
    read_s = time.monotonic() - began
    examination = examine(machine, ENVS, Path("results"))
    text = listing(examination, [], 110)
    print(text)
    print(f"\nreading the machine took {read_s:.3f} s")
    write_text_atomic(out / "doctor.txt", text + "\n")
    write_text_atomic(out / "doctor.json", json.dumps(to_record(examination, []), indent=1) + "\n")
    if not machine.gpus:
        raise WorkflowError(f"no GPU to compare with: {machine.inventory.reason}")
    record(machine, out / f"{record_name(machine)}.json")
    checks = [*card_checks(machine), *machine_checks(machine), *busy_checks(machine)]
    print(*checks, sep="\n")
    return int(any(not check.right for check in checks))


def record_name(machine: Machine) -> str:
    """Return the name of the record: the first card, its number, and the driver."""
    card = re.sub(r"[^a-z0-9]+", "-", machine.gpus[0].name.lower()).strip("-")
    count = f"{len(machine.gpus)}x-" if len(machine.gpus) > 1 else ""
    return f"recorded-{count}{card}-driver-{machine.inventory.driver_version}"


def card_checks(machine: Machine) -> Iterator[Check]:
    """Yield what the doctor says of each card, beside what nvidia-smi says."""
    rows = ask(f"--query-gpu={','.join(FIELDS)}", "--format=csv,noheader,nounits").splitlines()
    theirs = [[cell.strip() for cell in row.split(",")] for row in rows if row.strip()]
    theirs.sort(key=lambda row: row[0])
    yield check("number of cards", len(machine.gpus), len(theirs))
    for gpu, (bus, uuid, name, driver, capability, memory) in zip(
        machine.gpus, theirs, strict=False
    ):
        label = f"GPU {gpu.index}"
        yield check(f"{label} PCI address", gpu.pci_bus_id.lower(), bus.lower())
        yield check(f"{label} UUID", gpu.uuid, uuid)
        yield check(f"{label} name", gpu.name, name)
        yield check("driver", machine.inventory.driver_version, driver)
        yield check(f"{label} compute capability", gpu.compute_capability, capability)
        yield memory_check(label, gpu, float(memory))


def memory_check(label: str, gpu: Gpu, mebibytes: float) -> Check:
    """Return whether both say the same size, but for what the driver reserves."""
    ours = gpu.memory_total_bytes / (1 << 20)
    right = 0 <= ours - mebibytes <= RESERVED_MIB
    return Check(f"{label} memory, MiB", round(ours), round(mebibytes), right)


def machine_checks(machine: Machine) -> Iterator[Check]:
    """Yield what is told of all cards together."""
    found = re.search(r"CUDA Version: *([0-9.]+)", ask())
    yield check("CUDA of the driver", machine.inventory.cuda_version, found[1] if found else None)
    theirs = topology(ask("topo", "--matrix"), len(machine.gpus))
    ours = [list(row) for row in machine.inventory.topology]
    yield Check("topology", ours, theirs or "not told", not theirs or ours == theirs)
    processes = sum(len(gpu.processes) for gpu in machine.gpus)
    listed = ask("--query-compute-apps=pid", "--format=csv,noheader").split()
    yield Check("processes on cards", processes, len(listed), processes == len(listed))


HOLD = """
import torch
held = torch.empty(2 << 30, dtype=torch.uint8, device="cuda:0")
print("held", flush=True)
input()
"""


def busy_checks(before: Machine) -> Iterator[Check]:
    """Yield whether a process that takes 2 GiB of a card is seen, where torch is there."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        if holder.stdout is None or holder.stdout.readline().strip() != "held":
            print("told    a busy card: torch cannot take memory here, so not tried")
            return
        after = read_inventory()
        grown = sum(gpu.memory_used_bytes for gpu in after.gpus) - sum(
            gpu.memory_used_bytes for gpu in before.gpus
        )
        yield Check("bytes more in use", grown, "not asked", grown >= 2 << 30)
        users = [user for device in devices(after) if (user := device.user())]
        yield Check("cards that count as used", users, "not asked", len(users) >= 1)
    finally:
        holder.kill()
        holder.wait()


def topology(text: str, count: int) -> list[list[str]]:
    """Return the matrix of `nvidia-smi topo --matrix`, empty where it has none."""
    rows = [
        line.split()[1 : count + 1]
        for line in text.splitlines()
        if re.match(r"\s*GPU\d+\s+\S", line)
    ]
    return [row for row in rows if "X" in row]


def check(name: str, ours: Any, theirs: Any) -> Check:
    """Return whether both say the same."""
    return Check(name, ours, theirs, ours == theirs)


def ask(*words: str) -> str:
    """Return what nvidia-smi prints."""
    try:
        result = subprocess.run(
            ["nvidia-smi", *words], capture_output=True, text=True, timeout=60, check=False
        )
    except FileNotFoundError:
        raise WorkflowError(
            "nvidia-smi: not on PATH, so there is nothing to compare with"
        ) from None
    if result.returncode:
        print(f"nvidia-smi {' '.join(words)}: {result.stderr or result.stdout}", file=sys.stderr)
    return result.stdout


if __name__ == "__main__":
    run_cli(main)
