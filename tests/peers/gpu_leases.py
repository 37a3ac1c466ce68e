"""Check leases and telemetry on a real GPU: one card and about three minutes are enough.

    python -m tests.peers.gpu_leases --out leases.json

Run by the interpreter that has vLLM; orjson, psutil, pyarrow, filelock and nvidia-ml-py must be
there too. Prints a line a check, and ends with 1 if one failed. `--simulated` shows without a GPU
that the script works: cards are made up, the engine is the dummy, and nothing is measured.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from scripts.llm_batch.addresses import write_json_atomic
from scripts.llm_batch.errors import WorkflowError, run_cli
from scripts.llm_batch.generate.gpus import Lease, lease
from scripts.llm_batch.gpus.telemetry import Reading, Sample, read_samples, watched
from tests.peers.gpu import missing_modules
from tests.peers.gpu_machine import RealGpu, SimulatedGpu

GRANTED_S = 60.0
SAMPLED_S = 5.5
TOLERANCE = 0.15
"""nvidia-smi's watts and the driver's counter are averaged over other windows of time."""


class GaveUp(Exception):
    """Ends a waiting that lasted long enough."""


class Checks:
    """What was checked, what was found, and whether that is right."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self._began = time.monotonic()

    def note(self, name: str, right: bool | None, found: Any) -> None:
        """Print a check; `right` is None where there is nothing to compare with."""
        row = {"check": name, "right": right, "found": found}
        self.rows.append({**row, "at_s": round(time.monotonic() - self._began, 1)})
        word = {True: "ok", False: "FAILED", None: "told"}[right]
        print(f"{self.rows[-1]['at_s']:6.1f} s  {word:6}  {name}: {found}", flush=True)

    @property
    def failed(self) -> int:
        """How many checks failed."""
        return sum(row["right"] is False for row in self.rows)


def wait_for_lease(seconds: float) -> tuple[Lease | None, list[str], float]:
    """Try to lease a GPU and give it back; return it, the reasons for waiting, and the seconds."""
    began = time.monotonic()
    reasons: list[str] = []

    def waiting(reason: str) -> None:
        if reason not in reasons:
            reasons.append(reason)
        if time.monotonic() - began > seconds:
            raise GaveUp

    with suppress(GaveUp), lease(1, "the-check", os.environ, waiting=waiting) as leased:
        return leased, reasons, time.monotonic() - began
    return None, reasons, time.monotonic() - began


def check_identity(checks: Checks, gpu: RealGpu | SimulatedGpu) -> None:
    """A lease names the card that nvidia-smi names."""
    leased, reasons, _ = wait_for_lease(GRANTED_S)
    found = None if leased is None else (dict(leased.environment), leased.uuids, leased.model)
    checks.note("a free card is leased", leased is not None, found or reasons)
    if leased is not None:
        told = gpu.uuids()
        checks.note("its UUID is the one nvidia-smi tells", leased.uuids[0] in told, told)


def check_second_job(checks: Checks, gpu: RealGpu | SimulatedGpu) -> None:
    """With every card leased, the next job waits and is told by whom."""
    count = len(gpu.uuids())
    with lease(count, "the-first-job", os.environ):
        leased, reasons, _ = wait_for_lease(2.0)
    told = " ".join(reasons)
    right = leased is None and f"the-first-job of {gpu.user()} (pid {os.getpid()})" in told
    checks.note("a second job waits, and is told who has the card", right, reasons)


def check_busy_card(checks: Checks, gpu: RealGpu | SimulatedGpu) -> None:
    """A card on which somebody holds memory is skipped until that process is gone."""
    with gpu.occupied() as pid:
        leased, reasons, _ = wait_for_lease(3.0)
        checks.note("a card that somebody uses is skipped", leased is None, reasons)
        checks.note("by a process that is named", None, f"it is {pid}; {reasons[:1]}")
    leased, _, seconds = wait_for_lease(GRANTED_S)
    checks.note("and had once that has ended", leased is not None, f"after {seconds:.1f} s")


def check_engine(checks: Checks, gpu: RealGpu | SimulatedGpu, folder: Path) -> dict[str, Any]:
    """An engine runs on its card; energy and memory are those of nvidia-smi."""
    watts: list[tuple[float, float]] = []
    ended = threading.Event()
    watcher = threading.Thread(target=gpu.follow_watts, args=(watts, ended), daemon=True)
    watcher.start()
    before = gpu.counter_j()
    process, facts_path, state = gpu.start_engine(folder / "first")
    apps: list[str] = []
    while process.poll() is None:
        apps = gpu.apps() or apps
        time.sleep(1.0)
    ended.set()
    watcher.join(5)
    after = gpu.counter_j()
    log = (folder / "first" / "log.txt").read_text(errors="replace")
    checks.note("the shard is answered", process.returncode == 0, log.splitlines()[-1:])
    facts = json.loads(facts_path.read_text())
    (engine,) = facts["engines"]
    checks.note("processes on cards (nvidia-smi)", None, apps)
    checks.note("lease in the facts", facts["gpu_lease"]["gpus"] == 1, facts["gpu_lease"])
    check_energy(checks, engine, watts, None if before is None else (after or 0) - before)
    memory = {name: value for name, value in engine.items() if name.endswith("_bytes")}
    checks.note("parts of the memory, from the log", None, memory)
    for path in state.glob("*.gpus.jsonl"):
        for uuid, samples in read_samples(path).items():
            note_rate(checks, uuid, samples)
    checks.note("first start", None, {n: engine[n] for n in ("compile_cache", "startup_s")})
    return dict(engine)


def note_rate(checks: Checks, uuid: str, samples: Sequence[Sample]) -> None:
    """A GPU is sampled once a second; the last sample, at the end, is one more."""
    regular = samples[:-1]
    if len(regular) < 3:
        checks.note(f"samples a second of {uuid}", None, f"only {len(regular)} to tell by")
        return
    rate = (len(regular) - 1) / (regular[-1].seconds - regular[0].seconds)
    checks.note(f"samples a second of {uuid}", 0.9 < rate < 1.1, round(rate, 3))


def check_simulated_samples(checks: Checks, folder: Path) -> None:
    """The sampler's own pace, with readings that are made up."""
    path = folder / "simulated.gpus.jsonl"
    reading = Reading(50, 1 << 30, 100.0, None, 40, 0)
    with watched(lambda: [reading], ["simulated"], path):
        time.sleep(SAMPLED_S)
    for uuid, samples in read_samples(path).items():
        note_rate(checks, uuid, samples)


def check_energy(
    checks: Checks,
    engine: dict[str, Any],
    watts: Sequence[tuple[float, float]],
    counted: float | None,
) -> None:
    """The facts' energy agrees with nvidia-smi's watts over the same time, and with the counter."""
    telemetry = engine["telemetry"]
    if telemetry is None:
        checks.note("without a driver telemetry is absent", not watts, None)
        return
    checks.note("telemetry", None, telemetry)
    pairs = itertools.pairwise(watts)
    drawn = sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairs)
    ratio = telemetry["energy_j"] / drawn if drawn else 0.0
    near = abs(ratio - 1) < TOLERANCE
    checks.note("energy / integral of nvidia-smi's watts", near, round(ratio, 3))
    if counted:
        share = telemetry["energy_j"] / counted
        checks.note("energy / counter around the run", 0.8 < share <= 1.001, round(share, 3))
    tokens = engine["completion_tokens"]
    checks.note("J per 1000 output tokens", None, round(1000 * telemetry["energy_j"] / tokens, 2))


def check_kill(checks: Checks, gpu: RealGpu | SimulatedGpu, folder: Path) -> None:
    """A killed supervisor's card is had again once its engine's memory is free, and warm."""
    process, _, state = gpu.start_engine(folder / "second")
    deadline = time.monotonic() + 180
    while not list(state.glob("*.engine.json")) and time.monotonic() < deadline:
        time.sleep(0.2)
    told = [json.loads(path.read_text()) for path in state.glob("*.engine.json")]
    starts = [json.loads(p.read_text()) for p in state.glob("*.*.*.json") if "engine" not in p.name]
    process.send_signal(signal.SIGKILL)
    process.wait()
    leased, reasons, seconds = wait_for_lease(GRANTED_S)
    checks.note("a killed job's card is had again", leased is not None, f"after {seconds:.1f} s")
    checks.note("what was told meanwhile", None, reasons)
    startup = [start["startup_s"] for start in told]
    cache = [start.get("compile_cache") for start in starts]
    checks.note("second start", None, {"compile_cache": cache, "startup_s": startup})


def build_parser() -> argparse.ArgumentParser:
    """Return the command line of this program."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--simulated", action="store_true", help="made-up cards, dummy engine")
    parser.add_argument("--shape", default="1b", help="8b, 1b or tiny; default: %(default)s")
    parser.add_argument("--requests", type=int, default=3000, help="default: %(default)s")
    parser.add_argument("--output-len", type=int, default=256, help="tokens of an answer")
    parser.add_argument("--out", type=Path, help="JSON with all that was found")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Check; 0 if all is right."""
    arguments = build_parser().parse_args(argv)
    if missing := missing_modules(not arguments.simulated):
        raise WorkflowError(f"{sys.executable}: packages are missing: {', '.join(missing)}")
    checks = Checks()
    with tempfile.TemporaryDirectory(prefix="leases-", dir="/tmp") as name:
        folder = Path(name) / "work"
        os.environ["LLM_BATCH_LOCK_FOLDER"] = str(Path(name) / "locks")
        gpu = (SimulatedGpu if arguments.simulated else RealGpu)(arguments, folder)
        check_identity(checks, gpu)
        check_second_job(checks, gpu)
        check_busy_card(checks, gpu)
        check_engine(checks, gpu, folder)
        check_kill(checks, gpu, folder)
        if arguments.simulated:
            check_simulated_samples(checks, folder)
    print(f"{checks.failed} of {len(checks.rows)} checks failed; {sys.executable}", flush=True)
    if arguments.out is not None:
        write_json_atomic(arguments.out.absolute(), {"checks": checks.rows})
    return 1 if checks.failed else 0


if __name__ == "__main__":
    run_cli(main)
