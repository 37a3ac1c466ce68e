"""The records of engine starts, also of those that died."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from scripts.llm_batch.generate.engine_log import log_facts, sizes
from scripts.llm_batch.generate.facts import (
    ENGINE_FACTS,
    STARTUP_FACTS,
    Attempt,
    earlier_records,
    finish_record,
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
    missing = log_facts(tmp_path / "missing")
    assert missing.pop("log_startup_s") == {}
    assert set(missing.values()) == {None}


MEMORY_028 = """
INFO [gpu_model_runner.py] Model loading took 14.98 GiB memory and 3.211 seconds
INFO [gpu_worker.py:579] Available KV cache memory: 52.25 GiB
INFO [gpu_model_runner.py] Graph capturing finished in 21 secs, took 0.5 GiB
INFO [gpu_worker.py:804] Free memory on device (78.5/79.2 GiB) on startup. Desired GPU memory \
utilization is (0.92, 72.9 GiB). Actual usage is 16.48 GiB for consumed memory (weights + \
non-torch), 1.25 GiB for peak activation, and 0.75 GiB for CUDAGraph memory. Replace \
gpu_memory_utilization config with `--kv-cache-memory=1` (2.0 GiB) to fit into requested memory
"""

MEMORY_011 = """
INFO [gpu_model_runner.py:2653] Model loading took 2.25 GiB and 74.27 seconds
INFO [gpu_worker.py:298] Available KV cache memory: 66.5 GiB
INFO [gpu_worker.py:391] Free memory on device (78.5/79.2 GiB) on startup. Desired GPU memory \
utilization is (0.9, 71.3 GiB). Actual usage is 2.25 GiB for weight, 1.5 GiB for peak activation, \
0.125 GiB for non-torch memory, and 0.5 GiB for CUDAGraph memory. Replace gpu_memory_utilization
"""

MEMORY_06 = """
INFO worker.py:241] the current vLLM instance can use total_gpu_memory (79.25GiB) x \
gpu_memory_utilization (0.90) = 71.33GiB; model weights take 14.99GiB; non_torch_memory takes \
0.09GiB; PyTorch activation peak memory takes 1.25GiB; the rest of the memory reserved for KV \
Cache is 55.00GiB.
INFO gpu_executor.py:76] # GPU blocks: 28160, # CPU blocks: 2048
INFO model_runner.py:1518] Graph capturing finished in 14 secs, took 0.25 GiB
"""


@pytest.mark.parametrize(
    ("text", "weights", "activation", "non_torch", "graphs", "cache", "blocks"),
    [
        (MEMORY_028, 14.98, 1.25, 1.5, 0.5, 52.25, None),
        (MEMORY_011, 2.25, 1.5, 0.125, 0.5, 66.5, None),
        (MEMORY_06, 14.99, 1.25, 0.09, 0.25, 55.0, 28160),
        (LOG_CPU, None, None, None, None, None, None),
    ],
)
def test_the_parts_of_a_gpus_memory_are_read_from_logs_of_three_years(
    text: str,
    weights: float | None,
    activation: float | None,
    non_torch: float | None,
    graphs: float | None,
    cache: float | None,
    blocks: int | None,
) -> None:
    found = sizes(text.replace("\\\n", ""))
    names = ("weights", "peak_activation", "non_torch", "graph_capture", "kv_cache")
    values = (weights, activation, non_torch, graphs, cache)
    for name, value in zip(names, values, strict=True):
        size = found[f"{name}_bytes"]
        assert size == (None if value is None else pytest.approx(value * 2**30, abs=2)), name
    assert found.get("kv_cache_blocks") == blocks


def test_unknown_counts_stay_unknown() -> None:
    assert total_of([{"x": None}, {}], "x") is None
    assert total_of([{"x": 2}, {"x": None}, {"x": 3}], "x") == 5
