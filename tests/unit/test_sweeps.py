"""A sweep is the runs that its points spell out: same records, same addresses, stable names."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.llm_batch.config.load import load_config
from scripts.llm_batch.config.records import Config
from scripts.llm_batch.config.schema import known_reference, load_schema
from scripts.llm_batch.config.sweep_axes import NAMED, axes
from scripts.llm_batch.digests import DigestMemo
from scripts.llm_batch.plan.make import make_plan
from scripts.llm_batch.plan.records import Plan
from tests.unit.config_cases import BASE, make_project


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    make_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def load(runs: list[dict[str, Any]], **sections: dict[str, Any]) -> Config:
    raw = copy.deepcopy(yaml.safe_load(BASE))
    for section, entries in sections.items():
        raw[section].update(entries)
    raw["engines"]["cpu"]["backend"] = "dummy"
    return load_config({**raw, "runs": runs}, [Path("config.yaml")])


def plan(config: Config) -> Plan:
    return make_plan(config, Path("envs"), DigestMemo(Path("memo.json")))


def names(*entries: dict[str, Any]) -> list[str]:
    return [run.name for run in load(list(entries)).runs]


def entry(**keys: Any) -> dict[str, Any]:
    return {"engine": "cpu", "prompts": "chat", "sampling": "warm", **keys}


def test_a_grid_is_every_combination_in_the_order_it_is_written(project: Path) -> None:
    assert names(entry(sweep={"temperature": [0.5, 1.0], "top_p": [0.9, 1]})) == [
        "cpu.chat.warm+temperature_0.5+top_p_0.9",
        "cpu.chat.warm+temperature_0.5+top_p_1",
        "cpu.chat.warm+temperature_1+top_p_0.9",
        "cpu.chat.warm+temperature_1+top_p_1",
    ]


def test_a_sweep_of_one_has_the_addresses_of_the_run_written_by_hand(project: Path) -> None:
    swept = entry(
        sweep={"top_p": [0.9], "seed": [3], "limit": [1], "max_model_len": [64], "dtype": ["half"]}
    )
    by_hand = load(
        [{"engine": "cpu-64", "prompts": "one", "sampling": "own"}],
        engines={
            "cpu-64": {
                "model": "tiny",
                "environment": "cpu",
                "backend": "dummy",
                "args": {"dtype": "float16", "max_model_len": 64},
            }
        },
        prompts={"one": {**yaml.safe_load(BASE)["prompts"]["chat"], "limit": 1}},
        samplings={"own": {"temperature": 0.7, "n": 4, "top_p": 0.9, "seed": 3}},
    )
    one, other = plan(load([swept])), plan(by_hand)
    assert [run.stage.address for run in one.runs.values()] == [
        run.stage.address for run in other.runs.values()
    ]
    assert [run.evaluation.address for run in one.runs.values()] == [
        run.evaluation.address for run in other.runs.values()
    ]
    assert [batch.stage.address for batch in one.batches.values()] == [
        batch.stage.address for batch in other.batches.values()
    ]


def test_a_name_depends_on_its_point_only(project: Path) -> None:
    few = names(entry(sweep={"seed": [1, 2]}))
    more = names(entry(sweep={"seed": [7, 2, 1]}, exclude=[{"seed": 7}]))
    assert sorted(few) == sorted(more)


def test_every_section_can_be_swept_and_lists_of_names_multiply(project: Path) -> None:
    found = names(
        entry(
            prompts=["chat", "plain"],
            sweep={"dtype": ["float32", "half"], "limit": [1], "seed": [5]},
        )
    )
    assert found == [
        f"cpu+dtype_{dtype}.{prompts}+limit_1.warm+seed_5"
        for prompts in ("chat", "plain")
        for dtype in ("float32", "half")
    ]


def test_a_point_is_a_run_for_every_adapter(project: Path) -> None:
    adapters = {"fr": {"path": "models/fr"}}
    raw = {**yaml.safe_load(BASE), "adapters": adapters}
    raw["engines"]["cpu"]["backend"] = "dummy"
    swept = entry(adapter=["none", "fr"], sweep={"top_p": [0.9, 0.8]})
    for runs, expected in (
        ([swept], ["cpu.chat.warm+top_p_0.9", "cpu+fr.chat.warm+top_p_0.9"]),
        ([{**swept, "name": "x"}], ["x+none+top_p_0.9", "x+fr+top_p_0.9"]),
    ):
        found = load_config({**raw, "runs": runs}, [Path("config.yaml")]).runs
        assert len(found) == 4
        assert {run.name: run.adapter for run in found[:2]} == dict(
            zip(expected, (None, "fr"), strict=True)
        )


def test_excluded_points_are_left_out_by_value_by_list_and_by_name(project: Path) -> None:
    grid = {"temperature": [0.5, 0.7, 1], "top_p": [0.9, 1]}
    found = names(
        entry(
            sampling=["greedy", "warm"],
            sweep=grid,
            exclude=[{"sampling": "greedy"}, {"temperature": [0.5, 1.0], "top_p": 1.0}],
        )
    )
    assert found == [
        "cpu.chat.warm+temperature_0.5+top_p_0.9",
        "cpu.chat.warm+temperature_0.7+top_p_0.9",
        "cpu.chat.warm+temperature_0.7+top_p_1",
        "cpu.chat.warm+temperature_1+top_p_0.9",
    ]


def test_included_points_are_points_of_their_own(project: Path) -> None:
    found = names(
        entry(
            sampling=["greedy", "warm"],
            include=[{"sampling": "warm", "temperature": 0, "n": 1}, {"max_tokens": 9}],
        )
    )
    assert found == [
        "cpu.chat.warm+temperature_0+n_1",
        "cpu.chat.greedy+max_tokens_9",
        "cpu.chat.warm+max_tokens_9",
    ]


def test_what_greedy_ignores_makes_no_second_run(project: Path) -> None:
    found = names(entry(sweep={"temperature": [0, 1], "top_p": [0.9, 1], "seed": [1, 2], "n": [1]}))
    assert found[0] == "cpu.chat.warm+temperature_0+n_1"
    assert len(found) == 1 + 4
    assert len({run.stage.address for run in plan(load([entry(name="a")])).runs.values()}) == 1


def test_a_swept_run_keeps_its_other_keys_and_its_name_is_a_beginning(project: Path) -> None:
    runs = load(
        [entry(name="heat", metrics=[], max_error_rate=0.5, replicate=3, sweep={"seed": [1, 2]})]
    ).runs
    assert [run.name for run in runs] == ["heat+seed_1", "heat+seed_2"]
    assert {(run.metrics, run.max_error_rate, run.replicate) for run in runs} == {((), 0.5, 3)}


@pytest.mark.parametrize(
    ("key", "value", "word"),
    [
        ("temperature", 1.0, "temperature_1"),
        ("presence_penalty", -0.5, "presence_penalty_-0.5"),
        ("min_p", 0.00001, "min_p_1e-05"),
        ("ignore_eos", True, "ignore_eos_true"),
        ("logprobs", None, "logprobs_null"),
        ("stop", "END", "stop_END"),
        ("stop", "\n\n", "stop_75a11d"),
        ("stop", ["a", "b"], "stop_a-b-0473ef"),
    ],
)
def test_values_become_readable_words(project: Path, key: str, value: Any, word: str) -> None:
    assert names(entry(sweep={key: [value]})) == [f"cpu.chat.warm+{word}"]


def test_long_names_are_cut_and_stay_apart(project: Path) -> None:
    grid = {
        "template": ["x" * 500 + "{{ question }}", "x" * 501],
        "temperature": [0.123456789012345],
        "presence_penalty": [0.123456789012345],
        "frequency_penalty": [0.123456789012345],
        "repetition_penalty": [0.123456789012345],
        "min_p": [0.123456789012345],
    }
    found = names(entry(prompts="plain", sweep=grid))
    assert len(set(found)) == 2
    assert max(map(len, found)) <= 200


def test_no_key_means_two_things() -> None:
    top = load_schema()["properties"]
    keys = [
        *top["samplings"]["additionalProperties"]["properties"],
        *top["engines"]["additionalProperties"]["properties"]["args"]["properties"],
        *top["prompts"]["additionalProperties"]["properties"],
        "model",
        "environment",
        *NAMED,
    ]
    assert len(keys) == len(set(keys))
    assert set(axes()) == set(keys) - set(NAMED)


def test_thousands_of_points_are_one_line_of_the_config(project: Path) -> None:
    found = names(entry(sweep={"seed": list(range(1000)), "temperature": [0.5, 1]}))
    assert len(set(found)) == 2000


def test_of_many_names_the_nearest_are_listed_and_the_others_counted() -> None:
    names = [f"cpu.chat.greedy.t{number}" for number in range(88)]
    problem = known_reference(("gates", 0, "baseline"), "cpu.chat.greedy.t7O", "runs", names)
    assert problem is not None
    assert problem.text.endswith(" and 78 more)")
    assert "'cpu.chat.greedy.t7', " in problem.text
    listed = problem.text.partition("(")[2]
    assert len(listed.split(", ")) == 10
