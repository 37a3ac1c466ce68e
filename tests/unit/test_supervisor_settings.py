"""How engines are started: arguments and environment variables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from scripts.llm_batch.errors import WorkflowError
from scripts.llm_batch.generate.settings import (
    CPU_CACHE_BYTES,
    EngineSpec,
    cpu_cache_bytes,
    engine_arguments,
    switches,
    worker_environment,
)

CONFIG = {
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "hidden_size": 128,
    "max_position_embeddings": 512,
}


def spec(folder: Path | None = None, **changes: Any) -> EngineSpec:
    values: dict[str, Any] = {
        "backend": "vllm",
        "args": {"dtype": "float32"},
        "dummy": {},
        "tuning": {},
        "determinism": "fast",
        "model": folder,
        "adapters": (),
        "interpreter": Path("/env/bin/python"),
        "device": "cpu",
        **changes,
    }
    return EngineSpec(**values)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "model.safetensors").write_bytes(b"x" * 1000)
    return tmp_path


def test_a_cpu_engine_reads_prompts_in_one_step_and_never_compiles(model: Path) -> None:
    defaults, arguments = engine_arguments(spec(model, tuning={"max_num_seqs": 8, "shards": 3}))
    assert arguments == {"dtype": "float32", "max_num_seqs": 8, "enforce_eager": True}
    assert defaults["enable_chunked_prefill"] is False
    assert defaults["max_num_batched_tokens"] >= 512
    assert defaults["seed"] == 0


def test_a_long_context_is_read_in_one_step_too(model: Path) -> None:
    defaults, _ = engine_arguments(spec(model, args={"max_model_len": 9000}))
    assert defaults["max_num_batched_tokens"] == 9000


def test_what_is_null_is_left_to_vllm(model: Path) -> None:
    _, arguments = engine_arguments(spec(model, tuning={"max_num_batched_tokens": None}))
    assert "max_num_batched_tokens" not in arguments


def test_the_cache_of_a_cpu_engine_holds_all_its_requests_within_bounds() -> None:
    # 2 × 2 layers × 2 heads × 32 × 4 bytes = 1024 bytes a token, in blocks of 128 tokens.
    arguments = {"dtype": "float32"}
    assert cpu_cache_bytes(CONFIG, arguments, 256, 512) == (256 * 4 + 1) * 128 * 1024
    assert cpu_cache_bytes(CONFIG, {}, 256, 512) == (256 * 4 + 1) * 128 * 512
    assert cpu_cache_bytes(CONFIG, arguments, 1, 128) == CPU_CACHE_BYTES[0]
    assert cpu_cache_bytes(CONFIG, arguments, 10**6, 10**6) <= CPU_CACHE_BYTES[1]
    assert CPU_CACHE_BYTES[0] <= cpu_cache_bytes({}, arguments, 8, None) <= CPU_CACHE_BYTES[1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tuning": {"enable_chunked_prefill": True}}, "enable_chunked_prefill: .* remove it"),
        (
            {"tuning": {"max_num_batched_tokens": 64}, "args": {"max_model_len": 128}},
            "64 is less than max_model_len=128",
        ),
        ({"determinism": "strict", "args": {}}, "needs args: {dtype: float32}, found auto"),
        ({"determinism": "strict", "args": {"dtype": "bfloat16"}}, "found bfloat16"),
    ],
)
def test_what_gives_wrong_answers_on_a_cpu_is_refused(
    model: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(WorkflowError, match=message):
        engine_arguments(spec(model, **changes))


def test_strict_turns_on_what_the_hardware_offers(model: Path) -> None:
    assert switches(spec(model, determinism="strict"))["VLLM_CPU_ATTN_SPLIT_KV"] == "0"
    gpu = switches(spec(model, determinism="strict", device="cuda"))
    assert gpu["VLLM_BATCH_INVARIANT"] == "1"
    assert "VLLM_BATCH_INVARIANT" not in switches(spec(model, device="cuda"))
    # On a CPU it makes vLLM fail, and on a GPU compilation must stay on.
    assert "VLLM_BATCH_INVARIANT" not in switches(spec(model, determinism="strict"))
    assert "TORCHDYNAMO_DISABLE" not in gpu
    assert switches(spec(backend="dummy")) == {}


def test_tokens_of_the_user_do_not_reach_an_engine(model: Path) -> None:
    inherited = {"HF_TOKEN": "hf_a", "HUGGING_FACE_HUB_TOKEN": "hf_b", "HF_HOME": "/hf"}
    passed = worker_environment(spec(model), inherited)
    assert not {"hf_a", "hf_b"} & set(passed.values())
    assert passed["HF_HOME"] == "/hf"


def test_variables_that_could_change_an_answer_are_not_inherited(model: Path) -> None:
    inherited = {
        "HOME": "/home/me",
        "PATH": "/usr/bin",
        "PYTHONPATH": "/elsewhere",
        "VLLM_BATCH_INVARIANT": "1",
        "VLLM_USE_V1": "0",
        "VLLM_CACHE_ROOT": "/cache",
        "CUDA_VISIBLE_DEVICES": "3",
    }
    environment = worker_environment(spec(model, device="cuda"), inherited)
    assert environment["HOME"] == "/home/me"
    assert environment["VLLM_CACHE_ROOT"] == "/cache"
    assert environment["CUDA_VISIBLE_DEVICES"] == "3"
    assert environment["PATH"] == "/env/bin:/usr/bin"
    assert environment["HF_HUB_OFFLINE"] == "1"
    assert not {"PYTHONPATH", "VLLM_BATCH_INVARIANT", "VLLM_USE_V1"} & set(environment)


def test_a_small_model_runs_on_one_thread_unless_the_user_decided(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("VLLM_CPU_OMP_THREADS_BIND", raising=False)
    assert switches(spec(model))["OMP_NUM_THREADS"] == "1"
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    assert "OMP_NUM_THREADS" not in switches(spec(model))
    monkeypatch.delenv("OMP_NUM_THREADS")
    with (model / "model.safetensors").open("ab") as stream:
        stream.truncate(20 << 20)
    assert "OMP_NUM_THREADS" not in switches(spec(model))


def test_the_supervisor_keeps_its_own_tuning(model: Path) -> None:
    tuning = {"shards": 4, "window": 9, "stall_timeout_s": 5, "max_restarts": None}
    own = spec(model, tuning=tuning).supervisor
    assert (own.window, own.stall_timeout_s, own.max_restarts) == (9, 5, 20)
