"""Which files of a model folder decide an answer, and the identity they give it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scripts.llm_batch.digests import DigestMemo
from scripts.llm_batch.errors import WorkflowError

TEXT_SUFFIXES = frozenset({".json", ".jinja", ".model", ".py", ".tiktoken", ".txt", ".vocab"})
"""Configuration, tokenizer and remote code; cards, pictures and logs do not decide an answer."""

WEIGHT_SUFFIXES = (".safetensors", ".gguf", ".bin", ".pt")
"""In order of preference: vLLM loads the first kind that is there and ignores the others."""


def model_files(folder: Path) -> list[Path]:
    """Return the files of a model that decide its answers, relative to `folder`, sorted.

    Hidden files and folders are left out. Raises `WorkflowError` without config or weights.
    """
    if not folder.is_dir():
        raise WorkflowError(f"{folder}: no such model folder; give the folder with config.json")
    found = sorted(
        path.relative_to(folder)
        for path in folder.rglob("*")
        if path.is_file() and not _hidden(path.relative_to(folder))
    )
    if Path("config.json") not in found:
        raise WorkflowError(f"{folder}: no config.json; a model folder in Hugging Face format has")
    weights = _preferred_weights(found)
    if not weights:
        raise WorkflowError(f"{folder}: no weights (*.safetensors); is the download complete?")
    return sorted([path for path in found if path.suffix in TEXT_SUFFIXES] + weights)


def local_model_identity(folder: Path, memo: DigestMemo) -> dict[str, Any]:
    """Return the identity of a local model folder: the sha256 of each file that matters."""
    files = model_files(folder)
    digests = memo.sha256_all([folder / path for path in files])
    names = [path.as_posix() for path in files]
    return {"files": dict(zip(names, digests, strict=True))}


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _preferred_weights(found: list[Path]) -> list[Path]:
    for suffix in WEIGHT_SUFFIXES:
        weights = [path for path in found if path.suffix == suffix]
        if weights:
            return weights
    return []
