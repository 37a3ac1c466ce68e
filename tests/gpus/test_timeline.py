"""GPUs over time in the report, from simulated samples: no driver was asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from scripts.llm_batch.addresses import write_json_atomic
from scripts.llm_batch.gpus.telemetry import COLUMNS
from scripts.llm_batch.report.engines import Batch
from scripts.llm_batch.report.gather import gather
from scripts.llm_batch.report.records import Experiment
from scripts.llm_batch.report.timeline import MOST_STEPS, read_timelines
from scripts.llm_batch.report.timeline_plot import timeline_plots
from tests.browser.made_up_results import make_results
from tests.gpus.made_up_gpus import GIB, make_gpu_results

STARTED = "2026-01-02T03:04:{:02}+00:00"


def simulated_start(folder: Path, name: str, second: int, samples: list[list[Any]]) -> None:
    """Write the record and the samples of an engine start that began at `second`."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json_atomic(folder / f"{name}.json", {"started": STARTED.format(second)})
    lines: list[Any] = [{"columns": COLUMNS, "gpus": ["GPU-a", "GPU-b"], "interval_s": 1.0}]
    text = "".join(json.dumps(line) + "\n" for line in [*lines, *samples])
    (folder / f"{name}.gpus.jsonl").write_text(text, encoding="utf-8")


def sample(second: float, gpu: int, used: int | None, watts: float | None = 100.0) -> list[Any]:
    return [second, gpu, used, 2 * GIB, watts, None, None, None]


@pytest.fixture
def batch(tmp_path: Path) -> Batch:
    """A batch of made-up results, without any samples yet."""
    results = make_results(tmp_path, rows=4, samplings=["greedy"], metrics={})
    experiment = gather(results.identity, results.runs, results.evaluations, "")
    return batch_of(experiment)


def batch_of(experiment: Experiment) -> Batch:
    [run] = experiment.runs
    name = str(run.facts["batch"])
    return Batch(name, "adder-cpu", run.engine_address, (run,), False, (), (), ())


def shard_folder(batch: Batch, shard: str = "0") -> Path:
    engines = batch.runs[0].folder.parent.parent / "engines"
    return engines / f"adder-cpu-{batch.engine_address}" / "shards" / f"{batch.name}.{shard}"


def test_samples_of_all_starts_are_on_one_axis_of_time(batch: Batch) -> None:
    early = [sample(second, gpu, 10 * gpu) for second in range(3) for gpu in (0, 1)]
    simulated_start(shard_folder(batch), "first", 0, early)
    simulated_start(shard_folder(batch), "second", 30, [sample(0, 0, 80), sample(1, 0, 90)])

    [timeline] = read_timelines([batch])

    a, b = timeline.tracks
    assert [[step.seconds for step in stretch] for stretch in a.stretches] == [
        [0.5, 1.5, 2.5],
        [30.5, 31.5],
    ]
    assert [step.utilization_percent for step in a.stretches[1]] == [80, 90]
    assert [step.utilization_percent for step in b.stretches[0]] == [10, 10, 10]
    assert len(b.stretches) == 1


def test_long_timelines_are_means_over_steps(batch: Batch) -> None:
    samples = [sample(float(second), 0, 100 * (second % 2)) for second in range(4800)]
    simulated_start(shard_folder(batch), "first", 0, samples)

    [timeline] = read_timelines([batch])

    [[stretch]] = [track.stretches for track in timeline.tracks]
    assert len(stretch) <= MOST_STEPS + 1
    assert {round(step.utilization_percent or 0, -1) for step in stretch[:-1]} == {50}


def test_nodes_of_one_engine_are_on_its_timeline(batch: Batch) -> None:
    simulated_start(shard_folder(batch), "first", 7, [sample(0, 0, 50)])
    samples = (shard_folder(batch) / "first.gpus.jsonl").read_text().replace("GPU-a", "GPU-z")
    (shard_folder(batch) / "first.node1.gpus.jsonl").write_text(samples)

    [timeline] = read_timelines([batch])

    assert [track.gpu for track in timeline.tracks] == ["GPU-a", "GPU-z"]


def test_what_the_driver_does_not_tell_is_not_drawn(batch: Batch) -> None:
    simulated_start(shard_folder(batch), "first", 0, [sample(n, 0, 50, None) for n in range(4)])

    [plot] = timeline_plots(read_timelines([batch]))

    assert "utilisation, %" in plot.svg and "memory, GiB" in plot.svg
    assert "power, W" not in plot.svg


def test_without_samples_there_is_no_timeline(batch: Batch) -> None:
    assert read_timelines([batch]) == []
    (shard_folder(batch)).mkdir(parents=True)
    (shard_folder(batch) / "first.gpus.jsonl").write_text('{"gpus": ["GPU-a"]}\n[0.0, 0')
    assert read_timelines([batch]) == []


def test_the_report_holds_plot_and_table_of_each_batch(tmp_path: Path) -> None:
    results = make_gpu_results(tmp_path)
    page = results.write_report().read_text("utf-8")

    for batch in ("adder-one-0123456789ab", "adder-two-ba9876543210"):
        assert f'id="plot-timeline-{batch}"' in page
        assert (results.report / f"plots/timeline-{batch}.svg").is_file()
    lines = pq.read_table(results.report / "tables/gpu_timeline.parquet").to_pylist()
    late = [line for line in lines if line["gpu"] == "GPU-0-0" and line["seconds"] > 200]
    assert late and all(line["memory_bytes"] == 70 * GIB for line in late)
    assert all(70 < line["utilization_percent"] < 101 for line in late)
