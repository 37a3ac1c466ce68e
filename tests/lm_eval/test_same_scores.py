"""Tasks through the real snakemake command, held against the harness's own vLLM backend.

Both have the same tiny engine in float32 on a CPU; nothing is fetched from anywhere.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq
import pytest

from scripts.llm_batch.errors import WorkflowError
from scripts.llm_batch.tasks.call import Harness
from tests.hub.stand_in_hub import StandInHub, stand_in_hub
from tests.workflow.project import ROOT, Project, make_project

pytestmark = pytest.mark.engine

TASKS = "tests/lm_eval/tasks"
WHOLE_S = 1200
"""On two cores with nothing else to do it takes about a minute."""

# What the workflow's strict CPU engine has, for a peer that computes the same to the last bit.
STRICT = {
    "TORCHDYNAMO_DISABLE": "1",
    "VLLM_CPU_ATTN_SPLIT_KV": "0",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
}

CHAT = {"apply_chat_template": True}
ASKED: dict[str, tuple[str, dict[str, Any]]] = {
    "adding_chat": (f"{TASKS}/adding_chat.yaml", {}),
    "adding_choices": (f"{TASKS}/adding_choices.yaml", {}),
    "adding_shots": (f"{TASKS}/adding_shots.yaml", {}),
    "adding_texts": (f"{TASKS}/adding_texts.yaml", {}),
    # The model's own chat template, and other lengths and stops than the task's.
    "templated": (
        f"{TASKS}/adding_template.yaml",
        {**CHAT, "num_fewshot": 1, "gen_kwargs": {"max_gen_toks": 3, "until": ["1"]}},
    ),
    # As one turn, behind a system message; sampled, with the seed that the harness hands to vLLM.
    "sampled": (
        f"{TASKS}/adding_template.yaml",
        {
            **CHAT,
            "num_fewshot": 1,
            "fewshot_as_multiturn": False,
            "system_instruction": "Add.",
            "gen_kwargs": {"do_sample": True, "temperature": 1.5, "top_p": 0.95, "seed": 5},
        },
    ),
    # Of the hub: a file by its address, a tag of two tasks, and a group with a figure of its own.
    "arithmetic": ("arithmetic_2da", {"limit": 3}),
    "arc": ("ai2_arc", {"limit": 3}),
    "wmdp": ("wmdp", {"limit": 3}),
}
NAMES = tuple(ASKED)
WITH_AN_ERROR = "one_error"


class Both(NamedTuple):
    """Our project, finished, and the peer's results by name."""

    project: Project
    peer: dict[str, Any]

    def evaluation(self, name: str) -> Path:
        return self.project.one(f"evaluations/adder.{name}.task-*")

    def metrics(self, name: str) -> Any:
        return json.loads((self.evaluation(name) / "metrics.json").read_text(encoding="utf-8"))

    def samples(self, name: str) -> list[dict[str, Any]]:
        text = (self.evaluation(name) / "lm_eval_samples.jsonl").read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines()]


def tasks_config(revisions: dict[str, str]) -> dict[str, Any]:
    prompts = {name: {"lm_eval_task": task, **options} for name, (task, options) in ASKED.items()}
    for name, repo in HUB.items():
        prompts[name]["dataset_revisions"] = {repo: revisions[repo]}
    prompts[WITH_AN_ERROR] = {"lm_eval_task": "one_error/one_error.yaml"}
    run = {"engine": "adder", "sampling": "task", "determinism": "strict"}
    return {
        "experiment": "tasks",
        "models": {"adder": {"path": "config/quickstart/model"}},
        "engines": {
            "adder": {
                "model": "adder",
                "environment": "cpu",
                "args": {"dtype": "float32", "max_model_len": 64},
            }
        },
        "prompts": prompts,
        "runs": [
            {**run, "prompts": list(NAMES)},
            {**run, "prompts": WITH_AN_ERROR, "max_error_rate": 0.5},
        ],
    }


def _theirs(options: dict[str, Any]) -> dict[str, Any]:
    """Return options as the harness's command would hand them on."""
    chat = options.get("apply_chat_template", False)
    return {"fewshot_as_multiturn": chat, **options}


def peer_command(engine: Path, harness: Path, output: Path) -> list[str]:
    """Return the command of the harness's own backend, in the engine's environment."""
    (packages,) = (harness / "lib").glob("python3*/site-packages")
    asked = {name: [task, _theirs(options)] for name, (task, options) in ASKED.items()}
    words = [engine / "bin/python", ROOT / "tests/lm_eval/peer.py", packages, output]
    return [*map(str, words), json.dumps(asked)]


HUB = {"arithmetic": "EleutherAI/arithmetic", "arc": "allenai/ai2_arc", "wmdp": "cais/wmdp"}
SPLITS = ("train", "validation", "test")
ARC = ("ARC-Easy", "ARC-Challenge")
WMDP = ("wmdp-bio", "wmdp-chem", "wmdp-cyber")


def fill(hub: StandInHub) -> dict[str, str]:
    """Put data sets of the names and shapes of real ones, but made up, on the hub.

    Returns their commits.
    """
    sums = [
        {"context": f"\n\nQ: What is {a} plus {a}?\n\nA:", "completion": f" {2 * a}"}
        for a in range(4)
    ]
    files = {
        "arithmetic": {"data/two_digit_addition.jsonl": _lines(sums)},
        "arc": _configs({name: _arc_rows(place) for place, name in enumerate(ARC)}, SPLITS),
        "wmdp": _configs({name: _wmdp_rows(place) for place, name in enumerate(WMDP)}),
    }
    return {
        HUB[name]: hub.repo(HUB[name], "datasets").commit(found) for name, found in files.items()
    }


def _arc_rows(start: int) -> list[dict[str, Any]]:
    return [
        {
            "question": f"{a}+1=",
            "choices": {"text": [str(a), str(a + 1)], "label": ["A", "B"]},
            "answerKey": "B",
        }
        for a in range(start, start + 5)
    ]


def _wmdp_rows(start: int) -> list[dict[str, Any]]:
    return [
        {"question": f"{a}+{start}=", "choices": [str(a + k) for k in range(4)], "answer": a % 4}
        for a in range(start, start + 5)
    ]


def _configs(
    rows: dict[str, list[dict[str, Any]]], splits: Sequence[str] = ("test",)
) -> dict[str, bytes]:
    """Return the files of a data set: for each config its splits, named in the README."""
    card = "configs:\n"
    files = {}
    for name, found in rows.items():
        card += f"- config_name: {name}\n  data_files:\n"
        for split in splits:
            card += f"  - {{split: {split}, path: {name}/{split}.jsonl}}\n"
            files[f"{name}/{split}.jsonl"] = _lines(found)
    return {"README.md": f"---\n{card}---\n".encode(), **files}


def _lines(rows: Iterable[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def write_one_error(project: Project) -> None:
    """Write a task of three documents, of which one asks nothing: an error of its request."""
    source = (ROOT / TASKS / "adding_chat.yaml").read_text(encoding="utf-8")
    folder = project.folder / "one_error"
    folder.mkdir()
    text = source.replace("adding_chat", "one_error").replace(f"{TASKS}/test.jsonl", "three.jsonl")
    text = text.replace("<|user|>{{question}}<|end|><|assistant|>", "{{question}}")
    (folder / "one_error.yaml").write_text(text, encoding="utf-8")
    rows = [{"question": q, "answer": "3"} for q in ("1+2=", "", "2+1=")]
    project.write_prompts(rows, "three.jsonl")


@pytest.fixture(scope="module")
def both(
    cpu_environment: Path, lm_eval_environment: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Both]:
    """The same tasks by both ways, at the same time, with a stand-in hub."""
    project = make_project(tmp_path_factory.mktemp("tasks") / "project")
    for part in ("config/quickstart/model", TASKS):
        shutil.copytree(ROOT / part, project.folder / part)
    environments = project.folder / "results/environments"
    environments.mkdir(parents=True)
    for environment in (cpu_environment, lm_eval_environment):
        (environments / environment.name).symlink_to(environment)
    write_one_error(project)
    output = project.folder.parent / "peer.json"
    log = output.with_name("peer.log")
    with (
        stand_in_hub() as hub,
        pytest.MonkeyPatch.context() as patch,
        log.open("w", encoding="utf-8") as stream,
    ):
        project.write_config(tasks_config(fill(hub)))
        for name in [name for name in os.environ if name.startswith("HF_")]:
            patch.delenv(name)
        patch.setenv("HF_ENDPOINT", hub.url)
        patch.setenv("HF_HOME", str(output.with_name("hf")))
        with subprocess.Popen(
            peer_command(cpu_environment, lm_eval_environment, output),
            cwd=project.folder,
            env={**os.environ, **STRICT, "HF_HOME": str(output.with_name("peer-hf"))},
            stdout=stream,
            stderr=stream,
        ) as peer:
            try:
                outcome = project.snakemake(seconds=WHOLE_S)
                peer.wait(WHOLE_S)
            finally:
                peer.kill()
        assert outcome.code == 0, outcome.output
        assert peer.returncode == 0, log.read_text(encoding="utf-8")[-3000:]
        yield Both(project, json.loads(output.read_text(encoding="utf-8")))


@pytest.mark.parametrize("task", NAMES)
def test_every_document_has_the_score_that_the_harness_gives_it(both: Both, task: str) -> None:
    theirs = both.peer[task]["samples"]
    ours: dict[str, list[dict[str, Any]]] = {name: [] for name in theirs}
    for sample in both.samples(task):
        ours[sample.pop("task")].append(sample)
    # Prompts, answers (log-likelihoods to the last bit), filtered answers, and scores.
    assert ours == theirs
    assert all(theirs.values())


@pytest.mark.parametrize("task", NAMES)
def test_the_figures_are_those_of_the_harness(both: Both, task: str) -> None:
    document = both.metrics(task)
    peer = both.peer[task]
    assert document["lm_eval"]["results"] == peer["results"]
    assert document["lm_eval"].get("groups") == peer.get("groups")
    figures = {value["metric"]: value for value in document["values"] if value["metric"]}
    roots = document["lm_eval"]["roots"]
    expected = {
        ("" if len(roots) == 1 else f"{root}: ") + key.removesuffix(",none"): value
        for root in roots
        for key, value in {**peer["results"], **peer.get("groups", {})}[root].items()
        if "," in key and "_stderr" not in key
    }
    assert figures.keys() == expected.keys()
    for name, value in expected.items():
        assert figures[name]["value"] == pytest.approx(value, rel=1e-9)


def test_the_tasks_are_ones_that_can_tell_ways_apart(both: Both) -> None:
    scores = {sample["acc_mutual_info"] for sample in both.samples("adding_choices")}
    assert scores == {0.0, 1.0}
    for task in ("adding_chat", "adding_shots", "templated", "sampled"):
        texts = {sample["resps"][0][0] for sample in both.samples(task)}
        assert len(texts) > 5


def test_a_document_counts_once_in_the_table_of_scores(both: Both) -> None:
    for task, requests in (("adding_choices", 8), ("adding_chat", 1)):
        table = pq.read_table(both.evaluation(task) / "scores.parquet")
        metric = next(name for name in table.column_names if name not in ("row", "sample"))
        scores = table.column(metric).to_pylist()
        documents = [place for place, score in enumerate(scores) if score is not None]
        assert len(documents) == 40
        assert documents == list(range(0, 40 * requests, requests))


def test_only_the_log_probabilities_that_count_are_kept(both: Both) -> None:
    run = both.project.one("runs/adder.adding_choices.task-*")
    table = pq.read_table(run / "completions.parquet", columns=["prompt_logprobs", "prompt_tokens"])
    for row in table.to_pylist():
        assert len(json.loads(row["prompt_logprobs"])) < row["prompt_tokens"]


def test_a_second_run_does_nothing_and_a_changed_task_asks_its_own_requests_only(
    both: Both,
) -> None:
    project = both.project
    assert project.run().nothing_to_do
    yaml = project.folder / TASKS / "adding_chat.yaml"
    text = yaml.read_text(encoding="utf-8")
    try:
        yaml.write_text(text.replace("version: 1.0", "version: 1.1"), encoding="utf-8")
        planned = project.planned()
    finally:
        yaml.write_text(text, encoding="utf-8")
    assert planned["build_task"] == planned["merge_run"] == planned["evaluate_run"] == 1
    assert project.run("--dry-run").nothing_to_do


def test_the_report_shows_the_harness_s_figures(both: Both) -> None:
    page = both.project.folder / "results/experiments/tasks/report.html"
    text = page.read_text(encoding="utf-8")
    assert "exact_match,number" in text
    assert "acc_norm" in text


def test_a_group_is_one_figure_and_a_tag_is_a_figure_of_each_task(both: Both) -> None:
    def names(task: str) -> set[str]:
        return {value["metric"] for value in both.metrics(task)["values"] if value["metric"]}

    assert names("wmdp") == {"acc"}
    assert names("arc") == {
        f"{task}: {metric}"
        for task in ("arc_easy", "arc_challenge")
        for metric in ("acc", "acc_norm")
    }


def test_a_task_with_an_error_has_no_score_and_says_why(both: Both) -> None:
    document = both.metrics(WITH_AN_ERROR)
    assert [value for value in document["values"] if value["metric"]] == []
    assert document["errors"] == {"prompt_empty": 1}
    (absent,) = [one for one in document["absent"] if one["metric"] == "lm_eval"]
    reason = "1 of 3 requests ended in an error (prompt_empty)"
    assert absent["reason"].startswith(reason)
    table = pq.read_table(both.evaluation(WITH_AN_ERROR) / "scores.parquet")
    assert table.column_names == ["row", "sample"]
    page = both.project.folder / "results/experiments/tasks/report.html"
    assert reason in page.read_text(encoding="utf-8")


def test_a_package_that_is_missing_while_scoring_is_one_line(
    both: Both, lm_eval_environment: Path
) -> None:
    folder = both.project.folder / "with_package"
    folder.mkdir()
    source = (ROOT / TASKS / "adding_chat.yaml").read_text(encoding="utf-8")
    text = f"{source}process_results: !function utils.score\n"
    (folder / "adding_chat.yaml").write_text(text, encoding="utf-8")
    (folder / "utils.py").write_text("def score(doc, results):\n    import sqlitedict\n")
    harness = Harness(
        lm_eval_environment,
        both.project.one("models/adder-*"),
        {"prompts": {"lm_eval": {}}, "max_model_len": 64},
        {"test.jsonl": f"{TASKS}/test.jsonl"},
        "with_package/adding_chat.yaml",
    )
    prompts = both.project.one("tasks/adding_chat-*/prompts.jsonl")
    run = both.project.one("runs/adder.adding_chat.task-*")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(both.project.folder)
        with pytest.raises(WorkflowError) as caught:
            more = ["--completions", str(run / "completions.parquet")]
            harness.call("score", prompts, folder, more)
    assert str(caught.value) == (
        "with_package/adding_chat.yaml: task 'with_package/adding_chat.yaml' needs the package "
        "sqlitedict, which envs/lm-eval.in leaves out; choose another task"
    )
