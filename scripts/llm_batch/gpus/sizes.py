"""How many GPUs an engine takes, from its arguments alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def parallel_size(args: Mapping[str, Any]) -> int:
    """Return the GPUs of one engine: tensor × pipeline parallel size."""
    tensor, pipeline = args.get("tensor_parallel_size"), args.get("pipeline_parallel_size")
    return int(tensor or 1) * int(pipeline or 1)
