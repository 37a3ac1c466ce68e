"""Made-up facts of engines on GPUs, for tests and pictures of the report: nothing was measured.

python -m tests.gpus.made_up_gpus FOLDER        writes a report on them
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

from scripts.llm_batch.addresses import address, read_json, write_json_atomic
from scripts.llm_batch.gpus.telemetry import COLUMNS
from tests.browser.made_up_results import MadeUp, make_results

GIB = 1 << 30


def gpu_start(gpus: int, started: int, cache: str, driver: bool = True) -> dict[str, Any]:
    """Return the facts of an engine start of `gpus` cards, `started` seconds after 3:04."""
    cold = cache == "cold"
    startup = {
        "spawn": 0.2,
        "import": 9.0,
        "load": 30.0,
        "compile": 60.0 if cold else 4.0,
        "graph_capture": 12.0,
        "warm_up": 20.0,
        "total": 130.0 if cold else 42.0,
    }
    telemetry = {
        "gpus": gpus,
        "seconds": 470.0,
        "energy_j": 400.0 * gpus * 470,
        "startup_energy_j": 9000.0 * gpus,
        "energy_source": "counter",
        "utilization_percent": 88.0,
        "power_w": 400.0,
        "peak_power_w": 690.0,
        "peak_memory_bytes": 70 * GIB,
        "peak_temperature_c": 66,
        "throttled_s": {"power_cap": 31.0} if gpus == 1 else {},
    }
    return {
        "backend": "vllm",
        "version": "0.0.0 (made up)",
        "device": "Made-up GPU",
        "gpus": [f"GPU-{number}" for number in range(gpus)],
        "dtype": "bfloat16",
        "max_model_len": 8192,
        "max_num_seqs": 256,
        "max_num_batched_tokens": 8192,
        "weights_bytes": 18 * GIB // gpus,
        "non_torch_bytes": GIB // 4,
        "peak_activation_bytes": 2 * GIB,
        "graph_capture_bytes": GIB // 2,
        "kv_cache_bytes": 48 * GIB + 10 * GIB * (gpus - 1),
        "kv_cache_blocks": 9362 * gpus,
        "kv_cache_block_tokens": 16,
        "kv_cache_tokens": 149_792 * gpus,
        "kv_cache_concurrency": 18.29 * gpus,
        "compile_cache": cache,
        "startup_s": startup,
        "generate_s": 470.0 - startup["total"] - 5.0,
        "wall_s": 470.0,
        "requests": 5000,
        "prompt_tokens": 1_400_000,
        "completion_tokens": 600_000,
        "telemetry": telemetry if driver else None,
        "started": f"2026-01-02T03:{4 + started // 60:02}:{started % 60:02}+00:00",
        "exit": "finished",
    }


def gpu_shard(number: int, start: dict[str, Any], held_s: float) -> dict[str, Any]:
    """Return the facts of a shard whose lease began with its one engine start."""
    uuids = [f"GPU-{number}-{card}" for card in range(len(start["gpus"]))]
    lease = {"gpus": len(uuids), "uuids": uuids, "scheduled": False, "waited_s": 0.0,
             "since": start["started"], "held_s": held_s}  # fmt: skip
    return {
        "shard": str(number),
        "requests": 5000,
        "answered": 5000,
        "recovered": 0,
        "engines": [start],
        "deaths": 0,
        "gpu_lease": lease,
        "wall_s": held_s + 3,
        "host": "made-up-host",
        "python": "3.11.9",
        "started": start["started"],
        "finished": "2026-01-02T03:12:30+00:00",
    }


def make_gpu_results(root: Path, price: float | None = None, driver: bool = True) -> MadeUp:
    """Write results of two batches: engines of one card, two of them, and one of two cards."""
    options = {} if price is None else {"price_per_gpu_hour": price, "currency": "EUR"}
    results = make_results(root, rows=60, options=options)
    single = [gpu_shard(0, gpu_start(1, 0, "cold", driver), 475.0)]
    single.append(gpu_shard(1, gpu_start(1, 5, "warm", driver), 495.0))
    batches = {
        "adder-one-0123456789ab": single,
        "adder-two-ba9876543210": [gpu_shard(2, gpu_start(2, 0, "warm", driver), 480.0)],
    }
    for number, run in enumerate(results.runs):
        name = list(batches)[number % 2]
        facts = {**read_json(run / "facts.json"), "batch": name, "shards": batches[name]}
        write_json_atomic(run / "facts.json", {**facts, "generated_tokens": 200_000})
    if driver:
        identity = read_json(results.runs[0] / "identity.json")["identity"]
        engine = f"adder-cpu-{address('engines', identity['engine'])}"
        for batch, shards in batches.items():
            for shard in shards:
                folder = root / "engines" / engine / "shards" / f"{batch}.{shard['shard']}"
                write_simulated_samples(folder, shard)
    return results


def write_simulated_samples(folder: Path, shard: dict[str, Any]) -> None:
    """Write what a driver could have told of a shard's GPUs: nobody asked one."""
    [start], uuids = shard["engines"], shard["gpu_lease"]["uuids"]
    folder.mkdir(parents=True)
    write_json_atomic(folder / "made-up-0.json", {"started": start["started"]})
    chance = random.Random(shard["shard"])
    lines: list[Any] = [{"columns": COLUMNS, "gpus": uuids, "interval_s": 1.0}]
    loaded, ready = start["startup_s"]["load"] + 10, start["startup_s"]["total"]
    for second in range(int(start["wall_s"])):
        for gpu in range(len(uuids)):
            busy = second > ready
            used = 88 + chance.randint(-9, 12) if busy else chance.choice([0, 0, 40])
            memory = GIB * (70 if second > loaded else min(18, second // 2))
            watts = 330 + 2.0 * used if busy else 95.0 + used
            energy = 1e6 + 400.0 * second
            lines.append([float(second), gpu, used, memory, watts, energy, 61, 0])
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "made-up-0.gpus.jsonl").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    print(make_gpu_results(Path(sys.argv[1]), price=2.5).write_report())
