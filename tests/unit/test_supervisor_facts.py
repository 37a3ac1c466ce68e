"""The records of engine starts, also of those that died."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from scripts.llm_batch.generate.facts import (
    ENGINE_FACTS,
    STARTUP_FACTS,
    Attempt,
    earlier_records,
    finish_record,
    log_facts,
    start_record,
    total_of,
)

LOG_028 = """
INFO 11-23 [gpu_model_runner.py] Model loading took 14.98 GiB memory and 3.211 seconds
INFO 11-23 [cuda.py:316] Using FLASH_ATTN attention backend out of potential backends: ['FLASH_ATTN']
INFO 11-23 [gpu_model_runner.py] Graph capturing finished in 21 secs, took 0.61 GiB
INFO 11-23 [core.py:354] init engine (profile, create kv cache, warmup model) took 40.13 s (compilation: 12.50 s)
"""  # noqa: E501

LOG_06 = """
INFO 09-12 model_runner.py:1008] Loading model weights took 14.9888 GB
INFO 09-12 selector.py:116] Using XFormers backend.
"""

LOG_CPU = "INFO [selector.py:217] Using HND KV cache layout for CPU_ATTN backend.\n"


def attempt(folder: Path, stem: str = "batch-1.0.20260101T000000.5-0") -> Attempt:
    return Attempt(stem, folder, folder)


def journal(path: Path, count: int) -> None:
    lines: list[dict[str, Any]] = [{"journal": {"version": 1}}]
    lines += [{"key": str(n), "prompt_tokens": 3, "token_ids": [1, 2]} for n in range(count)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"key":"torn')


def test_a_finished_engine_is_believed(tmp_path: Path) -> None:
    it = attempt(tmp_path)
    start_record(it, {"backend": "vllm", "switches": {"A": "1"}, "started": "now"})
    told = {"requests": 7, "exit": "finished", "startup_s": {"load": 2.5}, "version": "0.28.0"}
    it.engine.write_text(json.dumps(told))
    it.log.write_text(LOG_028)
    record = finish_record(it, "finished")
    assert tuple(record) == ENGINE_FACTS
    assert (record["requests"], record["version"], record["exit"]) == (7, "0.28.0", "finished")
    assert record["switches"] == {"A": "1"}
    assert record["weights_bytes"] == int(14.98 * 2**30)
    assert record["attention_backend"] == "FLASH_ATTN"
    assert tuple(record["startup_s"]) == STARTUP_FACTS
    assert record["startup_s"] == {
        "spawn": None,
        "import": None,
        "load": 2.5,
        "compile": 12.5,
        "graph_capture": 21.0,
        "warm_up": 40.13,
        "total": None,
    }


def test_the_answers_of_a_dead_engine_are_counted_in_its_journal(tmp_path: Path) -> None:
    it = attempt(tmp_path)
    start_record(it, {"backend": "vllm"})
    it.engine.write_text(json.dumps({"requests": 2, "exit": None}))
    journal(it.journal, 5)
    record = finish_record(it, "crashed")
    assert (record["requests"], record["prompt_tokens"], record["completion_tokens"]) == (5, 15, 10)


def test_engines_that_died_with_their_supervisor_are_recorded_by_the_next(tmp_path: Path) -> None:
    dead, done = attempt(tmp_path), attempt(tmp_path, "batch-1.0.20260102T000000.6-0")
    start_record(dead, {"backend": "vllm"})
    journal(dead.journal, 3)
    start_record(done, {"backend": "vllm"})
    finish_record(done, "finished")
    (tmp_path / "status.json").write_text("{}")
    records = earlier_records(tmp_path, tmp_path)
    assert [record["exit"] for record in records] == ["crashed", "finished"]
    assert [record["requests"] for record in records] == [3, 0]
    assert earlier_records(tmp_path, tmp_path) == records


def test_logs_of_other_versions_are_read_as_far_as_they_go(tmp_path: Path) -> None:
    (tmp_path / "log").write_text(LOG_06)
    facts = log_facts(tmp_path / "log")
    assert facts["attention_backend"] == "XFormers"
    assert facts["weights_bytes"] == int(14.9888 * 2**30)
    (tmp_path / "log").write_text(LOG_CPU)
    assert log_facts(tmp_path / "log")["attention_backend"] == "CPU_ATTN"
    nothing: dict[str, Any] = {
        "attention_backend": None,
        "weights_bytes": None,
        "log_startup_s": {},
    }
    assert log_facts(tmp_path / "missing") == nothing


def test_unknown_counts_stay_unknown() -> None:
    assert total_of([{"x": None}, {}], "x") is None
    assert total_of([{"x": 2}, {"x": None}, {"x": 3}], "x") == 5
