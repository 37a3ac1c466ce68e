"""Makes LoRA adapters for the quickstart model: random low-rank matrices in PEFT's format.

They teach nothing; they change answers, which is what the tests are about.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.engine.real import QUICKSTART

PROJECTIONS = {
    "q_proj": "self_attn",
    "v_proj": "self_attn",
    "gate_proj": "mlp",
    "down_proj": "mlp",
}


def make_adapter(
    folder: Path,
    seed: int,
    rank: int = 4,
    scale: float = 0.3,
    projections: Sequence[str] = tuple(PROJECTIONS),
    model: Path = QUICKSTART,
) -> Path:
    """Write an adapter of random matrices and return its folder; `scale` is their deviation."""
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    sizes = {"gate_proj": (hidden, inner), "down_proj": (inner, hidden)}
    random = np.random.default_rng(seed)
    tensors: dict[str, np.ndarray[Any, Any]] = {}
    for layer in range(config["num_hidden_layers"]):
        for name in projections:
            taken, given = sizes.get(name, (hidden, hidden))
            stem = f"base_model.model.model.layers.{layer}.{PROJECTIONS[name]}.{name}"
            for part, shape in (("lora_A", (rank, taken)), ("lora_B", (given, rank))):
                values = random.normal(0, scale, shape).astype("<f4")
                tensors[f"{stem}.{part}.weight"] = values
    folder.mkdir(parents=True)
    write_safetensors(folder / "adapter_model.safetensors", tensors)
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "quickstart",
        "r": rank,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": list(projections),
    }
    (folder / "adapter_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


def write_safetensors(path: Path, tensors: dict[str, np.ndarray[Any, Any]]) -> None:
    """Write float32 tensors: the header's length, the header, the numbers."""
    header: dict[str, Any] = {}
    content = b""
    for name, values in tensors.items():
        begin, content = len(content), content + values.tobytes()
        header[name] = {
            "dtype": "F32",
            "shape": list(values.shape),
            "data_offsets": [begin, len(content)],
        }
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content)
