"""Models that need no download: a real shape, a made-up tokenizer, weights random or none.

    python tests/peers/shapes.py FOLDER SEED      fills a folder with random weights

The second form is run by the engine's interpreter, which has torch and safetensors. Such a model
answers nonsense as fast as a real one. Engines that are only timed need no weights at all
(`load_format: dummy`). Those are all but zero, however, so that the noise of sampling decides
alone; equality of answers is checked with weights that give probabilities as a trained model's.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

SHAPES: dict[str, dict[str, Any]] = {
    "8b": {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
    },
    "1b": {
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
    },
    "tiny": {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "vocab_size": 512,
    },
}
"""Llama-3.1-8B, Llama-3.2-1B (without its tied embeddings), and one for tests of the scripts."""

ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}

SPECIAL = ("<unk>", "</s>")

LOGIT_SPREAD = 3.0
"""Standard deviation of the logits of a model with random weights."""


def write_shape(folder: Path, name: str, dtype: str) -> Path:
    """Write config and tokenizer of a model; one token a word."""
    folder.mkdir(parents=True, exist_ok=True)
    shape = SHAPES[name]
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0,
        "rope_scaling": ROPE,
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": False,
        "bos_token_id": None,
        "eos_token_id": 1,
        "torch_dtype": dtype,
        **shape,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer(shape["vocab_size"])))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": "<unk>",
        "eos_token": "</s>",
        "clean_up_tokenization_spaces": False,
        "model_max_length": 131072,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def word(token: int) -> str:
    """Return the word that is this token."""
    return SPECIAL[token] if token < len(SPECIAL) else f"w{token}"


def tokenizer(size: int) -> dict[str, Any]:
    """Return a tokenizer.json for `size` words with blanks between them."""
    special = [
        {
            "id": number,
            "content": content,
            "special": True,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
        }
        for number, content in enumerate(SPECIAL)
    ]
    vocabulary = {word(token): token for token in range(size)}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": special,
        "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": SPECIAL[0]},
    }


def tensor_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of the weights of a Llama."""
    hidden, inner, words = (
        config[name] for name in ("hidden_size", "intermediate_size", "vocab_size")
    )
    narrow = hidden // config["num_attention_heads"] * config["num_key_value_heads"]
    layer = {
        "input_layernorm": (hidden,),
        "self_attn.q_proj": (hidden, hidden),
        "self_attn.k_proj": (narrow, hidden),
        "self_attn.v_proj": (narrow, hidden),
        "self_attn.o_proj": (hidden, hidden),
        "post_attention_layernorm": (hidden,),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (words, hidden)}
    for number in range(config["num_hidden_layers"]):
        for name, shape in layer.items():
            found[f"model.layers.{number}.{name}.weight"] = shape
    return {**found, "model.norm.weight": (hidden,), "lm_head.weight": (words, hidden)}


def write_weights(folder: Path, seed: int) -> None:
    """Fill a model's folder with random weights whose products keep their size."""
    import torch
    from safetensors.torch import save_file  # type: ignore[import-not-found, unused-ignore]

    config = json.loads((folder / "config.json").read_text())
    dtype = getattr(torch, config["torch_dtype"])
    device = "cuda" if torch.cuda.is_available() else "cpu"
    noise = torch.Generator(device).manual_seed(seed)
    tensors = {}
    for name, shape in tensor_shapes(config).items():
        if len(shape) == 1:
            tensors[name] = torch.ones(shape, dtype=dtype)
            continue
        scale = LOGIT_SPREAD if name == "lm_head.weight" else 1.0
        scale = 1.0 if name == "model.embed_tokens.weight" else scale / math.sqrt(shape[-1])
        drawn = torch.randn(shape, generator=noise, device=device) * scale
        tensors[name] = drawn.to(dtype).cpu()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


if __name__ == "__main__":
    write_weights(Path(sys.argv[1]), int(sys.argv[2]))
