"""What GPUs do while an engine runs: sampled once a second into a compact file, then summed up.

The file (`<engine start>.gpus.jsonl`) has a header with the columns, their units and the UUIDs,
then one array a sample and GPU. Each line is written whole, so what was sampled before a crash
is there. What a driver cannot tell is null, and nothing derived from it is made up.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

INTERVAL_S = 1.0
JOIN_S = 5.0

COLUMNS = (
    "seconds",
    "gpu",
    "utilization_percent",
    "memory_bytes",
    "power_w",
    "energy_j",
    "temperature_c",
    "throttle",
)

THROTTLE = {
    "power_cap": 0x04,
    "hardware": 0x08,
    "thermal": 0x20,
    "hardware_thermal": 0x40,
    "power_brake": 0x80,
}
"""Reasons for lower clocks than asked for: bits of nvmlClocksEventReasons in nvml.h. Idleness and
clocks that somebody set are none."""

log = logging.getLogger(__name__)


class Reading(NamedTuple):
    """One look at one GPU; `energy_j` counts since the driver was loaded, `throttle` are bits."""

    utilization_percent: int | None
    memory_bytes: int | None
    power_w: float | None
    energy_j: float | None
    temperature_c: int | None
    throttle: int | None


Source = Callable[[], list[Reading]]
"""Returns a reading of each GPU, always in the same order."""


def nvml_source(uuids: Sequence[str]) -> Source | None:
    """Return how to ask the driver about these GPUs; None if it cannot be asked about one."""
    try:
        import pynvml
    except ImportError as error:
        log.info("GPUs are not watched: %s", error)
        return None
    try:
        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByUUID(uuid) for uuid in uuids]
    except pynvml.NVMLError as error:
        log.info("GPUs are not watched: %s", error)
        return None
    return lambda: [_read(pynvml, handle) for handle in handles]


def _read(pynvml: Any, handle: Any) -> Reading:
    def ask(name: str, *arguments: Any) -> Any:
        try:
            return getattr(pynvml, name)(handle, *arguments)
        except (AttributeError, pynvml.NVMLError):
            return None

    utilization = ask("nvmlDeviceGetUtilizationRates")
    memory = ask("nvmlDeviceGetMemoryInfo")
    power = ask("nvmlDeviceGetPowerUsage")
    energy = ask("nvmlDeviceGetTotalEnergyConsumption")
    throttle = ask("nvmlDeviceGetCurrentClocksEventReasons")
    if throttle is None:
        throttle = ask("nvmlDeviceGetCurrentClocksThrottleReasons")
    return Reading(
        utilization_percent=None if utilization is None else int(utilization.gpu),
        memory_bytes=None if memory is None else int(memory.total) - int(memory.free),
        power_w=None if power is None else power / 1000,
        energy_j=None if energy is None else energy / 1000,
        temperature_c=ask("nvmlDeviceGetTemperature", pynvml.NVML_TEMPERATURE_GPU),
        throttle=throttle,
    )


@contextmanager
def watched(
    source: Source | None, uuids: Sequence[str], path: Path, interval_s: float = INTERVAL_S
) -> Iterator[None]:
    """Sample the GPUs into `path` while the block runs; no file without a source."""
    if source is None or not uuids:
        yield
        return
    ended = threading.Event()
    follower = threading.Thread(
        target=_follow, args=(source, uuids, path, interval_s, ended), daemon=True
    )
    follower.start()
    try:
        yield
    finally:
        ended.set()
        # A card that fell off the bus can hold a question to the driver up for ever.
        follower.join(JOIN_S)


def _follow(
    source: Source, uuids: Sequence[str], path: Path, interval_s: float, ended: threading.Event
) -> None:
    began = time.monotonic()
    header = {"columns": COLUMNS, "gpus": list(uuids), "interval_s": interval_s}
    try:
        with path.open("w", encoding="utf-8", buffering=1) as stream:
            stream.write(json.dumps(header) + "\n")
            samples = 0
            while True:
                last = ended.is_set()
                seconds = time.monotonic() - began
                lines = [_line(seconds, gpu, reading) for gpu, reading in enumerate(source())]
                stream.write("".join(lines))
                if last:
                    return
                samples += 1
                ended.wait(max(0.0, began + samples * interval_s - time.monotonic()))
    except OSError as error:
        log.warning("%s: GPUs are not watched any more: %s", path, error)


def _line(seconds: float, gpu: int, reading: Reading) -> str:
    values = [value if value is None else round(value, 3) for value in reading]
    return json.dumps([round(seconds, 3), gpu, *values], separators=(",", ":")) + "\n"


class Sample(NamedTuple):
    """A line of the file."""

    seconds: float
    reading: Reading


def read_samples(path: Path) -> dict[str, list[Sample]]:
    """Return the samples of each GPU by UUID; empty without a file. A torn last line is dropped."""
    found: dict[str, list[Sample]] = {}
    with contextlib.suppress(OSError, ValueError), path.open(encoding="utf-8") as stream:
        uuids = json.loads(next(stream, "{}")).get("gpus", [])
        found = {uuid: [] for uuid in uuids}
        for line in stream:
            seconds, gpu, *values = json.loads(line)
            found[uuids[gpu]].append(Sample(seconds, Reading(*values)))
    return {uuid: samples for uuid, samples in found.items() if samples}


def summary(*paths: Path, ready_s: float | None = None) -> dict[str, Any] | None:
    """Return the sums over all GPUs of one engine start; None if nothing was sampled.

    `paths` are the files of the nodes that it ran on, nearly always one.
    `ready_s` are the seconds until the engine could answer. Keys: `seconds` sampled, `energy_j`
    and the part of it before `ready_s`, `energy_source` (counter: the driver's own; power: watts
    integrated by trapezoids), means over GPUs and time, peaks of any GPU, `throttled_s` by reason,
    summed over GPUs. Null is what at least one GPU did not tell.
    """
    gpus = [samples for path in paths for samples in read_samples(path).values()]
    if not gpus:
        return None
    counters = [_column(samples, "energy_j") for samples in gpus]
    watts = [_column(samples, "power_w") for samples in gpus]
    by_counter = all(counters)
    energies = [_counted(c) for c in counters if c] if by_counter else [_integral(w) for w in watts]
    starting = None
    if ready_s is not None:
        early = [[s for s in samples if s.seconds <= ready_s] or samples[:1] for samples in gpus]
        name, measure = ("energy_j", _counted) if by_counter else ("power_w", _integral)
        starting = _sum([measure(_column(samples, name)) for samples in early])
    return {
        "gpus": len(gpus),
        "seconds": round(max(samples[-1].seconds for samples in gpus), 3),
        "energy_j": _rounded(_sum(energies)),
        "startup_energy_j": _rounded(starting),
        "energy_source": None if None in energies else ("counter" if by_counter else "power"),
        "utilization_percent": _rounded(_mean(gpus, "utilization_percent")),
        "power_w": _rounded(_mean(gpus, "power_w")),
        "peak_power_w": _rounded(_peak(gpus, "power_w")),
        "peak_memory_bytes": _peak(gpus, "memory_bytes"),
        "peak_temperature_c": _peak(gpus, "temperature_c"),
        "throttled_s": _throttled(gpus),
    }


Points = list[tuple[float, float]]


def _column(samples: Sequence[Sample], name: str) -> Points:
    """Return (seconds, value) of what is known."""
    pairs = [(sample.seconds, getattr(sample.reading, name)) for sample in samples]
    return [(seconds, value) for seconds, value in pairs if value is not None]


def _counted(points: Points) -> float | None:
    return points[-1][1] - points[0][1] if points else None


def _integral(points: Points) -> float | None:
    if not points:
        return None
    pairs = itertools.pairwise(points)
    return sum((b - a) * (before + after) / 2 for (a, before), (b, after) in pairs)


def _sum(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known and len(known) == len(values) else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)


def _mean(gpus: Sequence[Sequence[Sample]], name: str) -> float | None:
    values = [value for samples in gpus for _, value in _column(samples, name)]
    return sum(values) / len(values) if values else None


def _peak(gpus: Sequence[Sequence[Sample]], name: str) -> Any:
    return max((value for samples in gpus for _, value in _column(samples, name)), default=None)


def _throttled(gpus: Sequence[Sequence[Sample]]) -> dict[str, float] | None:
    """Return seconds with lower clocks by reason, those that there were."""
    found = dict.fromkeys(THROTTLE, 0.0)
    known = False
    for samples in gpus:
        points = _column(samples, "throttle")
        known = known or bool(points)
        for (begin, bits), (end, _) in itertools.pairwise(points):
            for name, bit in THROTTLE.items():
                if int(bits) & bit:
                    found[name] += end - begin
    return {name: round(value, 1) for name, value in found.items() if value} if known else None
