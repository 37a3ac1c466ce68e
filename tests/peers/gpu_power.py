"""What a GPU draws while programs run, and how much of its memory is taken."""

from __future__ import annotations

import contextlib
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

INTERVAL_S = 1.0
FREE_BYTES = 2 << 30
FREE_WAIT_S = 30.0


class Reading(NamedTuple):
    """One look at the first GPU: seconds (monotonic), watts, bytes in use, share of time busy."""

    at: float
    watts: float
    used: int
    busy: float


Reader = Callable[[], Reading]


def find_reader() -> Reader | None:
    """Return how to read the first GPU, None without one."""
    for make in (nvml_reader, smi_reader):
        try:
            reader = make()
            reader()
        except (ImportError, OSError, ValueError, RuntimeError, subprocess.SubprocessError):
            continue
        return reader
    return None


def nvml_reader() -> Reader:
    """Return a reader that asks the driver's library."""
    import pynvml

    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    except pynvml.NVMLError as error:
        raise RuntimeError(str(error)) from error

    def read() -> Reading:
        try:
            watts = pynvml.nvmlDeviceGetPowerUsage(handle) / 1000
            used = int(pynvml.nvmlDeviceGetMemoryInfo(handle).used)
            busy = pynvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100
        except pynvml.NVMLError as error:
            raise RuntimeError(str(error)) from error
        return Reading(time.monotonic(), watts, used, busy)

    return read


def smi_reader() -> Reader:
    """Return a reader that asks nvidia-smi."""
    query = "--query-gpu=power.draw,memory.used,utilization.gpu"
    command = ["nvidia-smi", query, "--format=csv,noheader,nounits", "--id=0"]

    def read() -> Reading:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        watts, used, busy = (float(part) for part in done.stdout.strip().split(","))
        return Reading(time.monotonic(), watts, int(used) << 20, busy / 100)

    return read


def wait_until_free(reader: Reader | None) -> None:
    """Wait until the engine before has given the GPU's memory back."""
    deadline = time.monotonic() + FREE_WAIT_S
    while reader is not None and reader().used > FREE_BYTES and time.monotonic() < deadline:
        time.sleep(0.5)


@dataclass
class Power:
    """The readings of one run."""

    readings: list[Reading] = field(default_factory=list)

    def facts(self) -> dict[str, Any]:
        """Return energy (kJ, trapezoids between readings), peak power, memory and busy share."""
        pairs = list(zip(self.readings, self.readings[1:], strict=False))
        if not pairs:
            return {"energy_kj": None, "peak_w": None, "gpu_peak_bytes": None, "busy": None}
        joules = sum((b.at - a.at) * (a.watts + b.watts) / 2 for a, b in pairs)
        return {
            "energy_kj": joules / 1000,
            "peak_w": max(reading.watts for reading in self.readings),
            "gpu_peak_bytes": max(reading.used for reading in self.readings),
            "busy": sum(reading.busy for reading in self.readings) / len(self.readings),
        }


@contextlib.contextmanager
def watched(reader: Reader | None) -> Iterator[Power]:
    """Read the GPU once a second while the block runs."""
    power = Power()
    if reader is None:
        yield power
        return
    ended = threading.Event()

    def follow() -> None:
        while True:
            with contextlib.suppress(RuntimeError, ValueError, OSError, subprocess.SubprocessError):
                power.readings.append(reader())
            if ended.wait(INTERVAL_S):
                return

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield power
    finally:
        ended.set()
        thread.join()
