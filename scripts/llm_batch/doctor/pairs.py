"""An engine as the doctor sees it: model, arguments, environment and machine together."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from scripts.llm_batch.gpus.devices import Device, devices
from scripts.llm_batch.machine.records import Gpu, Machine
from scripts.llm_batch.models.shape import ModelShape, model_shape
from scripts.llm_batch.models.size import ModelSize


@dataclass(frozen=True)
class Pair:
    """One engine: `vllm` is the version ("": unknown), `packages` what its environment holds.

    `config` is the model's config.json (None: not there yet), `size` its weights, `packages` is
    None if nobody knows. `gpus` is what it takes, 0 on a CPU. `machine` is where it will run, None
    if that is another one.
    """

    model: str
    vllm: str
    packages: frozenset[str] | None
    args: Mapping[str, Any]
    tuning: Mapping[str, Any]
    determinism: str
    config: Mapping[str, Any] | None
    size: ModelSize | None
    gpus: int
    machine: Machine | None = field(repr=False, default=None)

    @property
    def shape(self) -> ModelShape | None:
        """Return the shape of the model, with the values that `hf_overrides` replaces."""
        return None if self.config is None else model_shape(self.model_config)

    @property
    def model_config(self) -> Mapping[str, Any]:
        """Return config.json as the engine will see it, the language part's values on top."""
        config = {**(self.config or {}), **(self.args.get("hf_overrides") or {})}
        text = config.get("text_config")
        return {**config, **text} if isinstance(text, Mapping) else config

    @property
    def cards(self) -> tuple[Gpu, ...]:
        """Return the cards that it may run on."""
        return self.machine.gpus if self.machine is not None and self.gpus else ()

    @property
    def tensor_parallel(self) -> int:
        """Return on how many GPUs each layer is spread."""
        return int(self.args.get("tensor_parallel_size", 1))

    @property
    def pipeline_parallel(self) -> int:
        """Return on how many stages the layers are spread."""
        return int(self.args.get("pipeline_parallel_size", 1))

    @property
    def node_gpus(self) -> int:
        """Return how many GPUs it takes of one machine, at the most."""
        return math.ceil(self.gpus / int(self.tuning.get("nodes") or 1))

    @property
    def dtype(self) -> str | None:
        """Return the number format asked for, by config.json if the engine leaves it open."""
        asked = str(self.args.get("dtype", "auto"))
        if asked != "auto":
            return {"half": "float16", "float": "float32"}.get(asked, asked)
        return self.shape.dtype if self.shape else None

    @property
    def devices(self) -> list[Device]:
        """Return the cards and slices it may run on: several slices cannot work together."""
        if self.machine is None or not self.gpus:
            return []
        found = devices(self.machine.inventory)
        return [device for device in found if self.gpus == 1 or not device.is_slice]


def card_name(gpu: Gpu) -> str:
    """Return how messages call a card."""
    return f"{gpu.name} ({gpu.compute_capability})"
