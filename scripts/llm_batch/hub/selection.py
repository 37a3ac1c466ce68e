"""Which files of a repository an engine needs: no other formats, no training state, no pictures."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from scripts.llm_batch.errors import WorkflowError

INDEX = "model.safetensors.index.json"
"""Names the weight files of a sharded model."""

_TEXTS = frozenset({".json", ".jinja", ".model", ".py", ".tiktoken", ".txt", ".vocab"})
_TEMPLATES = "additional_chat_templates/"
_NOT_NEEDED = re.compile(
    r"(^|/)(trainer_state|training_args|all_results|train_results|eval_results|optimizer|scheduler"
    r"|rng_state|flax_model|tf_model|onnx|LICEN[CS]E|USE_POLICY|NOTICE|requirements)[^/]*$"
    r"|\.(bin|h5|msgpack|gguf)\.index\.json$",
    re.IGNORECASE,
)
_VARIANT = re.compile(r"\.(fp16|bf16|fp32|int8|non_ema|ema)(-\d+-of-\d+)?\.")
PICKLED = (".bin", ".pt", ".pth", ".ckpt")
"""Weights in Python's pickle format, which can run code when they are read."""


def needed_files(
    paths: Collection[str],
    index: Mapping[str, str] | None = None,
    patterns: Sequence[str] | None = None,
    pickled: bool = False,
) -> list[str]:
    """Return the files of a model or adapter that are fetched, sorted.

    `index` is the weight map of `model.safetensors.index.json`, `patterns` replace the rule below,
    `pickled` allows weights in pickle format. By default: configs, tokenizer and code at the top
    of the repository, and the first kind of weights there is of safetensors, GGUF and pickle.
    Raises `WorkflowError` if there is no config or are no weights, or too many kinds of GGUF.
    """
    if patterns is not None:
        chosen = _matching(paths, patterns)
    else:
        top = [path for path in paths if "/" not in path or path.startswith(_TEMPLATES)]
        useful = [path for path in top if not _NOT_NEEDED.search(path)]
        texts = [path for path in useful if PurePosixPath(path).suffix in _TEXTS]
        chosen = texts + _weights(useful, index)
    refuse_pickled(chosen, pickled)
    if not {"config.json", "adapter_config.json", "params.json"} & set(chosen):
        raise WorkflowError("has no config.json: not a model in Hugging Face format")
    return sorted(set(chosen))


def refuse_pickled(paths: Iterable[str], allowed: bool) -> None:
    """Raise `WorkflowError` for weights in pickle format unless they are allowed."""
    pickled = sorted(path for path in paths if PurePosixPath(path).suffix in PICKLED)
    if pickled and not allowed:
        raise WorkflowError(
            f"its weights are pickled ({pickled[0]}), and reading them can run code of whoever "
            "made them; take a model with safetensors, or write `pickled: true` beside its name"
        )


def _matching(paths: Iterable[str], patterns: Sequence[str]) -> list[str]:
    """Return the paths that match a pattern, where `folder/` is all below it, as on the hub."""
    whole = [f"{pattern}*" if pattern.endswith("/") else pattern for pattern in patterns]
    chosen = []
    for pattern, written in zip(whole, patterns, strict=True):
        found = [path for path in paths if fnmatchcase(path, pattern)]
        if not found:
            if not set(written) & set("*?[/"):
                raise WorkflowError(f"has no {written}")
            raise WorkflowError(f"no file matches '{written}' of `files`")
        chosen += found
    return chosen


def _weights(paths: Sequence[str], index: Mapping[str, str] | None) -> list[str]:
    if index is not None:
        return sorted(set(index.values()))
    safetensors = [path for path in paths if path.endswith(".safetensors")]
    plain = [path for path in safetensors if not _VARIANT.search(path)]
    if plain:
        # Mistral publishes the same weights once more under this name.
        return [path for path in plain if not path.startswith("consolidated")] or plain
    if safetensors:
        return safetensors
    gguf = [path for path in paths if path.endswith(".gguf")]
    if len(gguf) > 1 and len({re.sub(r"-\d+-of-\d+", "", path) for path in gguf}) > 1:
        raise WorkflowError(
            f"{len(gguf)} GGUF files, each a model of its own; name one under `files`, for example "
            f"files: ['*.json', '{gguf[0]}']"
        )
    if gguf:
        return gguf
    pickled = [path for path in paths if PurePosixPath(path).suffix in PICKLED]
    if not pickled:
        raise WorkflowError("has no weights (*.safetensors) at the top of the repository")
    return pickled
