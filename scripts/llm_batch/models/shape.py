"""What config.json says of a model's shape: layers, heads and what each token leaves in the cache.

The names of the settings are those of the model families in Hugging Face's transformers; models
with pictures or sound keep those of their language part under `text_config`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads")
_KV_HEADS = ("num_key_value_heads", "num_kv_heads", "n_head_kv", "multi_query_group_num")
_HIDDEN = ("hidden_size", "n_embd", "d_model", "dim")
_CONTEXT = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "seq_length",
    "model_max_length",
)

_NO_TOKEN_CACHE = ("linear_attention", "mamba", "mamba2", "conv", "recurrent", "rglru")
"""Kinds of layers that keep one state a sequence instead of keys and values a token."""

_GEMMA2_PERIOD = 2
"""Gemma 2 was published before `layer_types`: its layers 0, 2, 4 … attend to the window only."""


@dataclass(frozen=True)
class ModelShape:
    """The shape of a model's attention.

    `head_dim` is the width of one head; `latent_dim` the width of what multi-head latent attention
    keeps of a token instead of keys and values (None for other models). Of `layers`,
    `sliding_layers` keep at most `window` tokens, and `stateless_layers` keep none at all.
    """

    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    latent_dim: int | None
    window: int | None
    sliding_layers: int
    stateless_layers: int
    context: int | None
    dtype: str | None
    quantization: str | None

    @property
    def attention(self) -> str:
        """The usual name of the attention: MHA, GQA, MQA or MLA."""
        if self.latent_dim is not None:
            return "MLA"
        if self.kv_heads == self.heads:
            return "MHA"
        return "MQA" if self.kv_heads == 1 else "GQA"


def model_shape(config: Mapping[str, Any]) -> ModelShape | None:
    """Return the shape that a parsed config.json describes, None if it lacks layers or heads."""
    text = config.get("text_config")
    merged = {**config, **text} if isinstance(text, Mapping) else dict(config)
    layers, heads = _whole(merged, _LAYERS), _whole(merged, _HEADS)
    hidden = _whole(merged, _HIDDEN)
    head_dim = _whole(merged, ("head_dim", "kv_channels", "d_kv"))
    if head_dim is None and hidden is not None and heads:
        head_dim = hidden // heads
    if not layers or not heads or not head_dim:
        return None
    window, sliding, stateless = _layer_kinds(merged, layers)
    quantization = merged.get("quantization_config")
    return ModelShape(
        layers=layers,
        heads=heads,
        kv_heads=_kv_heads(merged, heads),
        head_dim=head_dim,
        latent_dim=_latent_dim(merged),
        window=window,
        sliding_layers=sliding,
        stateless_layers=stateless,
        context=_whole(merged, _CONTEXT),
        dtype=_dtype(merged),
        quantization=str(quantization.get("quant_method", "unnamed"))
        if isinstance(quantization, Mapping)
        else None,
    )


def _whole(config: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    """Return the first whole number above 0 under one of `names`."""
    for name in names:
        value = config.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None


def _kv_heads(config: Mapping[str, Any], heads: int) -> int:
    if config.get("multi_query") is True and not config.get("new_decoder_architecture"):
        return 1
    return _whole(config, _KV_HEADS) or heads


def _latent_dim(config: Mapping[str, Any]) -> int | None:
    """DeepSeek-V2 (arXiv 2405.04434, table 1): the latent vector and the shared rotary key."""
    rank, rope = _whole(config, ("kv_lora_rank",)), _whole(config, ("qk_rope_head_dim",))
    return rank + rope if rank is not None and rope is not None else None


def _layer_kinds(config: Mapping[str, Any], layers: int) -> tuple[int | None, int, int]:
    """Return the window, how many layers attend to it only, and how many keep no tokens."""
    window = _whole(config, ("sliding_window",))
    kinds = config.get("layer_types")
    if isinstance(kinds, list) and len(kinds) == layers:
        stateless = sum(kind in _NO_TOKEN_CACHE for kind in kinds)
        sliding = kinds.count("sliding_attention") if window else 0
        return (window if sliding else None), sliding, stateless
    if window is None or config.get("use_sliding_window") is False:
        return None, 0, 0
    if config.get("model_type") == "gemma2":
        return window, (layers + 1) // _GEMMA2_PERIOD, 0
    period = _whole(config, ("sliding_window_pattern",))
    if period is not None:
        return window, layers - layers // period, 0
    return window, layers, 0


def _dtype(config: Mapping[str, Any]) -> str | None:
    value = config.get("dtype", config.get("torch_dtype"))
    return value.removeprefix("torch.") if isinstance(value, str) else None
