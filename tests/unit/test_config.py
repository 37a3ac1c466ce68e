"""What a valid config becomes: defaults filled in, equal settings equal, combinations made."""

from __future__ import annotations

import copy
import dataclasses
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.llm_batch.addresses import canonical_json
from scripts.llm_batch.config.build import normalise_args
from scripts.llm_batch.config.load import load_config
from scripts.llm_batch.config.records import Config
from scripts.llm_batch.config.sampling import normalise_sampling
from scripts.llm_batch.config.schema import defaults, load_schema
from scripts.llm_batch.errors import ConfigError
from tests.unit.config_cases import BASE, make_project

SOURCES = [Path("config.yaml")]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    make_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def base(**changes: Any) -> dict[str, Any]:
    """Return the valid config with some sections replaced."""
    return {**copy.deepcopy(yaml.safe_load(BASE)), **changes}


def load(raw: dict[str, Any]) -> Config:
    return load_config(raw, SOURCES)


def test_a_config_becomes_records(project: Path) -> None:
    config = load(base())
    assert config.experiment == "demo"
    assert config.models["tiny"].path == "models/tiny"
    engine = config.engines["cpu"]
    assert (engine.model, engine.environment, engine.backend) == ("tiny", "cpu", "vllm")
    assert engine.args == {"dtype": "float32"}
    assert engine.tuning["max_num_seqs"] == 16
    chat = config.prompts["chat"]
    assert chat.messages == ({"role": "user", "content": "{{ question }}"},)
    assert (chat.template, chat.reference, chat.on_too_long) == (None, "answer", "error")
    assert config.samplings["warm"].n == 4
    assert config.metrics["number"].settings["tolerance"] == 0
    assert config.report.rows == 100
    assert config.report.title is None


def test_defaults_are_filled_in(project: Path) -> None:
    config = load(base())
    greedy = config.samplings["greedy"]
    assert (greedy.n, greedy.seed, greedy.params["max_tokens"]) == (1, 0, 256)
    assert config.runs[0].max_error_rate == 0.01
    assert config.runs[0].determinism == "fast"
    assert config.engines["cpu"].tuning["shards"] == 1
    assert config.engines["cpu"].dummy["length"] == 16


def test_lists_in_runs_make_every_combination_in_order(project: Path) -> None:
    runs = [{"engine": ["cpu"], "prompts": ["chat", "plain"], "sampling": ["warm", "greedy"]}]
    assert [run.name for run in load(base(runs=runs)).runs] == [
        "cpu.chat.warm",
        "cpu.chat.greedy",
        "cpu.plain.warm",
        "cpu.plain.greedy",
    ]


def test_a_run_has_every_metric_if_its_prompts_have_a_reference(project: Path) -> None:
    by_name = {run.name: run.metrics for run in load(base()).runs}
    assert by_name["cpu.chat.warm"] == ("number",)
    assert by_name["cpu.plain.greedy"] == ()


def test_a_run_can_have_a_name_no_metrics_and_its_own_rules(project: Path) -> None:
    run = {
        "name": "main.run",
        "engine": "cpu",
        "prompts": "chat",
        "sampling": "warm",
        "metrics": [],
        "max_error_rate": 1,
        "determinism": "strict",
    }
    (made,) = load(base(runs=[run])).runs
    assert made.name == "main.run"
    assert made.metrics == ()
    assert made.max_error_rate == 1.0
    assert made.determinism == "strict"


EQUAL_SAMPLINGS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("nothing and all defaults", {}, "DEFAULTS"),  # type: ignore[list-item]
    ("whole number and float", {"temperature": 1}, {"temperature": 1.0}),
    ("float and whole number", {"max_tokens": 16.0}, {"max_tokens": 16}),
    ("top_k -1 and 0", {"top_k": -1}, {"top_k": 0}),
    ("top_k off and absent", {"top_k": -1}, {}),
    ("greedy ignores top_p", {"temperature": 0, "top_p": 0.5}, {"temperature": 0}),
    ("greedy ignores top_k", {"temperature": 0, "top_k": 5}, {"temperature": 0.0}),
    ("greedy ignores min_p", {"temperature": 0, "min_p": 0.1}, {"temperature": 0}),
    ("one stop text", {"stop": "\n"}, {"stop": ["\n"]}),
    ("stop text twice", {"stop": ["a", "b", "a"]}, {"stop": ["a", "b"]}),
    ("no stop", {"stop": []}, {"stop": None}),
    ("stop tokens in any order", {"stop_token_ids": [3, 1, 3]}, {"stop_token_ids": [1, 3]}),
    ("stop tokens as floats", {"stop_token_ids": [1.0]}, {"stop_token_ids": [1]}),
    ("allowed in any order", {"allowed_token_ids": [3, 1]}, {"allowed_token_ids": [1, 3]}),
    ("no bias", {"logit_bias": {"5": 0}}, {}),
    ("bias in any order", {"logit_bias": {"5": 1, "3": 2}}, {"logit_bias": {"3": 2.0, "5": 1.0}}),
    ("bias with zeros in front", {"logit_bias": {"05": 1}}, {"logit_bias": {"5": 1}}),
    ("no logprobs", {"logprobs": None}, {}),
    (
        "JSON schema as text and mapping",
        {"structured_outputs": {"json": '{ "type" : "object" }'}},
        {"structured_outputs": {"json": {"type": "object"}}},
    ),
    ("no form", {"structured_outputs": None}, {}),
]


@pytest.mark.parametrize(
    ("left", "right"),
    [case[1:] for case in EQUAL_SAMPLINGS],
    ids=[case[0] for case in EQUAL_SAMPLINGS],
)
def test_samplings_that_mean_the_same_are_the_same(left: Any, right: Any) -> None:
    if right == "DEFAULTS":
        right = defaults(load_schema()["properties"]["samplings"]["additionalProperties"])
        right = {key: value for key, value in right.items() if key not in ("n", "seed")}
    assert canonical_json(normalise_sampling(left)) == canonical_json(normalise_sampling(right))


DIFFERENT_SAMPLINGS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("order of stop texts", {"stop": ["a", "b"]}, {"stop": ["b", "a"]}),
    ("no logprobs and logprobs of the taken token", {}, {"logprobs": 0}),
    (
        "order of keys in a JSON schema",
        {"structured_outputs": {"json": {"properties": {"a": {}, "b": {}}}}},
        {"structured_outputs": {"json": {"properties": {"b": {}, "a": {}}}}},
    ),
    ("greedy and warm", {"temperature": 0}, {}),
    ("max_tokens", {}, {"max_tokens": 255}),
]


@pytest.mark.parametrize(
    ("left", "right"),
    [case[1:] for case in DIFFERENT_SAMPLINGS],
    ids=[case[0] for case in DIFFERENT_SAMPLINGS],
)
def test_samplings_that_differ_stay_different(left: Any, right: Any) -> None:
    assert canonical_json(normalise_sampling(left)) != canonical_json(normalise_sampling(right))


NOT_DEFAULTS: list[tuple[str, Any]] = [
    ("min_tokens", 1),
    ("top_p", 0.5),
    ("top_k", 5),
    ("min_p", 0.1),
    ("presence_penalty", 0.5),
    ("frequency_penalty", 0.5),
    ("repetition_penalty", 1.1),
    ("stop", ["x"]),
    ("stop_token_ids", [7]),
    ("bad_words", ["x"]),
    ("ignore_eos", True),
    ("skip_special_tokens", False),
    ("spaces_between_special_tokens", False),
    ("include_stop_str_in_output", True),
    ("logprobs", 1),
    ("prompt_logprobs", 1),
    ("logit_bias", {"5": 1.0}),
    ("allowed_token_ids", [5]),
    ("structured_outputs", {"regex": "a"}),
    ("temperature", 0.5),
    ("max_tokens", 5),
]


@pytest.mark.parametrize(("key", "value"), NOT_DEFAULTS)
def test_every_sampling_parameter_that_is_not_the_default_reaches_the_request(
    key: str, value: Any
) -> None:
    assert normalise_sampling({key: value})[key] == value


def test_every_sampling_parameter_is_tested_above() -> None:
    schema = load_schema()["properties"]["samplings"]["additionalProperties"]
    assert {key for key, _ in NOT_DEFAULTS} == set(schema["properties"]) - {"n", "seed"}


def test_token_ids_as_numbers_are_keys_of_logit_bias(project: Path) -> None:
    raw = base(samplings={"greedy": {"temperature": 0}, "warm": {"logit_bias": {50: 1}}})
    assert load(raw).samplings["warm"].params["logit_bias"] == {"50": 1.0}


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ({}, {"dtype": "auto", "tensor_parallel_size": 1, "enforce_eager": False}),
        ({"dtype": "half"}, {"dtype": "float16"}),
        ({"dtype": "float"}, {"dtype": "float32"}),
        ({"max_model_len": 64.0}, {"max_model_len": 64}),
        ({"attention_backend": "flash_attn"}, {"attention_backend": "FLASH_ATTN"}),
        ({"structured_outputs_config": {"backend": "auto"}}, {}),
        ({"quantization": None, "hf_overrides": {}}, {}),
    ],
)
def test_engine_arguments_that_mean_the_same_are_the_same(
    left: dict[str, Any], right: dict[str, Any]
) -> None:
    assert canonical_json(normalise_args(left)) == canonical_json(normalise_args(right))


def test_whole_numbers_are_whole_for_the_engine(project: Path) -> None:
    raw = base()
    raw["engines"]["cpu"]["tuning"] = {"max_num_seqs": 16.0, "shards": 2.0}
    tuning = load(raw).engines["cpu"].tuning
    assert [type(tuning[key]) for key in ("max_num_seqs", "shards")] == [int, int]


def test_null_in_tuning_leaves_the_choice_to_vllm(project: Path) -> None:
    raw = base()
    raw["engines"]["cpu"]["tuning"] = {"max_num_seqs": None, "window": None}
    assert set(load(raw).engines["cpu"].tuning) == {
        "shards",
        "stall_timeout_s",
        "start_timeout_s",
        "max_restarts",
    }


def test_the_order_of_keys_changes_no_entry(project: Path) -> None:
    def turned(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: turned(value[key]) for key in reversed(value)}
        return [turned(item) for item in value] if isinstance(value, list) else value

    left, right = load(base()), load(turned(base()))
    assert dataclasses.asdict(left)["samplings"] == dataclasses.asdict(right)["samplings"]
    assert left.runs == right.runs


def test_a_hub_model_is_carried(project: Path) -> None:
    raw = base(models={"tiny": {"repo": "owner/name", "revision": "a" * 40}})
    model = load(raw).models["tiny"]
    assert (model.path, model.repo, model.revision) == (None, "owner/name", "a" * 40)


def test_files_of_entries_that_no_run_uses_may_be_elsewhere(project: Path) -> None:
    raw = base()
    raw["models"]["big"] = {"path": "/on/the/cluster"}
    raw["prompts"]["more"] = {"path": "/on/the/cluster.jsonl"}
    assert load(raw).models["big"].path == "/on/the/cluster"


def test_a_rehearsal_needs_no_model(project: Path) -> None:
    raw = base(models={"tiny": {"path": "/on/the/cluster"}}, backend="dummy")
    assert load(raw).engines["cpu"].backend == "dummy"


def test_a_tilde_is_the_home_folder(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(project))
    raw = base(models={"tiny": {"path": "~/models/tiny"}})
    assert load(raw).models["tiny"].path == str(project / "models" / "tiny")


class TestCommandLine:
    """Settings of `--config` in place of sections."""

    def test_a_model_replaces_models_engines_and_runs(self, project: Path) -> None:
        config = load(base(model="models/tiny"))
        assert list(config.models) == ["tiny"]
        assert list(config.engines) == ["tiny"]
        assert config.engines["tiny"].environment == "cpu"
        assert config.engines["tiny"].args == {}
        assert [run.name for run in config.runs] == ["tiny.chat.greedy", "tiny.plain.greedy"]
        assert config.experiment == "one-off"

    def test_prompts_replace_prompts_and_runs(self, project: Path) -> None:
        config = load(base(prompts="data/asked.jsonl", sampling="greedy, warm"))
        assert list(config.prompts) == ["asked"]
        prompts = config.prompts["asked"]
        assert (prompts.reference, prompts.id) == ("reference", "id")
        assert (prompts.template, prompts.messages) == (None, None)
        assert [run.name for run in config.runs] == ["cpu.asked.greedy", "cpu.asked.warm"]
        assert config.runs[0].metrics == ("exact", "contains", "number")

    def test_without_a_sampling_answers_are_greedy_and_not_cut_by_the_config(
        self, project: Path
    ) -> None:
        config = load(base(prompts="data/asked.jsonl"))
        assert config.samplings["greedy"].params == {"temperature": 0.0, "max_tokens": 256}

    def test_a_rehearsal_has_a_name_of_its_own(self, project: Path) -> None:
        assert load(base(backend="dummy")).experiment == "demo-rehearsal"
        named = base(backend="dummy", experiment="mine")
        assert load(named).experiment == "mine-rehearsal"
        one_off = {"model": "models/tiny", "prompts": "data/asked.jsonl", "environment": "cpu"}
        real = load_config({**one_off, "experiment": "mine"}, [])
        rehearsed = load_config({**one_off, "experiment": "mine", "backend": "dummy"}, [])
        assert (real.experiment, rehearsed.experiment) == ("mine", "mine-rehearsal")

    def test_a_name_that_says_rehearsal_is_kept(self, project: Path) -> None:
        raw = base(backend="dummy", experiment="mine-rehearsal")
        assert load(raw).experiment == "mine-rehearsal"

    def test_prompts_without_reference_have_no_metrics(self, project: Path) -> None:
        Path("data/bare.jsonl").write_text('\n{"messages": []}\n')
        config = load(base(prompts="data/bare.jsonl"))
        assert (config.prompts["bare"].reference, config.prompts["bare"].id) == (None, None)
        assert config.runs[0].metrics == ()

    def test_a_first_row_that_is_broken_is_left_to_the_run(self, project: Path) -> None:
        Path("data/broken.jsonl").write_text("{\n")
        assert load(base(prompts="data/broken.jsonl")).prompts["broken"].reference is None

    def test_model_and_prompts_need_no_config_file(self, project: Path) -> None:
        raw = {"model": "models/tiny", "prompts": "data/asked.jsonl", "environment": "cpu"}
        config = load_config(raw, [])
        assert [run.name for run in config.runs] == ["tiny.asked.greedy"]
        assert config.samplings["greedy"].params == {"temperature": 0.0, "max_tokens": 256}
        assert config.engines["tiny"].environment == "cpu"

    def test_a_rehearsal_needs_no_environment(self, project: Path) -> None:
        raw = {"model": "anywhere", "prompts": "data/asked.jsonl", "backend": "dummy"}
        assert load_config(raw, []).engines["anywhere"].environment == "none"

    def test_a_list_of_samplings_is_taken_too(self, project: Path) -> None:
        config = load(base(model="models/tiny", sampling=["warm"]))
        assert [run.sampling for run in config.runs] == ["warm", "warm"]

    def test_an_experiment_of_the_command_line_is_kept(self, project: Path) -> None:
        assert load(base(model="models/tiny", experiment="mine")).experiment == "mine"

    def test_environment_backend_and_shards_hold_for_every_engine(self, project: Path) -> None:
        config = load(base(environment="other", backend="dummy", shards=3))
        engine = config.engines["cpu"]
        assert (engine.environment, engine.backend, engine.tuning["shards"]) == (
            "other",
            "dummy",
            3,
        )
        assert engine.tuning["max_num_seqs"] == 16
        assert config.experiment == "demo-rehearsal"

    @pytest.mark.parametrize(
        ("folder", "name"),
        [("Llama-3.1-8B", "Llama-3-1-8B"), ("_x", "x"), ("a b", "a-b"), ("...a", "a")],
    )
    def test_a_folder_becomes_a_name(self, project: Path, folder: str, name: str) -> None:
        Path("models", folder).mkdir()
        Path("models", folder, "config.json").write_text("{}")
        Path("models", folder, "model.safetensors").touch()
        assert list(load(base(model=f"models/{folder}")).models) == [name]

    def test_numbers_within_a_mapping_are_read_as_numbers(self, project: Path) -> None:
        raw = base()
        raw["samplings"]["warm"].update(n="8", stop_token_ids=["5"], ignore_eos="true")
        warm = load(raw).samplings["warm"]
        assert warm.n == 8
        assert warm.params["stop_token_ids"] == [5]
        assert warm.params["ignore_eos"] is True

    def test_the_same_text_in_a_file_is_refused(self, project: Path) -> None:
        text = BASE.replace("    n: 4\n", "    n: '8'\n")
        Path("config.yaml").write_text(text)
        with pytest.raises(ConfigError, match=r"found the text '8'; remove the quotes$"):
            load(yaml.safe_load(text))

    def test_the_raw_config_is_left_as_it_is(self, project: Path) -> None:
        raw = base(model="models/tiny", shards=3)
        before = copy.deepcopy(raw)
        load(raw)
        assert raw == before


def test_a_config_of_a_hundred_runs_is_read_quickly(project: Path) -> None:
    samplings = {
        f"s{i}": {"temperature": 0.5 + i / 200, "top_p": 0.9, "n": 2, "stop": ["\n"]}
        for i in range(100)
    }
    runs = [{"engine": "cpu", "prompts": "chat", "sampling": name} for name in samplings]
    raw = base(samplings=samplings, runs=runs)
    Path("config.yaml").write_text(yaml.safe_dump(raw))
    load(raw)
    started = time.process_time()
    assert len(load(raw).runs) == 100
    # 30 ms on two slow cores; it is paid whenever a Snakefile is parsed.
    assert time.process_time() - started < 0.15


def test_a_model_of_the_command_line_may_be_on_the_hub(project: Path) -> None:
    config = load(base(model=f"google/gemma-2-9b-it@{'a' * 40}"))
    model = config.models["gemma-2-9b-it"]
    assert (model.repo, model.revision, model.path) == ("google/gemma-2-9b-it", "a" * 40, None)
    assert {run.engine for run in config.runs} == {"gemma-2-9b-it"}
