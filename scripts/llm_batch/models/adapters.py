"""LoRA adapters: which files decide an answer, and whether vLLM can use them on a model.

vLLM looks at an adapter when the first request needs it, inside the engine, and passes over what
it does not know; so everything that can be told from the files is told here, before.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.llm_batch.addresses import folder_address
from scripts.llm_batch.digests import DigestMemo
from scripts.llm_batch.errors import WorkflowError

SETTINGS = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"

NO_ADAPTER = "none"
"""What a run names that wants the model as it is."""

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes as `max_lora_rank`."""

LARGEST_HEADER = 100_000_000
"""Bytes; the format's own limit."""

FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
"""Formats of weights that are stored in their own shape; quantised ones are packed."""

_UNUSED: Mapping[str, str] = {
    "use_dora": "DoRA",
    "lora_bias": "biases",
    "modules_to_save": "fully trained modules (modules_to_save)",
    "trainable_token_indices": "trained tokens (trainable_token_indices)",
    "rank_pattern": "ranks by module (rank_pattern)",
    "alpha_pattern": "scales by module (alpha_pattern)",
}
"""Settings of PEFT that vLLM refuses, or does not read and then computes something else."""

_MODULE = re.compile(r"((?:\w+\.)*layers\.(\d+)\.[\w.]+?)\.lora_(A|B|embedding_A|embedding_B)\b")


@dataclass(frozen=True)
class Adapter:
    """An adapter that is ready to be used: its address, its folder and its rank."""

    address: str
    path: Path
    rank: int


def local_adapter_identity(folder: Path, memo: DigestMemo) -> dict[str, Any]:
    """Return the identity of a local adapter folder: the sha256 of its two files."""
    check_files(folder)
    return {"files": {name: memo.sha256(folder / name) for name in (SETTINGS, WEIGHTS)}}


def check_files(folder: Path) -> None:
    """Raise `WorkflowError` if the files of an adapter are not there."""
    if not folder.is_dir():
        raise WorkflowError(f"{folder}: no such adapter folder; give the folder with {SETTINGS}")
    if not (folder / SETTINGS).is_file():
        raise WorkflowError(f"{folder}: no {SETTINGS}; an adapter folder in PEFT format has one")
    if not (folder / WEIGHTS).is_file():
        pickled = (folder / "adapter_model.bin").is_file()
        cure = (
            "adapter_model.bin is pickled and can run code; save it with safe_serialization=True"
            if pickled
            else "is the download complete?"
        )
        raise WorkflowError(f"{folder}: no {WEIGHTS}; {cure}")


def staged_adapter(folder: Path) -> Adapter:
    """Return the adapter of a stage folder under results/adapters/; raises `WorkflowError`."""
    snapshot = folder / "snapshot"
    try:
        check_files(snapshot)
    except WorkflowError as error:
        raise WorkflowError(f"{error}; delete {folder} and run again") from None
    return Adapter(folder_address(folder), snapshot.resolve(), adapter_rank(snapshot))


def adapter_rank(folder: Path) -> int:
    """Return the rank of the adapter in `folder`; raise `WorkflowError` if vLLM cannot use it."""
    path = folder / SETTINGS
    settings = _read_settings(path)
    kind = settings.get("peft_type")
    if kind != "LORA":
        raise WorkflowError(f"{path}: peft_type is {kind!r}; vLLM uses LORA adapters only")
    unused = [what for name, what in _UNUSED.items() if settings.get(name)]
    if settings.get("bias", "none") != "none":
        unused.append("biases")
    if unused:
        what = ", ".join(unused)
        raise WorkflowError(f"{path}: vLLM cannot use {what}; merge the adapter into its model")
    rank = settings.get("r")
    if isinstance(rank, bool) or not isinstance(rank, int) or not 0 < rank <= RANKS[-1]:
        raise WorkflowError(f"{path}: expected a rank 'r' from 1 to {RANKS[-1]}, found {rank!r}")
    return rank


def _read_settings(path: Path) -> dict[str, Any]:
    try:
        settings = json.loads(path.read_bytes())
    except ValueError as error:
        raise WorkflowError(f"{path}: not JSON ({error}); download the adapter again") from None
    if not isinstance(settings, dict):
        raise WorkflowError(f"{path}: expected a JSON object; download the adapter again")
    return settings


def max_rank(adapters: tuple[Adapter, ...]) -> int:
    """Return the smallest `max_lora_rank` of vLLM that holds all `adapters`."""
    wanted = max(adapter.rank for adapter in adapters)
    return next(rank for rank in RANKS if rank >= wanted)


def tensor_shapes(path: Path) -> dict[str, tuple[str, list[int]]]:
    """Return (format, shape) of each tensor in a safetensors file, from its header alone.

    Raises `WorkflowError` if the file is shorter than its header says.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        text = stream.read(length) if length <= min(size, LARGEST_HEADER) else b""
    try:
        header: dict[str, Any] = json.loads(text)
        header.pop("__metadata__", None)
        end = 8 + length + max((int(t["data_offsets"][1]) for t in header.values()), default=0)
        shapes = {name: (str(t["dtype"]), list(t["shape"])) for name, t in header.items()}
    except (ValueError, TypeError, KeyError, AttributeError):
        raise WorkflowError(f"{path}: not a safetensors file; download it again") from None
    if end != size:
        raise WorkflowError(
            f"{path}: {size} bytes, its header says {end}; it is torn, download it again"
        )
    return shapes


def check_fit(adapter: Adapter, model: Path) -> None:
    """Raise `WorkflowError` for an adapter that was trained on another model than `model`.

    vLLM leaves matrices of layers that a model does not have unused without a word, and dies of
    matrices of another size.
    """
    source = adapter.path / WEIGHTS
    sizes = _adapted_sizes(source)
    if not sizes:
        raise WorkflowError(f"{source}: holds no LoRA matrices of layers; is it the right file?")
    layers = _layer_count(model)
    weights = dict(_model_sizes(model))
    for module, (layer, taken, given) in sizes.items():
        if layers is not None and layer >= layers:
            raise WorkflowError(
                f"{source}: changes layer {layer}, but {model} has layers 0 to {layers - 1}; "
                "the adapter belongs to another model"
            )
        found = weights.get(module)
        if found is not None and found not in ((given, taken), (taken, given)):
            raise WorkflowError(
                f"{source}: {module} takes {taken} and gives {given} numbers, in {model} it takes "
                f"{found[1]} and gives {found[0]}; the adapter belongs to another model"
            )


def _adapted_sizes(path: Path) -> dict[str, tuple[int, int, int]]:
    """Return (layer, numbers taken, numbers given) of each module that an adapter changes."""
    taken: dict[str, int] = {}
    given: dict[str, int] = {}
    layers: dict[str, int] = {}
    for name, (_, shape) in tensor_shapes(path).items():
        match = _MODULE.search(name)
        if match is None or len(shape) != 2:
            continue
        module = _tail(match.group(1))
        layers[module] = int(match.group(2))
        if match.group(3).endswith("A"):
            taken[module] = shape[1]
        else:
            given[module] = shape[0]
    return {name: (layers[name], taken[name], given[name]) for name in taken if name in given}


def _model_sizes(model: Path) -> Iterator[tuple[str, tuple[int, int]]]:
    for path in sorted(model.glob("*.safetensors")):
        for name, (kind, shape) in tensor_shapes(path).items():
            module = name.removesuffix(".weight")
            plain = kind in FLOATS and len(shape) == 2
            if plain and module != name and "layers." in module:
                yield _tail(module), (shape[0], shape[1])


def _tail(module: str) -> str:
    """Return a module's name from `layers.` on: what is before differs between versions."""
    return module[module.rindex("layers.") :]


def _layer_count(model: Path) -> int | None:
    config = json.loads((model / "config.json").read_bytes())
    count = (config.get("text_config") or config).get("num_hidden_layers")
    return count if isinstance(count, int) else None
