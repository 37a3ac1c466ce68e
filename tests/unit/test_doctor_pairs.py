"""Impossible pairs of model, arguments, environment and machine: each is one line with a cure."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scripts.llm_batch.doctor import vllm_limits as limits
from scripts.llm_batch.doctor.engines import make_pair, problems
from scripts.llm_batch.doctor.fit import least_need
from scripts.llm_batch.doctor.pairs import Pair
from scripts.llm_batch.machine.read import load_machine
from scripts.llm_batch.models.shape import model_shape
from scripts.llm_batch.models.size import ModelSize
from tests.unit.tiny_environments import ROOT

# Public shapes, as their config.json has them.
GEMMA2_9B = {
    "model_type": "gemma2",
    "num_hidden_layers": 42,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 256,
    "hidden_size": 3584,
    "max_position_embeddings": 8192,
    "sliding_window": 4096,
    "attn_logit_softcapping": 50.0,
    "torch_dtype": "bfloat16",
}
LLAMA_70B = {
    "model_type": "llama",
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "hidden_size": 8192,
    "max_position_embeddings": 131072,
    "torch_dtype": "bfloat16",
}
OPT_125M = {
    "model_type": "opt",
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "hidden_size": 768,
    "max_position_embeddings": 2048,
    "torch_dtype": "float16",
}
PARAMETERS = {"gemma": 9_241_705_984, "llama": 70_553_706_496, "opt": 125_239_296}
CONFIGS = {"gemma": GEMMA2_9B, "llama": LLAMA_70B, "opt": OPT_125M}


def pair(model: str = "llama", machine: str | None = "a100-driver-550", **changes: Any) -> Pair:
    """Return an engine that works, with some things changed; `args` may hold them too."""
    config = {**CONFIGS[model], **changes.pop("config", {})}
    dtype = "BF16" if config.get("torch_dtype") == "bfloat16" else "F16"
    size = ModelSize(model, {dtype: PARAMETERS[model]}, model_shape(config))
    there = load_machine(ROOT / f"tests/machines/composed-{machine}.json") if machine else None
    args = {"max_model_len": 2048, **changes.pop("args", {})}
    parallel = args.get("tensor_parallel_size", 1) * args.get("pipeline_parallel_size", 1)
    known: dict[str, Any] = {
        "vllm": "0.19.1",
        "packages": None,
        "tuning": {},
        "determinism": "fast",
        "gpus": parallel,
        **changes,
    }
    return Pair(model=model, args=args, config=config, size=size, machine=there, **known)


def told(engine: Pair) -> str:
    """Return the only problem of an engine, "" if it has none."""
    found = problems(engine)
    assert len(found) <= 1, [str(one) for one in found]
    if not found:
        return ""
    text = str(found[0])
    assert "\n" not in text
    assert found[0].cure
    return f"{found[0].rule}: {text}"


WORKS = [
    pair("opt"),
    pair("gemma"),
    pair("gemma", args={"attention_backend": "FLASH_ATTN"}),
    pair("gemma", args={"max_model_len": None}),
    pair("llama", args={"tensor_parallel_size": 4}),
    pair("llama", args={"tensor_parallel_size": 2, "pipeline_parallel_size": 4}),
    pair("llama", args={"tensor_parallel_size": 8, "max_model_len": None}),
    pair("opt", "t4-driver-535"),
    pair("gemma", "t4-driver-535", args={"dtype": "float32", "tensor_parallel_size": 1}, gpus=0),
    pair("opt", "h100-driver-535", determinism="strict"),
    pair("opt", "a100-driver-550", determinism="strict"),
    pair("opt", None, determinism="strict"),
    pair(
        "opt", "h100-driver-535", args={"kv_cache_dtype": "fp8", "attention_backend": "FLASH_ATTN"}
    ),
    pair("opt", args={"kv_cache_dtype": "fp8"}),
    pair("opt", "mig-a100-driver-535"),
    pair("opt", "v100-driver-580", config={"quantization_config": {"quant_method": "gptq"}}),
    pair("opt", "laptop", gpus=0),
    # One of two cards can.
    pair("opt", "mixed-driver-580", args={"dtype": "bfloat16"}),
]


@pytest.mark.parametrize("engine", WORKS)
def test_an_engine_that_works_is_not_refused(engine: Pair) -> None:
    assert told(engine) == ""


REFUSED: list[tuple[Pair, str]] = [
    (
        pair("llama", args={"tensor_parallel_size": 3}),
        "heads: tensor_parallel_size 3 does not divide the 64 attention heads of llama "
        "(64 / 3 = 21.33); take 1, 2, 4, 8, 16, 32 or 64",
    ),
    (
        pair("opt", config={"num_key_value_heads": 3}, args={"tensor_parallel_size": 4}),
        "kv-heads: tensor_parallel_size 4 and the 3 KV heads of opt do not divide each other; "
        "take 1, 3, 6 or 12",
    ),
    (
        pair("opt", "t4-driver-535", args={"tensor_parallel_size": 4}),
        "gpus: tensor_parallel_size × pipeline_parallel_size = 4 × 1 = 4 GPUs, there is 1; "
        "lower them, or take a machine with more",
    ),
    (
        pair("opt", "t4-driver-535", args={"tensor_parallel_size": 4}, tuning={"nodes": 2}),
        "gpus: tensor_parallel_size × pipeline_parallel_size = 4 × 1 = 4 GPUs, 2 on each node, "
        "there is 1; lower them, or take a machine with more",
    ),
    (
        pair("opt", args={"pipeline_parallel_size": 2}, tuning={"nodes": 2}, vllm="0.10.1.1"),
        "nodes: tuning.nodes: 2 takes vLLM 0.11.2 or newer, this is 0.10.1.1; take an environment "
        "with a newer vLLM, or one node",
    ),
    (
        pair("opt", "mig-a100-driver-535", args={"tensor_parallel_size": 2}),
        "gpus: tensor_parallel_size × pipeline_parallel_size = 2 × 1 = 2 GPUs, there is 1 that "
        "can work together (the others are slices, MIG); lower them, or take a machine with more",
    ),
    (
        pair("opt", "t4-driver-535", args={"dtype": "bfloat16"}),
        "bfloat16: Tesla T4 (7.5) has no bfloat16 (needs compute capability 8.0), and that is "
        "args.dtype; set args.dtype: float16 (or float32), or take another card",
    ),
    (
        pair("opt", "t4-driver-535", config={"torch_dtype": "bfloat16"}),
        "bfloat16: Tesla T4 (7.5) has no bfloat16 (needs compute capability 8.0), and that is "
        "the dtype of opt (config.json); vLLM would take another format here, and the address "
        "would not say so; set args.dtype: float16 (or float32), or take another card",
    ),
    (
        pair("gemma", args={"dtype": "float16"}),
        "float16: vLLM 0.19.1 does not run gemma2 models in float16: they overflow; set "
        "args.dtype: bfloat16 or float32",
    ),
    (
        pair("gemma", args={"attention_backend": "FLEX_ATTENTION"}),
        "soft-cap: gemma caps its attention logits (attn_logit_softcapping 50), and "
        "FLEX_ATTENTION, args.attention_backend, cannot; remove attention_backend or set "
        "FLASH_ATTN",
    ),
    (
        # The seed's evening: vLLM without FlashAttention falls back on XFORMERS.
        pair("gemma", "v100-driver-470", vllm="0.6.1.post1", args={"dtype": "float16"}),
        "soft-cap: gemma caps its attention logits (attn_logit_softcapping 50), and XFORMERS, "
        "what vLLM 0.6.1.post1 takes for float16 on Tesla V100-SXM2-32GB (7.0), cannot; take an "
        "environment with vLLM 0.11 or newer, or a card of compute capability 8.0",
    ),
    (
        pair("gemma", vllm="0.8.5.post1", args={"dtype": "float32"}),
        "soft-cap: gemma caps its attention logits (attn_logit_softcapping 50), and XFORMERS, "
        "what vLLM 0.8.5.post1 takes for float32 on NVIDIA A100-SXM4-80GB (8.0), cannot; set "
        "args.dtype: bfloat16, or take an environment with vLLM 0.11 or newer",
    ),
    (
        pair("gemma", vllm="0.10.1.1", args={"dtype": "float32"}),
        "soft-cap: gemma caps its attention logits (attn_logit_softcapping 50), and "
        "FLEX_ATTENTION, what vLLM 0.10.1.1 takes for float32 on NVIDIA A100-SXM4-80GB (8.0), "
        "cannot; set args.dtype: bfloat16, or take an environment with vLLM 0.11 or newer",
    ),
    (
        pair("opt", "v100-driver-580", config={"quantization_config": {"quant_method": "fp8"}}),
        "quantization: quantisation fp8 of vLLM 0.19.1 needs compute capability 7.5, Tesla "
        "V100-SXM2-32GB (7.0) is older; take a newer card, or a model quantised otherwise",
    ),
    (
        pair("opt", "t4-driver-535", vllm="0.10.1.1", args={"quantization": "fp8"}),
        "quantization: quantisation fp8 of vLLM 0.10.1.1 needs compute capability 8.0, Tesla T4 "
        "(7.5) is older; take a newer card, or a model quantised otherwise",
    ),
    (
        pair("opt", packages=frozenset({"torch"}), args={"quantization": "bitsandbytes"}),
        "quantization: quantisation bitsandbytes needs the package bitsandbytes, which is not in "
        "the environment; take another environment, or a model quantised otherwise",
    ),
    (
        pair("opt", vllm="0.32.0", args={"quantization": "gguf"}),
        "quantization: vLLM 0.32.0 no longer has quantisation gguf; take an environment with an "
        "older vLLM",
    ),
    (
        pair("opt", "laptop", gpus=0, args={"quantization": "modelopt_fp4"}),
        "quantization: quantisation modelopt_fp4 has no kernels for CPUs; take a GPU, or a model "
        "that is not quantised",
    ),
    (
        pair("opt", args={"kv_cache_dtype": "fp8", "attention_backend": "FLASH_ATTN"}),
        "fp8-cache: FLASH_ATTN reads a KV cache in fp8 on compute capability 9.0 only, this is "
        "NVIDIA A100-SXM4-80GB (8.0); set kv_cache_dtype: auto, or remove attention_backend",
    ),
    (
        pair(
            "opt",
            "b200-driver-570",
            args={"kv_cache_dtype": "fp8", "attention_backend": "FLASH_ATTN"},
        ),
        "fp8-cache: FLASH_ATTN reads a KV cache in fp8 on compute capability 9.0 only, this is "
        "NVIDIA B200 (10.0); set kv_cache_dtype: auto, or remove attention_backend",
    ),
    (
        pair("opt", args={"kv_cache_dtype": "fp8_e4m3", "attention_backend": "TRITON_ATTN"}),
        "fp8-cache: TRITON_ATTN reads a KV cache in fp8_e4m3 from compute capability 8.9 on, this "
        "is NVIDIA A100-SXM4-80GB (8.0); set kv_cache_dtype: auto, or set attention_backend: "
        "FLASHINFER",
    ),
    (
        pair("opt", determinism="strict", vllm="0.8.5.post1"),
        "strict: determinism: strict needs batch invariance, which vLLM 0.8.5.post1 lacks; take "
        "an environment with a newer vLLM, or write fast",
    ),
    (
        pair("opt", "t4-driver-535", determinism="strict"),
        "strict: determinism: strict needs batch invariance, which vLLM 0.19.1 has from compute "
        "capability 8.0 on; this is Tesla T4 (7.5); take a newer card, or write fast",
    ),
    (
        pair("llama"),
        "memory: llama needs 141.1 GB for weights + 0.7 GB for the KV cache of one request (2048 "
        "tokens) = 141.8 GB on each GPU at the least; NVIDIA A100-SXM4-80GB has 85.9 GB × 0.9 = "
        "77.3 GB; set tensor_parallel_size: 2",
    ),
    (
        pair("llama", args={"tensor_parallel_size": 2, "max_model_len": None}),
        "memory: llama needs 70.6 GB for weights (141.1 GB / 2 GPUs) + 21.5 GB for the KV cache "
        "of one request (131072 tokens) = 92.0 GB on each GPU at the least; NVIDIA "
        "A100-SXM4-80GB has 85.9 GB × 0.9 = 77.3 GB; set args.max_model_len: 41232 or less, or "
        "set tensor_parallel_size: 4",
    ),
    (
        pair("gemma", "busy-4090-driver-545", tuning={"gpu_memory_utilization": 0.7}),
        "memory: gemma needs 18.5 GB for weights + 0.7 GB for the KV cache of one request (2048 "
        "tokens) = 19.2 GB on each GPU at the least; NVIDIA GeForce RTX 4090 has 25.8 GB × 0.7 = "
        "18.0 GB; set tensor_parallel_size: 2",
    ),
    (
        pair("llama", "laptop", gpus=0),
        "memory: llama needs 141.1 GB for weights, this machine has 17.2 GB; take a smaller "
        "model, or a machine with more memory",
    ),
]


@pytest.mark.parametrize(("engine", "text"), REFUSED, ids=[text[:40] for _, text in REFUSED])
def test_an_impossible_engine_is_one_line_with_its_cure(engine: Pair, text: str) -> None:
    assert told(engine) == text


@pytest.mark.parametrize(("engine", "text"), REFUSED, ids=[text[:40] for _, text in REFUSED])
def test_nothing_is_refused_for_a_model_that_is_not_there_yet(engine: Pair, text: str) -> None:
    without = replace(engine, config=None, size=None)
    of_arguments = {"gpus", "nodes", "strict", "fp8-cache", "quantization", "bfloat16"}
    assert {finding.rule for finding in problems(without)} <= of_arguments


def test_where_a_job_will_run_elsewhere_only_certain_things_are_refused() -> None:
    for engine, text in REFUSED:
        elsewhere = {finding.rule for finding in problems(replace(engine, machine=None))}
        rule = text.partition(":")[0]
        certain = {"heads", "kv-heads", "float16", "soft-cap", "quantization", "strict", "nodes"}
        assert elsewhere <= certain
        if rule in ("heads", "kv-heads", "float16"):
            assert elsewhere == {rule}


@pytest.mark.parametrize(
    "tuning",
    [{"cpu_offload_gb": 80}, {"gpu_memory_utilization": 1.0, "cpu_offload_gb": 60}],
)
def test_weights_in_main_memory_are_not_counted(tuning: dict[str, float]) -> None:
    assert told(pair("llama", tuning=tuning)) == ""


def test_the_size_of_a_given_kv_cache_is_not_derived() -> None:
    engine = pair("llama", args={"tensor_parallel_size": 2, "max_model_len": None})
    assert told(replace(engine, tuning={"num_gpu_blocks_override": 100})) == ""


def test_weights_quantised_while_loading_are_counted_at_their_least() -> None:
    assert told(pair("llama", args={"quantization": "fp8"})) == ""


@pytest.mark.parametrize(
    ("parallel", "pipeline", "part"),
    [
        (1, 1, 1.0),
        (4, 1, 1 / 4),
        # Eight KV heads: beyond eight GPUs each holds a copy of one.
        (16, 1, 1 / 8),
        (2, 4, 1 / 8),
    ],
)
def test_the_kv_cache_is_shared_out_by_heads_and_layers(
    parallel: int, pipeline: int, part: float
) -> None:
    whole = least_need(pair(), 1)
    shared = least_need(pair(args={"pipeline_parallel_size": pipeline}), parallel)
    assert whole is not None
    assert shared is not None
    assert whole.cache == 2048 * 2 * 80 * 8 * 128 * 2
    assert shared.cache == whole.cache * part
    assert shared.weights == -(-whole.weights // (parallel * pipeline))


def test_the_smallest_of_the_cards_that_are_needed_decides() -> None:
    spread = {"dtype": "float32", "tensor_parallel_size": 2}
    tight = {"gpu_memory_utilization": 0.5}
    engine = pair("gemma", "mixed-driver-580", args=spread, tuning=tight)
    assert "Tesla V100-SXM2-32GB has 34.4 GB × 0.5 = 17.2 GB" in told(engine)
    alone = {"dtype": "float32", "max_model_len": 16}
    assert told(pair("gemma", "mixed-driver-580", args=alone)) == ""


def test_newer_vllm_takes_a_larger_share() -> None:
    def share(vllm: str) -> str:
        return told(pair("llama", vllm=vllm)).partition(" × ")[2].partition(" =")[0]

    assert (share("0.19.1"), share("0.25.1")) == ("0.9", "0.92")


@pytest.mark.parametrize(("engine", "text"), REFUSED, ids=[text[:40] for _, text in REFUSED])
def test_nothing_is_told_from_a_version_that_nobody_knows(engine: Pair, text: str) -> None:
    of_versions = {"float16", "soft-cap", "strict", "fp8-cache"}
    found = {finding.rule for finding in problems(replace(engine, vllm=""))}
    assert not found & of_versions or engine.args.get("attention_backend") in limits.NO_SOFT_CAP


def test_multi_head_latent_attention_is_not_split_by_heads() -> None:
    config = {**LLAMA_70B, "kv_lora_rank": 512, "qk_rope_head_dim": 64, "num_key_value_heads": 3}
    engine = replace(pair(args={"tensor_parallel_size": 4}), config=config, size=None)
    assert told(engine) == ""


def test_a_models_files_are_read_where_they_lie(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(OPT_125M), encoding="utf-8")
    known: dict[str, Any] = {
        "model": "opt",
        "vllm": "0.19.1",
        "packages": None,
        "args": {},
        "tuning": {},
        "determinism": "fast",
        "gpus": 1,
    }
    found = make_pair(folder=tmp_path, machine=None, **known)
    assert found.config == OPT_125M
    assert found.size is None
    (tmp_path / "config.json").write_text("[not, an object]", encoding="utf-8")
    assert make_pair(folder=tmp_path, machine=None, **known).config is None
    assert make_pair(folder=tmp_path / "gone", machine=None, **known).config is None
