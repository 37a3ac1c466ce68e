"""GPU time, energy and cost of batches and runs, and the table of engines side by side."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from scripts.llm_batch.report.usage import idle, usage
from tests.gpus.made_up_gpus import gpu_shard, gpu_start, make_gpu_results


def two_shards() -> list[dict[str, Any]]:
    """The second starts 5 s later, is held 20 s longer, and so ends 25 s after the first."""
    first = gpu_shard(0, gpu_start(1, 0, "cold"), 475.0)
    return [first, gpu_shard(1, gpu_start(1, 5, "warm"), 495.0)]


def test_gpu_time_is_split_into_what_it_went_into() -> None:
    found = usage(two_shards(), price=3.6)
    assert found is not None
    assert found.starting_s == 130 + 42
    assert found.generating_s == (470 - 130 - 5) + (470 - 42 - 5)
    # Five seconds of each engine's end, and what the leases were held beyond the engines.
    assert found.other_s == 5 + 5 + (475 - 470) + (495 - 470)
    assert found.idle_s == 25
    assert found.allocated_s == 475 + 495 + 25
    assert found.cost == pytest.approx(3.6 * 995 / 3600)
    assert found.share(found.idle_s) == pytest.approx(25 / 995)


def test_engines_of_two_gpus_count_twice() -> None:
    found = usage([gpu_shard(0, gpu_start(2, 0, "warm"), 480.0)], price=None)
    assert found is not None
    assert found.allocated_s == 2 * 480
    assert found.cost is None


def test_a_gpu_that_takes_a_second_shard_is_idle_between_them_only() -> None:
    shards = two_shards()
    late = gpu_shard(0, gpu_start(1, 480, "warm"), 100.0)
    # GPU 0: 0–475 and 480–580; GPU 1: 5–500, then 80 s nothing.
    assert idle([*shards, late]) == 5 + 80


def test_a_scheduler_takes_its_gpus_back_at_once() -> None:
    shards = two_shards()
    for shard in shards:
        shard["gpu_lease"]["scheduled"] = True
    assert idle(shards) == 0


def test_energy_adds_up_over_restarts_and_resumed_calls() -> None:
    shard = two_shards()[0]
    crashed = gpu_start(1, 0, "warm")
    shard["engines"] = [{**crashed, "exit": "crashed"}, gpu_start(1, 480, "warm")]
    found = usage([shard], None)
    assert found is not None
    assert found.energy_j == 2 * 400.0 * 470
    assert found.tokens == 2 * 600_000
    assert found.energy_of_1000_tokens_j == pytest.approx(1000 * 2 * 188_000 / 1_200_000)


def test_what_one_engine_start_does_not_tell_makes_the_sum_unknown() -> None:
    shards = two_shards()
    shards[0]["engines"][0]["telemetry"] = None
    found = usage(shards, price=1.0)
    assert found is not None
    assert found.energy_j is None
    assert found.energy_of_1000_tokens_j is None
    assert found.cost is not None
    del shards[1]["engines"][0]["wall_s"]
    found = usage(shards, price=1.0)
    assert found is not None
    assert found.cost is None


def test_an_engine_on_a_cpu_uses_no_gpu() -> None:
    start = {**gpu_start(1, 0, "warm"), "gpus": [], "telemetry": None}
    shard = {**gpu_shard(0, start, 470.0), "gpu_lease": None}
    assert usage([shard], price=1.0) is None
    assert usage([], price=1.0) is None


def test_a_runs_part_goes_by_its_output_tokens() -> None:
    found = usage(two_shards(), price=None)
    assert found is not None
    assert found.of_run(found.energy_j, 300_000) == pytest.approx((found.energy_j or 0) / 4)
    assert found.of_run(found.energy_j, 0) == 0
    assert found.of_run(found.energy_j, None) is None


def rows_of(page: str) -> dict[str, list[str]]:
    """Return the cells of the page's table of resources, by the first of each row."""
    body = page.split('class="resources"', 1)[1].split("</table>", 1)[0]
    rows = {}
    for row in body.split("<tr>")[2:]:
        head, *cells = [part.partition(">")[2] for part in row.split("<t")[1:]]
        name = head.split("</th>")[0].replace("</span>", "").replace('<span class="how">', "")
        rows[name] = [cell.split("</td>")[0] for cell in cells]
    return rows


def test_the_report_shows_engines_side_by_side(tmp_path: Path) -> None:
    results = make_gpu_results(tmp_path, price=2.5)
    page = results.write_report().read_text("utf-8")
    rows = rows_of(page)
    assert rows["weights GiB on each GPU"] == ["18.00", "9.00"]
    assert rows["start, cold compiling, median"] == ["2 min 10 s", "–"]
    assert rows["energy J per 1 000 output tokens"] == ["313", "627"]
    assert rows["cost EUR"] == ["0.691", "0.667"]
    assert rows["idle no shard left, or none yet"] == ["2.5 %", "0.0 %"]
    for plot in ("resource-memory", "resource-throughput", "resource-energy"):
        assert f'id="plot-{plot}"' in page
    with (results.report / "tables/engines.csv").open(newline="") as stream:
        lines = list(csv.DictReader(stream))
    assert [line["gpus"] for line in lines] == ["1", "1", "2"]
    assert lines[0]["compile_cache"] == "cold"
    assert float(lines[0]["energy_of_1000_tokens_j"]) == pytest.approx(313.333, rel=1e-4)
    assert lines[2]["kv_cache_blocks"] == "18724"


def test_without_a_driver_energy_is_absent_from_report_and_table(tmp_path: Path) -> None:
    results = make_gpu_results(tmp_path, driver=False)
    page = results.write_report().read_text("utf-8")
    rows = rows_of(page)
    for name in ("energy kJ", "energy J per 1 000 output tokens", "power mean of each GPU"):
        assert rows[name] == ["–", "–"]
    assert "No driver was there to tell power and energy." in page
    assert 'class="usage"' not in page
    assert 'id="plot-timeline' not in page and 'id="plot-resource-energy"' not in page
    with (results.report / "tables/engines.csv").open(newline="") as stream:
        assert {line["energy_j"] for line in csv.DictReader(stream)} == {""}
