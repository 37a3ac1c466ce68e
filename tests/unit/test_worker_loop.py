"""The loop between files of requests, an engine and a journal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from scripts.worker.engine import Finished, RequestError
from scripts.worker.journal import Counters, Journal
from scripts.worker.loop import Loop


class FakeEngine:
    """Finishes one request a step, the oldest first; refuses what the test says."""

    def __init__(self, max_num_seqs: int = 4) -> None:
        self.max_num_seqs = max_num_seqs
        self.held: list[str] = []
        self.most = 0
        self.least_before_end = 10**9
        self.prepared = 0

    def prepare(self, requests: list[dict[str, Any]]) -> list[Any]:
        self.prepared += len(requests)
        return [
            RequestError("prompt_too_long", "x") if request.get("bad") else request
            for request in requests
        ]

    def add(self, request_id: str, prepared: Any) -> None:
        if prepared.get("refused"):
            raise RequestError("sampling_invalid", "no")
        self.held.append(request_id)
        self.most = max(self.most, len(self.held))

    def step(self) -> list[Finished]:
        return [Finished(self.held.pop(0), "t", [1], "stop", None, 2, cached_prompt_tokens=1)]

    def generated_tokens(self) -> int | None:
        return None

    def facts(self) -> dict[str, Any]:
        return {}

    def close(self) -> None:
        pass


class Bench:
    """A loop with its files."""

    def __init__(self, folder: Path, window: int | None = None, stop_after: int = 10**9) -> None:
        self.folder = folder
        self.engine = FakeEngine()
        self.counters = Counters(str(folder / "progress"))
        self.journal = Journal(str(folder / "journal.jsonl"), {"pid": 1})
        self.stop_after = stop_after
        self.loop = Loop(self.engine, self.journal, self.counters, window, self.stopped)

    def stopped(self) -> bool:
        self.stop_after -= 1
        return self.stop_after < 0

    def file(self, name: str, count: int, **marks: Any) -> str:
        lines = [
            json.dumps({"key": f"{name}{number}", "max_tokens": 4, **marks})
            for number in range(count)
        ]
        (self.folder / name).write_text("\n".join(lines) + "\n" if lines else "")
        return str(self.folder / name)

    def answers(self) -> list[dict[str, Any]]:
        lines = (self.folder / "journal.jsonl").read_text().splitlines()
        assert "journal" in json.loads(lines[0])
        return [json.loads(line) for line in lines[1:]]


def test_every_request_is_answered_once(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    assert bench.loop.run([bench.file("a", 50), bench.file("b", 7), bench.file("c", 0)])
    keys = [answer["key"] for answer in bench.answers()]
    assert keys == [f"a{n}" for n in range(50)] + [f"b{n}" for n in range(7)]
    assert bench.counters.answered == 57
    assert bench.counters.completion_tokens == 57
    assert bench.counters.cached_prompt_tokens == 57


@pytest.mark.parametrize(("window", "expected"), [(None, 8), (1, 1), (5, 5), (64, 64)])
def test_the_window_bounds_what_the_engine_holds(
    tmp_path: Path, window: int | None, expected: int
) -> None:
    bench = Bench(tmp_path, window)
    bench.loop.run([bench.file("a", 200)])
    assert bench.engine.most == expected


def test_a_large_file_is_read_as_it_is_needed(tmp_path: Path) -> None:
    bench = Bench(tmp_path, window=8, stop_after=10)
    assert not bench.loop.run([bench.file("a", 5000)])
    assert bench.engine.prepared <= 20


def test_the_engine_is_empty_between_two_files(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    paths = [bench.file("a", 9), bench.file("b", 9)]
    held: list[set[str]] = []
    step = bench.engine.step

    def watched() -> list[Finished]:
        names = {bench.loop._open[number].key[0] for number in bench.engine.held}
        held.append(names)
        return step()

    bench.engine.step = watched  # type: ignore[method-assign]
    bench.loop.run(paths)
    assert {"a", "b"} not in held


def test_refused_requests_become_errors_and_the_rest_goes_on(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    paths = [
        bench.file("a", 3, bad=True),
        bench.file("b", 3, refused=True),
        bench.file("c", 3),
    ]
    bench.loop.run(paths)
    types = [answer["error"] and answer["error"]["type"] for answer in bench.answers()]
    assert types == ["prompt_too_long"] * 3 + ["sampling_invalid"] * 3 + [None] * 3
    assert bench.counters.errors == 6


def test_what_the_engine_may_hold_is_noted_before_it_gets_it(tmp_path: Path) -> None:
    bench = Bench(tmp_path, window=8)
    seen: list[str] = []
    prepare = bench.engine.prepare

    def watched(requests: list[dict[str, Any]]) -> list[Any]:
        seen.append((tmp_path / "progress").read_text().strip())
        return prepare(requests)

    bench.engine.prepare = watched  # type: ignore[method-assign]
    bench.loop.run([bench.file("a", 4), bench.file("b", 3)])
    assert seen[:2] == ["0 2", "0 4"]
    assert seen[-1] == "1 3"


def test_finished_answers_are_in_the_journal_after_a_stop(tmp_path: Path) -> None:
    bench = Bench(tmp_path, stop_after=6)
    assert not bench.loop.run([bench.file("a", 100)])
    assert len(bench.answers()) == 6
