"""Running `generate` as its rule does, with the dummy engine or a real one."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).resolve().parents[2]

TIMEOUT_S = 240.0


def make_request(
    number: int, prompt: dict[str, Any] | None = None, **changes: Any
) -> dict[str, Any]:
    """Return a request as `shard_prompts` writes it; `changes` go into its sampling."""
    sampling = {"temperature": 0.7, "max_tokens": 16, "seed": number, **changes}
    if sampling["temperature"] == 0:
        del sampling["seed"]
    prompt = prompt or {"text": f"what is {number} and {number * 7 % 100}"}
    content = json.dumps([prompt, {**sampling, "max_tokens": None}, number])
    return {
        "key": hashlib.sha256(content.encode()).hexdigest()[:32],
        "max_tokens": sampling["max_tokens"],
        "prompt": prompt,
        "sampling": sampling,
        "on_too_long": "error",
        "expected_tokens": 20,
    }


@dataclass
class Workspace:
    """A folder with one shard; `engine`, `tuning` and the rest are what the rule passes."""

    folder: Path
    engine: dict[str, Any] = field(default_factory=lambda: {"backend": "dummy", "args": {}})
    tuning: dict[str, Any] = field(default_factory=dict)
    model: str = ""
    environment: str = ""
    name: str = "batch-0123456789ab.0"
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def requests(self) -> Path:
        """Return the requests file."""
        return self.folder / "requests" / "0.jsonl"

    @property
    def journals(self) -> Path:
        """Return the folder of the journals."""
        return self.folder / "engines" / "e-0123456789ab" / "journals"

    @property
    def state(self) -> Path:
        """Return the folder of the shard's state."""
        return self.journals.parent / "shards" / self.name

    @property
    def completions(self) -> Path:
        """Return the table that `generate` writes."""
        return self.folder / "completions" / "0.parquet"

    def write(self, requests: Sequence[dict[str, Any]]) -> None:
        """Write the requests file."""
        self.requests.parent.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps(request, separators=(",", ":")) + "\n" for request in requests]
        self.requests.write_text("".join(lines), encoding="utf-8")

    def command(self, *extra: str, program: Path | None = None) -> list[str]:
        """Return the command line of `generate`, or of a program that calls it."""
        return [
            sys.executable,
            *(("-m", "scripts.generate") if program is None else (str(program),)),
            *("--requests", str(self.requests)),
            *("--journals", str(self.journals)),
            *("--journal-name", self.name),
            *("--model", self.model),
            *("--environment", self.environment),
            *("--engine", json.dumps(self.engine)),
            *("--tuning", json.dumps(self.tuning)),
            *("--completions", str(self.completions)),
            *("--facts", str(self.folder / "facts" / "0.json")),
            *extra,
        ]

    def start(
        self, *extra: str, program: Path | None = None, **options: Any
    ) -> subprocess.Popen[str]:
        """Start `generate`."""
        process = subprocess.Popen(
            self.command(*extra, program=program),
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            **options,
        )
        self.started.append(process)
        return process

    def run(self, *extra: str, code: int = 0, **options: Any) -> str:
        """Run `generate` to its end, expect the exit code, and return what it printed."""
        process = self.start(*extra, **options)
        output = process.communicate(timeout=TIMEOUT_S)[0]
        assert process.returncode == code, output
        return output

    def facts(self) -> dict[str, Any]:
        """Return the facts of the shard."""
        facts: dict[str, Any] = json.loads((self.folder / "facts" / "0.json").read_text())
        return facts

    def exits(self) -> list[str]:
        """Return how each engine start that was recorded so far ended."""
        names = sorted(path for path in self.state.glob("*.*.*.json") if "engine" not in path.name)
        return [json.loads(path.read_text())["exit"] for path in names]

    def answers(self) -> list[dict[str, Any]]:
        """Return the rows of the completions table."""
        rows: list[dict[str, Any]] = pq.read_table(self.completions).to_pylist()
        return rows

    def journaled(self) -> list[str]:
        """Return the keys of all whole answers in all journals."""
        keys: list[str] = []
        for path in sorted(self.journals.glob("*.jsonl")):
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
            whole = [line for line in lines if line.endswith("\n") and line.startswith('{"key":')]
            keys += [json.loads(line)["key"] for line in whole]
        return keys

    def worker(self, process: subprocess.Popen[str]) -> psutil.Process:
        """Wait for the worker that `process` starts and return it."""
        found: list[psutil.Process] = wait_for(lambda: psutil.Process(process.pid).children())
        return found[0]

    def wait_answers(self, count: int) -> None:
        """Wait until the journals hold `count` answers."""
        wait_for(lambda: len(self.journaled()) >= count)

    def wait_news(self, process: subprocess.Popen[str]) -> None:
        """Wait until `process` has journaled another answer, or has ended."""
        before = len(self.journaled())
        wait_for(lambda: process.poll() is not None or len(self.journaled()) > before)


def alive(pid: int) -> bool:
    """Tell whether a process runs; one that waits to be collected does not."""
    return bool(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)


def kill_and_wait(process: subprocess.Popen[str], worker: psutil.Process) -> None:
    """Kill a supervisor and wait until the kernel has killed its worker."""
    process.kill()
    process.wait()
    wait_for(lambda: not alive(worker.pid))


def wait_for(condition: Callable[[], Any], seconds: float = 150.0) -> Any:
    """Return the first true value of `condition`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.005)
    raise AssertionError(f"did not happen within {seconds:g} s")


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    """Return a workspace with the dummy engine; what it started is killed afterwards."""
    space = Workspace(tmp_path)
    yield space
    for process in space.started:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            process.wait()
        if process.stdout is not None:
            process.stdout.close()
