"""`generate` with a real vLLM on the CPU: right answers, the same bits, every error a row."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from tests.engine.conftest import TIMEOUT_S, Workspace, alive, kill_and_wait, make_request, wait_for
from tests.engine.real import bare_answers, broken_model, real_workspace

pytestmark = pytest.mark.engine

Request = dict[str, Any]


def question(number: int) -> dict[str, Any]:
    """Return a prompt of the quickstart, chat and text in turn."""
    a, b = number % 97, number * 7 % 89
    if number % 2:
        return {"text": f"{a}+{b}="}
    content = f"What is {a} + {b}?"
    return {"messages": [{"role": "user", "content": content}], "chat_template_kwargs": {}}


def mixed_requests(count: int) -> list[Request]:
    """Return greedy and seeded requests, chat and text, of several temperatures."""
    settings: list[dict[str, Any]] = [
        {"temperature": 0},
        {"temperature": 0.7},
        {"temperature": 1.5, "top_p": 0.9},
        {"temperature": 1.0, "top_k": 5, "logprobs": 1},
    ]
    return [
        make_request(number, question(number), **settings[number // 2 % len(settings)])
        for number in range(count)
    ]


def by_key(workspace: Workspace) -> dict[str, dict[str, Any]]:
    return {answer["key"]: answer for answer in workspace.answers()}


def test_strict_answers_have_the_same_bits_whatever_the_batch(tmp_path: Path) -> None:
    """Another batch size, two kills in the middle and another order change no byte."""
    requests = mixed_requests(400)
    calm = real_workspace(tmp_path, "calm")
    calm.write(requests)
    calm.run()
    assert calm.facts()["errors"] == {}
    seen = calm.facts()["engines"][0]["invariance"]
    assert seen == {"switch": "VLLM_CPU_ATTN_SPLIT_KV=0", "on": True}

    killed = real_workspace(tmp_path, "killed")
    killed.tuning = {"max_num_seqs": 5}
    killed.write(requests)
    process = killed.start()
    killed.wait_answers(40)
    worker = killed.worker(process)
    kill_and_wait(process, worker)
    half = len(killed.journaled())
    assert 40 <= half < 400
    killed.run()
    assert killed.completions.read_bytes() == calm.completions.read_bytes()
    keys = killed.journaled()
    assert len(keys) == len(set(keys)) == 400
    assert killed.facts()["recovered"] == half

    shuffled = real_workspace(tmp_path, "shuffled")
    shuffled.write(random.Random(0).sample(requests, len(requests)))
    shuffled.run()
    assert by_key(shuffled) == by_key(calm)


def test_answers_are_those_of_vllm_itself(tmp_path: Path) -> None:
    requests = [make_request(n, question(n), temperature=0, max_tokens=12) for n in range(24)]
    requests += [make_request(n, question(n), temperature=0.9) for n in range(24, 48)]
    workspace = real_workspace(tmp_path, "ours")
    workspace.write(requests)
    workspace.run()
    ours = [
        [a["text"], a["token_ids"], a["finish_reason"], a["prompt_tokens"]]
        for a in workspace.answers()
    ]
    assert ours == bare_answers(workspace)


def unusual_requests() -> dict[str, Request]:
    """Return requests of every kind that vLLM takes, and of every kind that it must not get."""
    text = {"text": "What is 3 + 4?"}
    user = [{"role": "user", "content": "What is 3 + 4?"}]
    long = {"text": "1+" * 100}

    def ask(number: int, prompt: dict[str, Any] | None = None, **changes: Any) -> Request:
        return make_request(number, prompt or text, **changes)

    structured = {"structured_outputs": {"choice": ["seven", "eleven"]}}
    return {
        "chat": ask(0, {"messages": user, "chat_template_kwargs": {}}),
        "ids": ask(1, {"token_ids": [20, 21, 22]}),
        "logprobs": ask(2, logprobs=2, prompt_logprobs=1),
        "stop": ask(3, temperature=0, logit_bias={"30": 100}, stop=[":"]),
        "choice": ask(4, temperature=0, **structured),
        "bias": ask(5, temperature=0, logit_bias={"30": 100}, max_tokens=3, ignore_eos=True),
        "left": {**ask(6, long), "on_too_long": "truncate_left"},
        "right": {**ask(7, long), "on_too_long": "truncate_right"},
        "too_long": ask(8, long),
        "empty": ask(9, {"token_ids": []}),
        "vocabulary": ask(10, {"token_ids": [5, 261]}),
        "negative": ask(11, {"token_ids": [-1]}),
        "no_role": ask(12, {"messages": [{"content": "hi"}]}),
        "hot": ask(13, temperature=-1),
        "unknown": ask(14, no_such_field=1),
        "regex": ask(15, structured_outputs={"regex": "(unclosed"}),
        "stop_id": ask(16, stop_token_ids=[100_000], min_tokens=2),
        "seed": ask(17, seed=2**64),
        "text_seed": ask(18, seed="a"),
        "unseeded": ask(19, seed=None),
        "many": ask(20, logprobs=1000),
    }


EXPECTED_ERRORS = {
    "too_long": "prompt_too_long",
    "empty": "prompt_empty",
    "vocabulary": "token_out_of_vocabulary",
    "negative": "token_out_of_vocabulary",
    "no_role": "chat_template_error",
    "hot": "sampling_invalid",
    "unknown": "sampling_invalid",
    "regex": "sampling_invalid",
    "stop_id": "sampling_invalid",
    "seed": "sampling_invalid",
    "text_seed": "sampling_invalid",
    "unseeded": "sampling_invalid",
    "many": "sampling_invalid",
}


def test_every_kind_of_request_is_answered_or_refused_with_a_type(tmp_path: Path) -> None:
    requests = unusual_requests()
    workspace = real_workspace(tmp_path, "kinds")
    workspace.write(list(requests.values()))
    workspace.run()
    facts = workspace.facts()
    assert facts["deaths"] == 0
    answers = dict(zip(requests, workspace.answers(), strict=True))
    errors = {name: a["error_type"] for name, a in answers.items() if a["error_type"]}
    assert errors == EXPECTED_ERRORS
    assert answers["chat"]["rendered_prompt"] == "<|user|>What is 3 + 4?<|end|><|assistant|>"
    assert answers["ids"]["prompt_tokens"] == 3
    assert answers["stop"]["stop_reason"] == '":"'
    assert answers["choice"]["text"] in ("seven", "eleven")
    assert answers["bias"]["token_ids"] == [30, 30, 30]
    rows = json.loads(answers["logprobs"]["logprobs"])
    assert len(rows) == len(answers["logprobs"]["token_ids"])
    chosen = [row[0] for row in rows]
    assert [item["token_id"] for item in chosen] == answers["logprobs"]["token_ids"]
    total = sum(item["logprob"] for item in chosen)
    assert answers["logprobs"]["cumulative_logprob"] == pytest.approx(total)
    assert json.loads(answers["logprobs"]["prompt_logprobs"])[0] is None
    for side in ("left", "right"):
        # 128 tokens of context, of which the answer may take 16.
        assert answers[side]["prompt_tokens"] == 112
        assert answers[side]["truncated_prompt_tokens"] > 0
    engine = facts["engines"][0]
    assert engine["version"] and engine["attention_backend"] == "CPU_ATTN"
    assert engine["kv_cache_tokens"] > 0 and engine["startup_s"]["load"] > 0
    assert engine["requests"] == len(requests)


def test_answers_of_a_model_that_computes_nan_are_errors(tmp_path: Path) -> None:
    model = broken_model(tmp_path / "nan", float("nan"))
    workspace = real_workspace(tmp_path, "corrupted", model)
    workspace.write([make_request(n, question(n)) for n in range(4)])
    workspace.run()
    assert workspace.facts()["errors"] == {"output_corrupted": 4}


def test_missing_weights_end_in_one_line_with_a_cure(tmp_path: Path) -> None:
    model = broken_model(tmp_path / "empty", 0.0)
    (model / "model.safetensors").unlink()
    workspace = real_workspace(tmp_path, "weightless", model)
    workspace.write([make_request(0)])
    error = workspace.run(code=1).splitlines()[-1]
    assert error.startswith("error: ")
    assert "weights are missing or damaged; fetch the model again" in error
    assert len(workspace.exits()) == 1


def test_strict_refuses_what_it_cannot_keep(tmp_path: Path) -> None:
    workspace = real_workspace(tmp_path, "half")
    workspace.engine["args"] = {"dtype": "bfloat16"}
    workspace.write([make_request(0)])
    assert "set it in the engine, or determinism: fast" in workspace.run(code=1)
    assert workspace.exits() == []


def test_sigterm_stops_a_real_engine(tmp_path: Path) -> None:
    workspace = real_workspace(tmp_path, "stopped")
    workspace.tuning = {"max_num_seqs": 2}
    workspace.write([make_request(n, question(n), ignore_eos=True) for n in range(2000)])
    process = workspace.start()
    workspace.wait_answers(1)
    worker = workspace.worker(process)
    process.terminate()
    assert process.wait(timeout=TIMEOUT_S) == 143
    assert not alive(worker.pid)
    assert workspace.exits() == ["interrupted"]
    assert len(workspace.journaled()) < 2000


@pytest.mark.slow
def test_engine_processes_die_with_a_killed_driver(tmp_path: Path) -> None:
    """As on a GPU the engine runs in processes of its own, which vLLM leaves behind when killed.

    The supervisor is killed too: the kernel alone must end the worker and all it started.
    """
    launcher = tmp_path / "several_processes.py"
    launcher.write_text(
        "import runpy\n"
        "import scripts.llm_batch.generate.attempt as attempt\n"
        "import scripts.llm_batch.generate.settings as settings\n"
        "alone = settings.switches\n"
        "several = {'VLLM_ENABLE_V1_MULTIPROCESSING': '1'}\n"
        "settings.switches = attempt.switches = lambda spec: {**alone(spec), **several}\n"
        "runpy.run_module('scripts.generate', run_name='__main__', alter_sys=True)\n"
    )
    workspace = real_workspace(tmp_path, "several")
    workspace.tuning = {"max_num_seqs": 2}
    workspace.write([make_request(n, question(n), ignore_eos=True) for n in range(5000)])
    process = workspace.start(program=launcher)
    workspace.wait_answers(1)
    kin = [workspace.worker(process)]
    kin += kin[0].children(recursive=True)
    assert len(kin) >= 3
    process.kill()
    process.wait()
    wait_for(lambda: not any(alive(one.pid) for one in kin))
    assert len(workspace.journaled()) < 5000
