"""The worker's journal and counters on a disk that may be full."""

from __future__ import annotations

import errno
import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from scripts.worker.heartbeat import Heartbeat
from scripts.worker.journal import Counters, Journal, JournalError


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_first_line_tells_what_the_file_is(tmp_path: Path) -> None:
    Journal(str(tmp_path / "j"), {"backend": "dummy", "pid": 7})
    assert lines(tmp_path / "j") == [{"journal": {"version": 1, "backend": "dummy", "pid": 7}}]


def test_a_journal_has_one_writer(tmp_path: Path) -> None:
    Journal(str(tmp_path / "j"), {})
    with pytest.raises(FileExistsError):
        Journal(str(tmp_path / "j"), {})


def test_nothing_is_written_before_the_flush_and_all_after_it(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path / "j"), {})
    journal.append({"key": "a"})
    assert len(lines(tmp_path / "j")) == 1
    journal.flush()
    assert lines(tmp_path / "j")[1:] == [{"key": "a"}]


def test_a_full_disk_leaves_whole_lines_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(str(tmp_path / "j"), {})
    journal.append({"key": "a"})
    journal.flush()
    real = os.write

    def full(file: int, data: bytes) -> int:
        if len(data) <= 5:
            raise OSError(errno.ENOSPC, "full")
        return real(file, data[:5])

    monkeypatch.setattr(os, "write", full)
    journal.append({"key": "b"})
    with pytest.raises(JournalError, match="No space left on device"):
        journal.flush()
    monkeypatch.undo()
    assert (tmp_path / "j").read_bytes().endswith(b'{"key":"a"}\n')


def test_the_heartbeat_syncs_and_reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = threading.Event()
    monkeypatch.setattr("scripts.worker.heartbeat.INTERVAL_S", 0.01)
    beat = Heartbeat(str(tmp_path / "s"), lambda: {"done": 3}, synced.set)
    beat.start()
    assert synced.wait(5)
    beat.end()
    assert json.loads((tmp_path / "s").read_text())["done"] == 3


def test_a_sync_that_fails_reaches_the_loop(tmp_path: Path) -> None:
    def fail() -> None:
        raise JournalError("quota")

    beat = Heartbeat(str(tmp_path / "s"), dict, fail)
    beat.beat()
    assert str(beat.failure) == "quota"


def test_only_new_lines_are_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(str(tmp_path / "j"), {})
    calls: list[int] = []
    monkeypatch.setattr(os, "fsync", calls.append)
    journal.sync()
    journal.sync()
    journal.append({"key": "a"})
    journal.flush()
    journal.sync()
    assert len(calls) == 2


def test_counters_are_rewritten_in_place(tmp_path: Path) -> None:
    counters = Counters(str(tmp_path / "c"))
    counters.part, counters.admitted = 1, 123456
    counters.write()
    counters.admitted = 7
    counters.write()
    assert (tmp_path / "c").read_text().split() == ["1", "7"]
    assert (tmp_path / "c").stat().st_size == 64
