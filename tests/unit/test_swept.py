"""Swept parameters: which runs make a line, and what the plots of a grid show."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from scripts.llm_batch.report.records import Experiment, Run, Value, name_parts
from scripts.llm_batch.report.swept import Sweep, find_sweeps, value_text
from scripts.llm_batch.report.swept_plots import swept_plots

GRID = [
    {"temperature": t, "top_p": p, "top_k": k}
    for t in (0.5, 1.0)
    for p in (0.8, 0.95, 1.0)
    for k in (0, 20)
]


def made_up_run(index: int, params: Mapping[str, Any], **other: Any) -> Run:
    """Return a run without files; parameters with vLLM's default are left out, as in identities."""
    kept = {k: v for k, v in params.items() if (k, v) not in (("top_p", 1.0), ("top_k", 0))}
    greedy = params["temperature"] == 0
    sampling = {
        "params": kept,
        "n": 1 if greedy else other.pop("n", 4),
        "seed": other.pop("seed", 1),
    }
    values = [
        Value(metric, statistic, k, 0.5 + index / 100, 0.4, 0.9, "made up", 10, 4)
        for metric, statistic, k in (
            *(("number", "accuracy", None), ("number", "pass@k", 1), ("number", "pass@k", 4)),
            *((None, "unique_answers", None), (None, "mean_completion_tokens", None)),
        )
    ]
    return Run(
        index=index,
        name=f"engine.prompts.run{index}",
        label=f"run{index}",
        folder=Path(f"run{index}-0123456789ab"),
        evaluation=None,
        identity={
            "engine": {"backend": "vllm", "args": other.pop("args", {})},
            "prompts": {"data": "d", **other},
            "sampling": sampling,
        },
        facts={},
        metrics={},
        values=tuple(values),
        level=0.95,
        max_error_rate=None,
    )


def experiment_of(runs: Iterable[Run]) -> Experiment:
    return Experiment("e", "e", "", {}, "0" * 12, 0, None, "", tuple(runs), {}, {})


def sweeps_of(*params: Mapping[str, Any]) -> dict[str, Sweep]:
    runs = [made_up_run(index, one) for index, one in enumerate(params)]
    return {sweep.parameter: sweep for sweep in find_sweeps(experiment_of(runs))}


def lines_of(sweep: Sweep) -> set[tuple[str, ...]]:
    return {tuple(point.run.label for point in one.points) for one in sweep.series}


def test_a_grid_has_a_line_for_each_combination_of_the_other_parameters() -> None:
    found = sweeps_of(*GRID)

    assert {name: len(one.series) for name, one in found.items()} == {
        "temperature": 6, "top_p": 4, "top_k": 6,
    }  # fmt: skip
    assert found["top_p"].values == (0.8, 0.95, 1.0)
    assert found["temperature"].varying == ["top_p", "top_k"]


def test_runs_that_differ_in_two_parameters_make_no_line() -> None:
    assert sweeps_of({"temperature": 0.5}, {"temperature": 1.0, "top_p": 0.9}) == {}


def test_a_parameter_that_is_not_set_is_where_it_does_nothing() -> None:
    found = sweeps_of({"temperature": 1.0}, {"temperature": 1.0, "top_k": 20})

    [top_k] = found.values()
    assert lines_of(top_k) == {("run1", "run0")}
    assert [value_text("top_k", value) for value in top_k.values] == ["20", "off"]


def test_a_greedy_run_lies_at_temperature_0_of_every_line() -> None:
    found = sweeps_of(
        {"temperature": 0.0},
        {"temperature": 0.7},
        {"temperature": 0.7, "top_p": 0.9},
        {"temperature": 1.0, "top_p": 0.9},
    )

    assert lines_of(found["temperature"]) == {("run0", "run1"), ("run0", "run2", "run3")}


def test_seeds_of_one_setting_stand_on_one_line() -> None:
    runs = [
        made_up_run(0, {"temperature": 0.5}, seed=1),
        made_up_run(1, {"temperature": 0.5}, seed=2),
        made_up_run(2, {"temperature": 1.0}, seed=1),
    ]

    [sweep] = find_sweeps(experiment_of(runs))
    assert lines_of(sweep) == {("run0", "run1", "run2")}


def test_numbers_of_engines_and_of_examples_are_parameters_too() -> None:
    runs = [
        made_up_run(0, {"temperature": 1.0}, args={"max_model_len": 64}, few_shot={"count": 2}),
        made_up_run(1, {"temperature": 1.0}, args={"max_model_len": 128}, few_shot={"count": 2}),
        made_up_run(2, {"temperature": 1.0}, args={"max_model_len": 64}, few_shot={"count": 8}),
    ]

    found = {one.parameter: lines_of(one) for one in find_sweeps(experiment_of(runs))}
    assert found == {
        "max_model_len": {("run0", "run1")},
        "few-shot examples": {("run0", "run2")},
    }


def test_other_prompts_make_other_lines() -> None:
    runs = [
        made_up_run(number, {"temperature": temperature}, template=template)
        for number, (template, temperature) in enumerate(
            [("a", 0.5), ("a", 1.0), ("b", 0.5), ("b", 1.0)]
        )
    ]

    [sweep] = find_sweeps(experiment_of(runs))
    assert lines_of(sweep) == {("run0", "run1"), ("run2", "run3")}
    assert sweep.varying == ["prompts"]


def test_a_grid_of_three_parameters_has_colours_and_panels() -> None:
    runs = [made_up_run(index, one) for index, one in enumerate(GRID)]

    plots = {plot.key: plot for plot in swept_plots(experiment_of(runs))}

    figures = ("number-accuracy", "number-pass-at-k", "unique_answers", "length")
    parameters = ("temperature", "top_p", "top_k")
    assert list(plots) == [f"swept-{p}-{figure}" for p in parameters for figure in figures]
    plot = plots["swept-temperature-number-accuracy"]
    assert plot.wide and plot.metric == "number"
    for words in (">top_k 20<", ">top_k off<", ">top_p<", ">0.8<", ">0.95<", "var(--level-"):
        assert words in plot.svg, words
    # Every run is a point in its own panel, and no panel shows the runs of another.
    labels = re.findall(r'aria-label="(run\d+): temperature [\d.]+, accuracy', plot.svg)
    assert {labels.count(f"run{index}") for index in range(len(GRID))} == {2}
    assert not re.search(r'"#[0-9a-f]{6}"', plot.svg)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("e.p.s", ["e", "p", "s"]),
        ("e.p.s+temperature_0.5+top_p_0.95", ["e", "p", "s+temperature_0.5+top_p_0.95"]),
        ("e+rope_0.5.p.s", ["e+rope_0.5", "p", "s"]),
        ("mine+top_p_0.8", ["mine+top_p_0.8"]),
    ],
)
def test_the_point_of_a_swept_number_cuts_no_name(name: str, parts: list[str]) -> None:
    assert name_parts(name) == parts
