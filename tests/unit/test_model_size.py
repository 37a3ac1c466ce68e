"""Sizes of models from config.json and headers: the figures of published models, and their fit."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import get_local_safetensors_metadata

from scripts.llm_batch.errors import WorkflowError
from scripts.llm_batch.models.headers import local_parameters
from scripts.llm_batch.models.shape import model_shape
from scripts.llm_batch.models.size import ModelSize, gpus_needed, local_model_size
from scripts.model_size import main

LLAMA_70B = {
    "model_type": "llama",
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_attention_heads": 64,
    "num_hidden_layers": 80,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
    "torch_dtype": "bfloat16",
    "vocab_size": 128256,
}
GEMMA_2_9B = {
    "model_type": "gemma2",
    "head_dim": 256,
    "hidden_size": 3584,
    "num_attention_heads": 16,
    "num_hidden_layers": 42,
    "num_key_value_heads": 8,
    "max_position_embeddings": 8192,
    "sliding_window": 4096,
}
OPT_125M = {"hidden_size": 768, "num_attention_heads": 12, "num_hidden_layers": 12}
DEEPSEEK_V3 = {
    "num_attention_heads": 128,
    "num_key_value_heads": 128,
    "num_hidden_layers": 61,
    "hidden_size": 7168,
    "kv_lora_rank": 512,
    "qk_rope_head_dim": 64,
}


def write_header(path: Path, tensors: Mapping[str, tuple[str, Sequence[int]]]) -> None:
    """Write a safetensors file that ends after its header: what measuring reads."""
    header = {
        name: {"dtype": dtype, "shape": list(shape), "data_offsets": [0, 0]}
        for name, (dtype, shape) in tensors.items()
    }
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text)


def llama_tensors(config: Mapping[str, int], layers: range) -> dict[str, tuple[str, list[int]]]:
    """Return the tensors of some layers of a Llama model, in bfloat16."""
    hidden, middle = config["hidden_size"], config["intermediate_size"]
    head = hidden // config["num_attention_heads"]
    cached = head * config["num_key_value_heads"]
    shapes = {
        "self_attn.q_proj": [hidden, hidden],
        "self_attn.k_proj": [cached, hidden],
        "self_attn.v_proj": [cached, hidden],
        "self_attn.o_proj": [hidden, hidden],
        "mlp.gate_proj": [middle, hidden],
        "mlp.up_proj": [middle, hidden],
        "mlp.down_proj": [hidden, middle],
        "input_layernorm": [hidden],
        "post_attention_layernorm": [hidden],
    }
    return {
        f"model.layers.{layer}.{name}.weight": ("BF16", shape)
        for layer in layers
        for name, shape in shapes.items()
    }


@pytest.fixture
def llama_70b(tmp_path: Path) -> Path:
    """A model folder of Llama 3.1 70B in two shards, with headers only."""
    (tmp_path / "config.json").write_text(json.dumps(LLAMA_70B))
    edge: dict[str, tuple[str, list[int]]] = {
        "model.embed_tokens.weight": ("BF16", [128256, 8192]),
        "lm_head.weight": ("BF16", [128256, 8192]),
        "model.norm.weight": ("BF16", [8192]),
    }
    shards = {
        "model-00001-of-00002.safetensors": edge | llama_tensors(LLAMA_70B, range(40)),  # type: ignore[arg-type]
        "model-00002-of-00002.safetensors": llama_tensors(LLAMA_70B, range(40, 80)),  # type: ignore[arg-type]
    }
    for name, tensors in shards.items():
        write_header(tmp_path / name, tensors)
    weight_map = {tensor: name for name, tensors in shards.items() for tensor in tensors}
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    return tmp_path


def test_llama_70b_has_its_published_size(llama_70b: Path) -> None:
    size = local_model_size(llama_70b)
    assert size.total_parameters.value == 70_553_706_496
    assert size.stored_bytes.value == 141_107_412_992
    assert size.stored_bytes.arithmetic == "70,553,706,496 BF16 × 2 B"
    assert size.weight_bytes("float32").value == 2 * size.stored_bytes.value
    per_token = size.kv_bytes_per_token()
    assert per_token == (327_680, "2 (K, V) × 80 layers × 8 KV heads × 128 × 2 B")
    assert size.shape is not None
    assert size.shape.attention == "GQA"


@pytest.mark.parametrize(
    ("memory_gb", "tokens", "gpus"),
    [(80, 8192, 4), (80, None, 4), (141, 8192, 2), (24, 8192, 8), (16, 8192, 16), (2, 1, None)],
)
def test_llama_70b_fits_where_it_is_known_to(
    llama_70b: Path, memory_gb: int, tokens: int | None, gpus: int | None
) -> None:
    fit = gpus_needed(local_model_size(llama_70b), memory_gb * 10**9, tokens=tokens)
    assert fit.gpus == gpus


def test_more_gpus_than_kv_heads_hold_copies(llama_70b: Path) -> None:
    size = local_model_size(llama_70b)
    small = 24 * 10**9
    on_8 = gpus_needed(size, small, tokens=100)
    on_16 = gpus_needed(size, 16 * 10**9, tokens=100)
    assert (on_8.gpus, on_16.gpus) == (8, 16)
    assert on_16.kv_tokens is not None
    # One KV head of eight on each of 16 GPUs: an eighth of a token's bytes, not a sixteenth.
    free = int(16e9 * 0.9) - (2 << 30) - on_16.weight_bytes_per_gpu
    assert on_16.kv_tokens == int(free / (327_680 / 8))


@pytest.mark.parametrize(
    ("config", "attention", "per_token"),
    [
        (LLAMA_70B, "GQA", 327_680),
        (GEMMA_2_9B, "GQA", 344_064),
        (OPT_125M, "MHA", 36_864),
        (DEEPSEEK_V3, "MLA", 70_272),
        ({"n_layer": 12, "n_head": 12, "n_embd": 768}, "MHA", 36_864),
        ({**OPT_125M, "multi_query": True}, "MQA", 3_072),
        ({"text_config": GEMMA_2_9B, "vision_config": {"num_hidden_layers": 3}}, "GQA", 344_064),
        (
            {**OPT_125M, "layer_types": ["linear_attention"] * 9 + ["full_attention"] * 3},
            "MHA",
            9_216,
        ),
    ],
)
def test_a_token_takes_what_its_attention_keeps(
    config: dict[str, Any], attention: str, per_token: int
) -> None:
    shape = model_shape(config)
    assert shape is not None
    assert shape.attention == attention
    figure = ModelSize("m", {"BF16": 1}, shape).kv_bytes_per_token()
    assert figure is not None
    assert figure.value == per_token


def test_a_sliding_window_bounds_what_its_layers_keep() -> None:
    size = ModelSize("m", {"BF16": 1}, model_shape(GEMMA_2_9B))
    short, long = size.kv_bytes(4096), size.kv_bytes(8192)
    assert short is not None
    assert long is not None
    assert short.value == 4096 * 344_064
    assert long.value == 8192 * (21 * (8192 + 4096))
    assert long.arithmetic == "(21 layers × 8192 + 21 × 4096 tokens) × 8,192 B a layer and token"


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"sliding_window": 10}, (10, 12)),
        ({"sliding_window": 10, "use_sliding_window": False}, (None, 0)),
        ({"sliding_window": None}, (None, 0)),
        ({"sliding_window": 10, "sliding_window_pattern": 6}, (10, 10)),
        (
            {
                "sliding_window": 10,
                "layer_types": ["sliding_attention"] * 4 + ["full_attention"] * 8,
            },
            (10, 4),
        ),
    ],
)
def test_windows_are_read_as_families_write_them(
    config: dict[str, Any], expected: tuple[int | None, int]
) -> None:
    shape = model_shape({**OPT_125M, **config})
    assert shape is not None
    assert (shape.window, shape.sliding_layers) == expected


def test_headers_are_read_as_huggingface_hub_reads_them(llama_70b: Path) -> None:
    theirs = get_local_safetensors_metadata(llama_70b).parameter_count
    assert local_parameters(llama_70b) == dict(theirs)
    # A single file goes before an index, and a tensor without a shape is one number.
    write_header(llama_70b / "model.safetensors", {"w": ("F16", [3, 5]), "scale": ("F32", [])})
    assert local_parameters(llama_70b) == {"F16": 15, "F32": 1}
    assert get_local_safetensors_metadata(llama_70b).parameter_count == {"F16": 15, "F32": 1}


def test_quantised_weights_keep_their_width(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        json.dumps({**OPT_125M, "quantization_config": {"quant_method": "awq"}})
    )
    write_header(tmp_path / "model.safetensors", {"q": ("I32", [100]), "scale": ("F16", [10])})
    size = local_model_size(tmp_path)
    assert size.weight_bytes("float32").value == 100 * 4 + 10 * 4
    assert size.shape is not None
    assert size.shape.quantization == "awq"


def test_a_config_of_unknown_names_still_has_a_weight_size(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "novel"}')
    write_header(tmp_path / "weights.safetensors", {"w": ("BF16", [2, 3])})
    size = local_model_size(tmp_path)
    assert size.shape is None
    assert size.stored_bytes.value == 12
    assert size.kv_bytes_per_token() is None
    assert gpus_needed(size, 80 * 10**9).gpus == 1


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, r"config\.json: cannot be read as JSON"),
        ({"config.json": b"[]"}, r"config\.json: expected a JSON object"),
        ({"config.json": b"{}"}, "no safetensors weights"),
        (
            {"config.json": b"{}", "model.safetensors": b"torn"},
            r"weights cannot be measured: .*model\.safetensors: not a safetensors file",
        ),
        (
            {"config.json": b"{}", "model.safetensors": struct.pack("<Q", 99) + b"{"},
            "not a safetensors file",
        ),
        (
            {"config.json": b"{}", "model.safetensors.index.json": b"[]"},
            "not an index of weights",
        ),
        (
            {"config.json": b"{}", "model.safetensors.index.json": b'{"weight_map": {"w": "a"}}'},
            "a: cannot be read: No such file",
        ),
    ],
)
def test_a_folder_that_does_not_tell_is_refused_in_one_line(
    tmp_path: Path, files: dict[str, bytes], message: str
) -> None:
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    with pytest.raises(WorkflowError, match=message) as caught:
        local_model_size(tmp_path)
    assert "\n" not in str(caught.value)


def test_the_command_prints_each_number_with_its_arithmetic(
    llama_70b: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(llama_70b), "--memory", "80", "--tokens", "8192"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "parameters: 70,553,706,496 = 70,553,706,496 BF16"
    assert lines[-1].startswith("80 GB: 4 GPUs, room for ")
    assert "35.3 GB weights + 0.7 GB for 8192 tokens + 2.1 GB assumed" in lines[-1]


def test_the_command_refuses_what_is_neither_folder_nor_repository() -> None:
    with pytest.raises(WorkflowError, match=r"^\./nothing: no such folder, and not a hub"):
        main(["./nothing"])


def test_without_a_network_the_command_says_so_in_one_line(tmp_path: Path) -> None:
    # Nothing listens on port 1.
    hub = {"HF_ENDPOINT": "http://127.0.0.1:1", "HF_HOME": str(tmp_path), "NO_PROXY": "127.0.0.1"}
    done = subprocess.run(
        [sys.executable, "-m", "scripts.model_size", "ann/adder"],
        cwd=Path(__file__).resolve().parents[2],
        env={**os.environ, **hub},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ann/adder@main: the hub (http://127.0.0.1:1) cannot be")
    assert done.stderr.count("\n") == 1
