"""Progress lines, the file for `scripts.watch`, and the watch over engines that hang."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from scripts.llm_batch.generate.progress import Progress, Watchdog, duration
from scripts.llm_batch.generate.settings import Tuning

TUNING = Tuning(start_timeout_s=100, stall_timeout_s=10)


def status(done: int, **changes: Any) -> dict[str, Any]:
    return {"phase": "generate", "done": done, "steps": 0, "generated_tokens": None, **changes}


def progress(folder: Path) -> Progress:
    return Progress("batch-1.0", 1000, 100, folder)


def test_a_line_comes_every_ten_seconds_with_rate_and_time_left(tmp_path: Path) -> None:
    it = progress(tmp_path)
    assert it.update({}, 0.0) == "batch-1.0: engine starting"
    assert it.update(status(0, generated_tokens=0), 5.0) is None
    line = it.update(status(200, errors=3, generated_tokens=4000), 20.0)
    assert line == "batch-1.0: 300/1000 answered, 3 errors, 10/s, 200 tokens/s, 1:10 left"


def test_a_long_start_is_told_with_what_the_engine_said_last(tmp_path: Path) -> None:
    it, log = progress(tmp_path), tmp_path / "engine.log"
    assert it.update({}, 0.0, log) == "batch-1.0: engine starting"
    assert it.update({}, 10.0, log) == "batch-1.0: engine starting"
    log.write_text("INFO Loading weights took 0.01 seconds\nINFO compiling kernels" + " …" * 100)
    line = it.update({"phase": "start"}, 70.0, log)
    assert line is not None
    start = "batch-1.0: engine starting for 1:10, its log ends with: INFO compiling kernels … …"
    assert line.startswith(start)
    assert len(line) < 220
    it.engine_started(100, 0, 0)
    assert it.update({}, 80.0, log) == "batch-1.0: engine starting"


def test_the_rate_is_that_of_the_last_minute(tmp_path: Path) -> None:
    it = progress(tmp_path)
    for second in range(0, 200, 2):
        it.update(status(min(second, 100)), float(second))
    record = json.loads((tmp_path / "shard.json").read_text())
    assert record["rate"] == pytest.approx(0.0, abs=0.05)
    assert record["answered"] == 200


def test_counts_go_on_over_a_restart(tmp_path: Path) -> None:
    it = progress(tmp_path)
    it.engine_started(100, 0, 0)
    it.update(status(50), 0.0)
    it.engine_started(150, 2, 1)
    it.update(status(0), 20.0)
    record = json.loads((tmp_path / "shard.json").read_text())
    assert (record["answered"], record["engine_starts"], record["deaths"]) == (150, 2, 1)
    it.end("finished", 1000, 2)
    assert json.loads((tmp_path / "shard.json").read_text())["state"] == "finished"


def test_an_engine_that_does_not_start_in_time_is_hung() -> None:
    dog = Watchdog(TUNING, 0.0)
    assert dog.hung({}, 99) is None
    assert dog.hung({"phase": "start"}, 101) == "did not start within 100 s"


@pytest.mark.parametrize(
    ("changes", "hung"),
    [
        ({}, True),
        ({"done": 1}, False),
        ({"steps": 5}, False),
        # Steps without tokens are an engine that spins.
        ({"generated_tokens": 7, "steps": 5}, True),
        ({"generated_tokens": 8}, False),
    ],
)
def test_no_token_and_no_answer_for_a_while_is_a_hang(changes: dict[str, Any], hung: bool) -> None:
    first = status(0)
    if "generated_tokens" in changes:
        first["generated_tokens"] = 7
    dog = Watchdog(TUNING, 0.0)
    assert dog.hung(first, 50.0) is None
    assert dog.hung({**first, **changes}, 59.0) is None
    assert (dog.hung({**first, **changes}, 61.0) is not None) is hung


def test_a_status_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    it = progress(tmp_path / "missing")
    assert it.update(status(1), 0.0) is not None


def test_durations() -> None:
    assert [duration(s) for s in (5, 65, 3600 + 62)] == ["0:05", "1:05", "1:01:02"]
