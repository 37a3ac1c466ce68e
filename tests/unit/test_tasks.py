"""Tasks of lm-evaluation-harness: addresses, requests and scores, without the harness itself."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scripts.build_task import check_samplings
from scripts.llm_batch.config.load import load_config
from scripts.llm_batch.digests import DigestMemo
from scripts.llm_batch.environments.identity import environment_names, load_spec, locked_packages
from scripts.llm_batch.errors import ConfigError, WorkflowError
from scripts.llm_batch.plan.make import make_plan
from scripts.llm_batch.plan.records import Plan, RunPlan
from scripts.llm_batch.tasks.call import Harness
from scripts.llm_batch.tasks.identity import task_files
from scripts.llm_batch.tasks.scores import Asked, figures_of, read_scores
from scripts.shard_prompts import Place, fill_batch
from tests.conftest import ROOT

ENVS = ROOT / "envs"

TASK = """\
task: own
include: shared/base.yaml
doc_to_text: !function utils.text
"""
BASE = "dataset_path: json\ndataset_kwargs: {data_files: {test: [data/a.jsonl, data/b.jsonl]}}\n"

Planner = Callable[..., RunPlan]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a task of one's own, and a model."""
    for name, text in {
        "tasks/own.yaml": TASK,
        "tasks/shared/base.yaml": BASE,
        "tasks/utils.py": "def text(doc): ...\n",
        "tasks/other.py": "X = 1\n",
        "tasks/README.md": "not read\n",
        "data/a.jsonl": "{}\n",
        "data/b.jsonl": "{}\n",
        "model/config.json": "{}",
        "model/model.safetensors": "",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def plan_of(folder: Path) -> Planner:
    """A function that plans the one run of a task: options of prompts, arguments of the engine."""

    def planned(engine: dict[str, Any] | None = None, **options: Any) -> RunPlan:
        plan = make(engine or {}, {"lm_eval_task": "tasks/own.yaml", **options})
        return next(iter(plan.runs.values()))

    return planned


def make(args: dict[str, Any], prompts: dict[str, Any]) -> Plan:
    engine = {"model": "m", "environment": "cpu", "args": {"max_model_len": 64, **args}}
    raw = {
        "experiment": "tasks",
        "models": {"m": {"path": "model"}},
        "engines": {"e": engine},
        "prompts": {"t": prompts},
        "runs": [{"engine": "e", "prompts": "t", "sampling": "task"}],
    }
    return make_plan(load_config(raw, []), ENVS, DigestMemo(Path(".digests.json")))


def test_the_files_of_a_task_are_what_its_yaml_leads_to(folder: Path) -> None:
    files = task_files(Path("tasks/own.yaml"))
    assert {name: path.as_posix() for name, path in files.items()} == {
        "own.yaml": "tasks/own.yaml",
        "shared/base.yaml": "tasks/shared/base.yaml",
        "data/a.jsonl": "data/a.jsonl",
        "data/b.jsonl": "data/b.jsonl",
        "utils.py": "tasks/utils.py",
        "other.py": "tasks/other.py",
    }


@pytest.mark.parametrize(
    "text", ["- a list\n", "a: [\n", "include: none.yaml\n", "a: !!python/x 1\n"]
)
def test_a_yaml_that_is_no_task_is_refused(folder: Path, text: str) -> None:
    (folder / "tasks/own.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"own\.yaml|none\.yaml"):
        task_files(Path("tasks/own.yaml"))


@pytest.mark.parametrize(
    "file", ["tasks/own.yaml", "tasks/shared/base.yaml", "tasks/other.py", "data/b.jsonl"]
)
def test_a_changed_file_is_another_task(folder: Path, plan_of: Planner, file: str) -> None:
    before = plan_of()
    with (folder / file).open("a") as stream:
        stream.write("\n# changed\n" if file.endswith(("yaml", "py")) else "{}\n")
    after = plan_of()
    assert after.stage.address != before.stage.address
    assert after.task and before.task
    assert after.task.stage.address != before.task.stage.address


@pytest.mark.parametrize(
    "options",
    [
        {"num_fewshot": 5},
        {"fewshot_seed": 1},
        {"apply_chat_template": True},
        {"apply_chat_template": True, "fewshot_as_multiturn": False},
        {"apply_chat_template": True, "chat_template_kwargs": {"enable_thinking": False}},
        {"system_instruction": "Be brief."},
        {"gen_kwargs": {"max_gen_toks": 5}},
        {"dataset_revisions": {"a/b": "0" * 40}},
        {"limit": 10},
        {"lm_eval_task": "gsm8k"},
    ],
)
def test_every_option_that_can_change_a_request_is_part_of_the_address(
    plan_of: Planner, options: dict[str, Any]
) -> None:
    plain, changed = plan_of(), plan_of(**options)
    assert changed.stage.address != plain.stage.address
    assert changed.task and plain.task
    assert changed.task.stage.address != plain.task.stage.address


def test_a_default_that_is_written_down_changes_no_address(plan_of: Planner) -> None:
    written = plan_of(num_fewshot=None, fewshot_seed=1234, apply_chat_template=False, gen_kwargs={})
    assert written.stage.address == plan_of().stage.address


def test_requests_are_written_again_for_another_context_but_not_for_another_dtype(
    plan_of: Planner,
) -> None:
    plain, long, other = plan_of(), plan_of({"max_model_len": 128}), plan_of({"dtype": "float32"})
    assert plain.task and long.task and other.task
    assert long.task.stage.address != plain.task.stage.address
    assert other.task.stage.address == plain.task.stage.address
    assert other.stage.address != plain.stage.address


def test_a_moved_task_keeps_its_address(folder: Path, plan_of: Planner) -> None:
    before = plan_of().stage.address
    (folder / "tasks").rename(folder / "elsewhere")
    assert plan_of(lm_eval_task="elsewhere/own.yaml").stage.address == before


def test_a_dummy_cannot_ask_a_task(folder: Path) -> None:
    raw = {
        "experiment": "tasks",
        "models": {"m": {"path": "model"}},
        "engines": {"e": {"model": "m", "backend": "dummy"}},
        "prompts": {"t": {"lm_eval_task": "gsm8k"}},
        "runs": [{"engine": "e", "prompts": "t", "sampling": "task"}],
    }
    with pytest.raises(ConfigError, match=r"a dummy .* has no tokenizer"):
        load_config(raw, [])


def test_num_fewshot_can_be_swept(folder: Path) -> None:
    raw = {
        "experiment": "tasks",
        "models": {"m": {"path": "model"}},
        "engines": {"e": {"model": "m", "environment": "cpu", "args": {"max_model_len": 64}}},
        "prompts": {"t": {"lm_eval_task": "gsm8k"}},
        "runs": [
            {
                "engine": "e",
                "prompts": "t",
                "sampling": "task",
                "sweep": {"num_fewshot": [0, 5]},
            }
        ],
    }
    config = load_config(raw, [])
    options = [dict(config.prompts[run.prompts].lm_eval or {}) for run in config.runs]
    assert options == [{"task": "gsm8k", "num_fewshot": n} for n in (0, 5)]


def task_batch(folder: Path, run: RunPlan, lines: list[dict[str, Any]], samplings: Any) -> Any:
    """Write a task's folder by hand, and return the batch that asks it."""
    place = folder / "task"
    place.mkdir()
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (place / "prompts.jsonl").write_text(text)
    (place / "task.json").write_text(json.dumps({"samplings": samplings}))
    identity = run.stage.identity
    engine = {"engine": identity["engine"], "runs": [run.stage.address], "shards": 1}
    return {
        "identity": engine,
        "prompts": {"p": {"identity": identity["prompts"], "path": str(place / "prompts.jsonl")}},
        "runs": [{"run": run.stage.address, "prompts": "p", "sampling": identity["sampling"]}],
    }


def line(name: str, ids: list[int], **more: Any) -> dict[str, Any]:
    prompt = {"token_ids": ids, **more}
    return {"id": name, "task": "t", "doc": 0, "text": "a text", "prompt": prompt, "target": "7"}


def test_each_line_is_asked_under_the_sampling_of_its_task(folder: Path, plan_of: Planner) -> None:
    lines = [
        line("t/0/0", [1, 2]),
        line("t/1/0", [1, 2]),
        line("t/2/0", [3, 4], scored_from=1),
        line("t/3/0", [1, 2]),
    ]
    hot = {"temperature": 0.7, "max_tokens": 5, "stop": ["x"]}
    score = {"temperature": 0.0, "max_tokens": 1, "prompt_logprobs": 1, "detokenize": False}
    samplings = [
        {"line": 1, "params": hot},
        {"line": 3, "params": score},
        {"line": 4, "params": hot},
    ]
    place = Place(folder / "results", folder / "batch", folder / "scratch", 1)
    for path in (place.folder, place.scratch):
        path.mkdir()
    counts = fill_batch(task_batch(folder, plan_of(), lines, samplings), place)
    assert counts["requests"] == 4
    asked = [json.loads(text) for text in (place.folder / "requests/0.jsonl").open()]
    seeds = [request["sampling"].pop("seed", None) for request in asked]
    scored = [request for request in asked if "prompt_logprobs" in request["sampling"]]
    assert [request["prompt"] for request in scored] == [{"token_ids": [3, 4], "scored_from": 1}]
    assert [request["sampling"] for request in asked if request not in scored] == [hot] * 3
    # The same prompt three times: samples of their own. A greedy request has no seed.
    assert len(set(seeds)) == 4
    assert seeds.count(None) == 1


def test_a_seed_of_the_task_is_that_of_each_request(folder: Path, plan_of: Planner) -> None:
    samplings = [{"line": 1, "params": {"temperature": 0.7, "max_tokens": 5, "seed": 5}}]
    place = Place(folder / "results", folder / "batch", folder / "scratch", 1)
    for path in (place.folder, place.scratch):
        path.mkdir()
    lines = [line("t/0/0", [1, 2]), line("t/1/0", [3, 4])]
    fill_batch(task_batch(folder, plan_of(), lines, samplings), place)
    asked = (place.folder / "requests/0.jsonl").read_text().splitlines()
    # Each seed stands once: JSON would take the last one in silence.
    assert [text.count('"seed":5}') for text in asked] == [1, 1]
    assert [text.count('"seed"') for text in asked] == [1, 1]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"n": 4}, "ask for 'n', which a request of vLLM does not have; take it out"),
        ({"num_beams": 4}, "ask for 'num_beams', which a request of vLLM does not have"),
        ({"seed": "five"}, "ask for seed 'five'; write a whole number from 0 below"),
        ({"seed": True}, "ask for seed True; write a whole number"),
    ],
)
def test_what_no_request_can_have_is_refused_before_the_engine_starts(
    plan_of: Planner, params: dict[str, Any], message: str
) -> None:
    task = plan_of().task
    assert task
    harness = Harness(Path("none"), Path("model"), task.stage.identity, task.files, task.path)
    with pytest.raises(WorkflowError, match=re.escape(message)):
        check_samplings([{"line": 1, "params": {"temperature": 0.7, **params}}], harness)


def test_the_rows_of_a_task_cannot_be_judged(folder: Path) -> None:
    raw = {
        "experiment": "tasks",
        "models": {"m": {"path": "model"}},
        "engines": {"e": {"model": "m", "environment": "cpu", "args": {"max_model_len": 64}}},
        "prompts": {
            "t": {"lm_eval_task": "gsm8k"},
            "judged": {"from_run": "e.t.task", "template": "{{ completion }}"},
        },
        "samplings": {"greedy": {"temperature": 0}},
        "runs": [
            {"engine": "e", "prompts": "t", "sampling": "task"},
            {"engine": "e", "prompts": "judged", "sampling": "greedy"},
        ],
    }
    with pytest.raises(ConfigError, match=r"prompts\.judged: 'e\.t\.task' asks a task, whose rows"):
        load_config(raw, [])


def test_a_group_in_a_file_is_refused_with_what_to_write(folder: Path) -> None:
    (folder / "tasks/own.yaml").write_text("group: all\ntask: [a.yaml, b.yaml]\n")
    with pytest.raises(ConfigError, match=r"own\.yaml: a group; .* give each an entry of prompts"):
        task_files(Path("tasks/own.yaml"))


def test_figures_are_the_harness_s_and_a_mean_has_our_interval(tmp_path: Path) -> None:
    asked = Asked(
        (("t", 0), ("t", 0), ("t", 1), ("t", 1), ("t", 2), ("t", 2)), np.zeros(6, dtype=np.bool_)
    )
    samples = [
        {
            "task": "t",
            "doc_id": doc,
            "filter": "none",
            "metrics": ["acc", "ppl"],
            "acc": acc,
            "ppl": [1.0, 2],
            "filtered_resps": [[-1.0, False], [-2.0, False]],
        }
        for doc, acc in ((0, 1.0), (1, 0), (2, 1.0))
    ]
    results = {"acc,none": 2 / 3, "acc_stderr,none": 0.3, "ppl,none": 8.0, "ppl_stderr,none": 2.0}
    record = {
        "results": {"t": {"alias": "t", **results}},
        "n-samples": {"t": {"original": 3, "effective": 3}},
        "roots": ["t"],
    }
    (tmp_path / "samples.jsonl").write_text("".join(json.dumps(one) + "\n" for one in samples))
    (tmp_path / "results.json").write_text(json.dumps(record))
    found = read_scores(tmp_path, asked)
    assert np.array_equal(found.scores["acc"], [1, np.nan, 0, np.nan, 1, np.nan], equal_nan=True)
    figures = {getattr(one, "metric", None): one for one in figures_of(found)}
    accuracy, perplexity = figures["acc"], figures["ppl"]
    assert accuracy.statistic == "accuracy"
    assert (accuracy.interval, accuracy.rows) == ("wilson", 3)  # type: ignore[union-attr]
    assert perplexity.statistic == "score"
    # 1.959964 standard errors, the 97.5 % point of the normal distribution.
    assert perplexity.high == pytest.approx(8 + 1.959964 * 2, abs=1e-5)  # type: ignore[union-attr]
    assert perplexity.rows == 3  # type: ignore[union-attr]


def test_tasks_of_a_tag_and_groups_have_columns_of_their_own(tmp_path: Path) -> None:
    asked = Asked((("a", 0), ("b", 0), ("c", 0)), np.zeros(3, dtype=np.bool_))
    sample = {"doc_id": 0, "filter": "none", "metrics": ["acc"], "filtered_resps": []}
    samples = [{**sample, "task": task, "acc": acc} for task, acc in (("a", 1), ("b", 0), ("c", 1))]
    record = {
        "results": {name: {"acc,none": 1.0} for name in ("a", "b", "c")},
        "groups": {"g": {"acc,none": 0.5}},
        "group_subtasks": {"g": ["b", "c"]},
        "n-samples": {name: {"effective": 1} for name in ("a", "b", "c")},
        "roots": ["a", "g"],
    }
    (tmp_path / "samples.jsonl").write_text("".join(json.dumps(one) + "\n" for one in samples))
    (tmp_path / "results.json").write_text(json.dumps(record))
    found = read_scores(tmp_path, asked)
    scores = {name: column.tolist() for name, column in found.scores.items()}
    assert scores.keys() == {"a: acc", "g: acc"}
    assert scores["a: acc"][0] == 1
    assert scores["g: acc"][1:] == [0, 1]
    figures = {one.metric: one for one in figures_of(found)}
    assert (figures["g: acc"].interval, figures["g: acc"].rows) == ("wilson", 2)  # type: ignore[union-attr]


def test_a_task_that_changed_since_it_was_planned_is_not_asked(
    folder: Path, plan_of: Planner
) -> None:
    task = plan_of().task
    assert task
    harness = Harness(Path("none"), Path("model"), task.stage.identity, task.files, task.path)
    (folder / "data/a.jsonl").write_text('{"changed": 1}\n')
    with pytest.raises(WorkflowError, match=r"data/a\.jsonl: changed since"):
        harness.call("build", folder / "prompts.jsonl", folder)


def test_the_harness_is_no_environment_for_an_engine() -> None:
    assert "lm-eval" not in environment_names(ENVS)
    spec = load_spec("lm-eval", ENVS)
    locked = locked_packages(ENVS / "lm-eval.requirements.txt")
    assert spec.imports == {name: locked[name.replace("_", "-")] for name in spec.imports}
    assert "torch" not in locked


def test_packages_that_the_cpu_engine_has_too_are_at_its_versions() -> None:
    engine = locked_packages(ENVS / "cpu.requirements.txt")
    harness = locked_packages(ENVS / "lm-eval.requirements.txt")
    shared = engine.keys() & harness.keys()
    assert {"transformers", "tokenizers"} <= shared
    assert {name: engine[name] for name in shared} == {name: harness[name] for name in shared}
