"""The machine that `gpu_leases.py` checks: a real one with a GPU, or one with a simulated card."""

from __future__ import annotations

import argparse
import getpass
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from scripts.llm_batch.machine.read import SIMULATED_MACHINE, read_machine
from scripts.llm_batch.machine.records import to_json
from tests.gpus.simulated import simulated_gpu, simulated_inventory, simulated_process
from tests.peers.gpu_speed import SAMPLINGS, make_engine, requests
from tests.peers.measuring import ROOT
from tests.peers.stage import Engine, make_request, write_requests

HOLDER = """
import sys, torch
block = torch.empty(3 << 30, dtype=torch.uint8, device="cuda")
print("holds", flush=True)
sys.stdin.read()
"""

JOURNAL = "leases-000000000000.0"

Started = tuple["subprocess.Popen[bytes]", Path, Path]
"""The process of a shard, its facts, and the folder of its state."""


def start_shard(folder: Path, words: Mapping[str, str | Path], log: Path) -> Started:
    """Start `scripts.generate`."""
    facts = folder / "facts.json"
    given: dict[str, str | Path] = {
        "--journals": folder / "engine" / "journals",
        "--journal-name": JOURNAL,
        "--completions": folder / "completions.parquet",
        "--facts": facts,
        **words,
    }
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "scripts.generate",
                *(w for pair in given.items() for w in pair),
            ],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            stdout=stream,
            stderr=subprocess.STDOUT,
        )
    return process, facts, folder / "engine" / "shards" / JOURNAL


class RealGpu:
    """This machine, asked by nvidia-smi where our own code is to be checked."""

    def __init__(self, arguments: argparse.Namespace, folder: Path) -> None:
        arguments.cpu, arguments.engine_python = False, Path(sys.executable)
        arguments.max_num_seqs = 512
        self._engine: Engine = make_engine(arguments, folder, arguments.shape, "dummy")
        lengths = (256, arguments.output_len)
        lines = requests(self._engine, arguments.requests, lengths, SAMPLINGS["seeded"])
        self._requests = write_requests(folder / "requests.jsonl", lines)

    def _smi(self, query: str, *columns: str) -> list[str]:
        command = ["nvidia-smi", f"--query-{query}={','.join(columns)}"]
        command.append("--format=csv,noheader,nounits")
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
        return done.stdout.strip().splitlines()

    def uuids(self) -> list[str]:
        """Return the UUIDs of all cards."""
        return self._smi("gpu", "uuid")

    def user(self) -> str:
        """Return who we are."""
        return getpass.getuser()

    def apps(self) -> list[str]:
        """Return which processes hold which card."""
        return self._smi("compute-apps", "pid", "gpu_uuid", "used_memory")

    def follow_watts(self, watts: list[tuple[float, float]], ended: threading.Event) -> None:
        """Collect (seconds, watts of all cards) twice a second."""
        while not ended.wait(0.5):
            with suppress(ValueError, subprocess.SubprocessError):
                drawn = sum(float(line) for line in self._smi("gpu", "power.draw"))
                watts.append((time.monotonic(), drawn))

    def counter_j(self) -> float | None:
        """Return the driver's count of energy, all cards together."""
        import pynvml

        pynvml.nvmlInit()
        cards = range(pynvml.nvmlDeviceGetCount())
        with suppress(pynvml.NVMLError):
            handles = [pynvml.nvmlDeviceGetHandleByIndex(card) for card in cards]
            counts = [pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) for handle in handles]
            return float(sum(counts)) / 1000
        return None

    @contextmanager
    def occupied(self) -> Iterator[int]:
        """Have a process hold 3 GiB of the first card."""
        pipe = subprocess.PIPE
        holder = subprocess.Popen([sys.executable, "-c", HOLDER], stdin=pipe, stdout=pipe)
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"holds\n", "the holder found no memory"
            yield holder.pid
        finally:
            holder.kill()
            holder.wait()

    def start_engine(self, folder: Path) -> Started:
        """Have an engine with made-up weights answer the shard."""
        folder.mkdir(parents=True)
        identity = {"backend": "vllm", "args": dict(self._engine.args)}
        words: dict[str, str | Path] = {
            "--requests": self._requests,
            "--model": self._engine.model,
            "--environment": self._engine.environment,
            "--engine": json.dumps(identity),
            "--tuning": json.dumps(dict(self._engine.tuning)),
        }
        return start_shard(folder, words, folder / "log.txt")


class SimulatedGpu:
    """This machine with one made-up card; nothing that is found says anything about a GPU."""

    def __init__(self, arguments: argparse.Namespace, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._record = folder / "machine.json"
        self._write(used_gib=0.5)
        os.environ[SIMULATED_MACHINE] = str(self._record)
        prompts = [{"text": f"what is {number}"} for number in range(200)]
        lines = [make_request(n, p, {"max_tokens": 16, "seed": n}) for n, p in enumerate(prompts)]
        self._requests = write_requests(folder / "requests.jsonl", lines)

    def _write(self, used_gib: float, **changes: Any) -> None:
        gpu = simulated_gpu(0, used_gib, **changes)
        inventory = simulated_inventory([gpu])
        machine = replace(read_machine(Path(), {}), origin="made up", inventory=inventory)
        self._record.write_text(json.dumps(to_json(machine)))

    def uuids(self) -> list[str]:
        """Return the made-up UUID."""
        return [simulated_gpu(0).uuid]

    def user(self) -> str:
        """Return who we are."""
        return getpass.getuser()

    def apps(self) -> list[str]:
        """Nothing runs on a made-up card."""
        return []

    def follow_watts(self, watts: list[tuple[float, float]], ended: threading.Event) -> None:
        """A made-up card draws nothing that could be measured."""

    def counter_j(self) -> float | None:
        """A made-up card counts nothing."""

    @contextmanager
    def occupied(self) -> Iterator[int]:
        """Say that somebody holds memory of the card."""
        self._write(40.0, processes=(simulated_process(),))
        try:
            yield simulated_process().pid
        finally:
            self._write(0.5)

    def start_engine(self, folder: Path) -> Started:
        """Have the dummy answer the shard."""
        folder.mkdir(parents=True)
        engine = {"backend": "dummy", "dummy": {"gpus": 1, "latency_s": 1.0}}
        words: dict[str, str | Path] = {
            "--requests": self._requests,
            "--engine": json.dumps(engine),
        }
        return start_shard(folder, words, folder / "log.txt")
