"""What is sampled of GPUs, against simulated drivers, and against none: there is no GPU here."""

from __future__ import annotations

import itertools
import json
import threading
from pathlib import Path
from typing import Any

import pytest

from scripts.llm_batch.generate.facts import Attempt, earlier_records, start_record
from scripts.llm_batch.gpus.telemetry import (
    COLUMNS,
    Reading,
    Source,
    nvml_source,
    read_samples,
    summary,
    watched,
)

UUIDS = ("GPU-a", "GPU-b")


def reading(**values: Any) -> Reading:
    return Reading(**{**dict.fromkeys(Reading._fields), **values})


def write_samples(path: Path, samples: list[tuple[float, int, Reading]]) -> Path:
    """Write the file that a simulated driver would have led to."""
    lines: list[Any] = [{"columns": COLUMNS, "gpus": UUIDS, "interval_s": 1.0}]
    lines += [[seconds, gpu, *values] for seconds, gpu, values in samples]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def ramp(counter: bool) -> list[tuple[float, int, Reading]]:
    """Two GPUs for ten seconds: one at 100 W, one from 0 to 500 W; the counters add 7 J a second.

    The counters disagree with the watts so that a test can tell which was used.
    """
    found = []
    for second in range(11):
        for gpu, watts in enumerate((100.0, 50.0 * second)):
            energy = 1e6 + 7.0 * second if counter else None
            found.append((float(second), gpu, reading(power_w=watts, energy_j=energy)))
    return found


def test_energy_is_the_drivers_counter_where_there_is_one(tmp_path: Path) -> None:
    found = summary(write_samples(tmp_path / "s", ramp(counter=True)), ready_s=4.2)
    assert found is not None
    assert (found["energy_j"], found["energy_source"]) == (140.0, "counter")
    assert found["startup_energy_j"] == 2 * 7.0 * 4
    assert (found["gpus"], found["seconds"]) == (2, 10.0)


def test_energy_is_the_integral_of_power_without_a_counter(tmp_path: Path) -> None:
    found = summary(write_samples(tmp_path / "s", ramp(counter=False)), ready_s=4.0)
    assert found is not None
    # 100 W for 10 s, and a ramp of 50 W a second: ½ · 50 · 10².
    assert (found["energy_j"], found["energy_source"]) == (1000.0 + 2500.0, "power")
    assert found["startup_energy_j"] == 400.0 + 400.0
    assert found["peak_power_w"] == 500.0
    assert found["power_w"] == (100.0 + 250.0) / 2


def test_what_a_driver_does_not_tell_is_absent_and_not_zero(tmp_path: Path) -> None:
    silent = [(float(second), gpu, reading()) for second in range(3) for gpu in range(2)]
    found = summary(write_samples(tmp_path / "s", silent), ready_s=1.0)
    assert found is not None
    told = {name for name, value in found.items() if value is not None}
    assert told == {"gpus", "seconds"}


def test_energy_of_two_gpus_is_unknown_if_one_of_them_is_silent(tmp_path: Path) -> None:
    samples = [(float(s), 0, reading(power_w=100.0)) for s in range(3)]
    samples += [(float(s), 1, reading()) for s in range(3)]
    found = summary(write_samples(tmp_path / "s", samples))
    assert found is not None
    assert found["energy_j"] is None
    assert found["peak_power_w"] == 100.0


def test_seconds_with_lower_clocks_are_counted_by_reason(tmp_path: Path) -> None:
    bits = [0x1, 0x4, 0x4, 0x44, 0x0]
    samples = [(float(s), 0, reading(throttle=bit)) for s, bit in enumerate(bits)]
    found = summary(write_samples(tmp_path / "s", samples))
    assert found is not None
    assert found["throttled_s"] == {"power_cap": 3.0, "hardware_thermal": 1.0}


def simulated_driver(count: int, times: int, enough: threading.Event) -> Source:
    """Return a driver whose GPUs take 10 J between readings; the last of `times` sets `enough`."""
    numbers = itertools.count(1)

    def read() -> list[Reading]:
        number = next(numbers)
        if number == times:
            enough.set()
        one = reading(
            utilization_percent=90, memory_bytes=7 << 30, power_w=200.0, energy_j=10.0 * number
        )
        return [one] * count

    return read


def test_gpus_are_sampled_until_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "s"
    enough = threading.Event()
    with watched(simulated_driver(2, 10, enough), UUIDS, path, interval_s=0.01):
        assert enough.wait(300)
    samples = read_samples(path)
    assert set(samples) == set(UUIDS)
    count = len(samples["GPU-a"])
    assert count >= 10
    found = summary(path)
    assert found is not None
    assert found["energy_j"] == pytest.approx(2 * 10.0 * (count - 1))
    assert found["utilization_percent"] == 90
    assert found["peak_memory_bytes"] == 7 << 30


def test_a_file_of_an_hour_and_eight_gpus_stays_small(tmp_path: Path) -> None:
    values = reading(
        utilization_percent=97,
        memory_bytes=132_987_654_321,
        power_w=687.123,
        energy_j=123456789.012,
        temperature_c=64,
        throttle=4,
    )
    path = write_samples(tmp_path / "s", [(1234.567, 0, values)])
    line = len(path.read_bytes().splitlines()[1])
    assert line * 3600 * 8 < 2_500_000


def test_a_torn_last_line_and_a_dead_supervisor_lose_nothing_else(tmp_path: Path) -> None:
    attempt = Attempt("b.0.20260101T000000.5-0", tmp_path, tmp_path)
    start_record(attempt, {"backend": "vllm", "gpus": list(UUIDS)})
    path = write_samples(attempt.telemetry, ramp(counter=True))
    with path.open("a") as stream:
        stream.write("[11.0,0,")
    (record,) = earlier_records(tmp_path, tmp_path)
    assert record["exit"] == "crashed"
    assert record["telemetry"]["energy_j"] == 140.0
    assert record["wall_s"] == 10.0


def test_without_a_driver_nothing_is_sampled(tmp_path: Path) -> None:
    """The real library, on a machine that has no GPU."""
    source = nvml_source(["GPU-00000000"])
    if source is not None:
        pytest.skip("there is a GPU of that name")
    with watched(source, ["GPU-00000000"], tmp_path / "s"):
        pass
    assert not (tmp_path / "s").exists()
    assert summary(tmp_path / "s") is None
