"""What the headers of a local model's weights say, without reading a weight.

A safetensors file begins with the length of its header (8 bytes, little-endian) and the header, a
JSON object: https://huggingface.co/docs/safetensors/index#format. huggingface_hub reads it too, but
takes 0.5 s of a processor to be imported, which every job would spend before its engine starts.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path

from scripts.llm_batch.errors import WorkflowError
from scripts.llm_batch.hub.selection import INDEX

MAX_HEADER_BYTES = 100_000_000
"""What the safetensors library itself refuses to go beyond."""


def local_parameters(folder: Path) -> dict[str, int]:
    """Return the elements of all tensors in a model folder by number format; empty without weights.

    Of several kinds of files those are counted that an engine loads: what the index names, else
    `model.safetensors`, else every `*.safetensors`. Raises `WorkflowError` for a broken file.
    """
    counted: Counter[str] = Counter()
    for path in weight_files(folder):
        counted.update(header_parameters(path))
    return dict(counted)


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files that hold a model's weights."""
    index, whole = folder / INDEX, folder / "model.safetensors"
    if whole.is_file():
        return [whole]
    if not index.is_file():
        return sorted(folder.glob("*.safetensors"))
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise WorkflowError(f"{index}: not an index of weights ({error!r})") from None
    return [folder / str(name) for name in sorted(names)]


def header_parameters(path: Path) -> Counter[str]:
    """Return the elements of the tensors in one file by number format."""
    try:
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if not 0 < length <= MAX_HEADER_BYTES:
                raise ValueError(f"its header would be of {length} bytes")
            header = json.loads(stream.read(length))
        counted: Counter[str] = Counter()
        for name, tensor in header.items():
            if name != "__metadata__":
                counted[str(tensor["dtype"])] += math.prod(tensor["shape"])
    except OSError as error:
        raise WorkflowError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise WorkflowError(f"{path}: not a safetensors file ({reason})") from None
    return counted
