"""The live table of all shards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from scripts import watch

NOW = 1_000_000.0


def shard(name: str, **changes: Any) -> dict[str, Any]:
    return {
        "name": name,
        "state": "answering",
        "total": 1000,
        "answered": 400,
        "errors": 2,
        "rate": 12.5,
        "token_rate": 480.0,
        "left_s": 48.0,
        "engine_starts": 1,
        "deaths": 0,
        "host": "node1",
        "updated": NOW - 1,
        **changes,
    }


def put(results: Path, record: dict[str, Any]) -> None:
    folder = results / "engines" / "e-0123456789ab" / "shards" / str(record["name"])
    folder.mkdir(parents=True)
    (folder / "shard.json").write_text(json.dumps(record))


def test_shards_are_listed_with_a_total() -> None:
    lines = watch.table([shard("b.0"), shard("b.1", answered=1000, state="finished")], NOW)
    heading, first, second, total = (" ".join(line.split()) for line in lines.splitlines())
    assert heading.startswith("shard state answered of")
    assert first == "b.0 answering 400 1000 40% 12.5 480 0:48 2 1 0 node1"
    assert second == "b.1 finished 1000 1000 100% 2 1 0 node1"
    assert total == "all 1 running 1400 2000 70% 12.5 480 0:48 4 2 0"


def test_a_supervisor_that_stopped_writing_is_marked() -> None:
    assert "silent for 1:40" in watch.table([shard("b.0", updated=NOW - 100)], NOW)
    assert "silent" not in watch.table([shard("b.0", updated=NOW - 100, state="stopped")], NOW)


def test_an_unfinished_shard_never_shows_100_percent() -> None:
    assert watch.share(999, 1000) == "99%"
    assert watch.share(0, 0) == "100%"


def test_it_prints_once_where_there_is_no_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.time", lambda: NOW)
    assert watch.main(["--results", str(tmp_path)]) == 0
    assert "no shards" in capsys.readouterr().out
    put(tmp_path, shard("b.0"))
    put(tmp_path, shard("old.0", state="finished", updated=NOW - 100_000))
    watch.main(["--results", str(tmp_path)])
    assert "old.0" not in capsys.readouterr().out
    watch.main(["--results", str(tmp_path), "--all"])
    assert "old.0" in capsys.readouterr().out
