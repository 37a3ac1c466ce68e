"""Say how large a model is and on how many GPUs it fits, before anything is downloaded.

    python -m scripts.model_size /models/llama-8b
    python -m scripts.model_size google/gemma-2-9b-it@main --memory 24 --tokens 8192

Read are config.json and the headers of the weights; every number comes with its arithmetic.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

from scripts.llm_batch.errors import WorkflowError, run_cli
from scripts.llm_batch.hub.models import commit_of
from scripts.llm_batch.hub.problems import explained, quiet_client
from scripts.llm_batch.hub.source import Source
from scripts.llm_batch.models.size import (
    Figure,
    ModelSize,
    gpus_needed,
    hub_model_size,
    local_model_size,
)

MEMORY_GB = (24.0, 40.0, 80.0, 141.0)
"""Of an RTX 4090, an A100-40, an A100-80 or H100, and an H200."""


def build_parser() -> argparse.ArgumentParser:
    """Return the command line of this program."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="a folder, or a hub repository as owner/name@revision")
    parser.add_argument("--dtype", default="auto", help="of the engine, as vLLM calls it")
    parser.add_argument("--kv-cache-dtype", default="auto", help="of the KV cache")
    parser.add_argument(
        "--tokens", type=int, help="of the longest sequence; default: the model's context"
    )
    parser.add_argument(
        "--memory", type=float, action="append", help="GB of one GPU; may be given several times"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Print the size and the fit; 0 on success, whether or not it fits."""
    arguments = build_parser().parse_args(argv)
    size = measure(arguments.model)
    memories = arguments.memory or MEMORY_GB
    print("\n".join(describe(size, arguments.dtype, arguments.kv_cache_dtype)))
    for memory in memories:
        fit = gpus_needed(
            size,
            round(memory * 1e9),
            dtype=arguments.dtype,
            kv_dtype=arguments.kv_cache_dtype,
            tokens=arguments.tokens,
        )
        room = f", room for {fit.kv_tokens:,} tokens" if fit.kv_tokens else ""
        print(f"{memory:g} GB: {fit.gpus or 'no number of'} GPUs{room} = {fit.arithmetic}")
    return 0


def measure(model: str) -> ModelSize:
    """Return the size of a folder or of `owner/name@revision`."""
    if Path(model).expanduser().is_dir():
        return local_model_size(Path(model).expanduser())
    repo, _, revision = model.partition("@")
    if repo.count("/") != 1 or repo.startswith((".", "/", "~")):
        raise WorkflowError(f"{model}: no such folder, and not a hub repository (owner/name)")
    quiet_client()
    source = Source(repo, revision or "main")
    # Asked once: the client would ask for files again and again where there is no network.
    source = source._replace(revision=commit_of(source))
    with explained(source):
        return hub_model_size(repo, source.revision)


def describe(size: ModelSize, dtype: str, kv_dtype: str) -> Iterator[str]:
    """Yield a line for each figure."""
    yield f"{size.source}"
    yield _line("parameters", size.total_parameters, "")
    yield _line("stored", size.stored_bytes, " B")
    yield _line(f"weights as {dtype}", size.weight_bytes(dtype), " B")
    shape = size.shape
    if shape is None:
        yield "config.json does not name layers and heads as known models do: no KV cache figures"
        return
    yield (
        f"attention: {shape.attention}, {shape.heads} heads, {shape.kv_heads} KV heads of "
        f"{shape.head_dim}, {shape.layers} layers"
    )
    if shape.window is not None:
        yield f"sliding window: {shape.sliding_layers} layers keep {shape.window} tokens at most"
    if shape.stateless_layers:
        yield f"{shape.stateless_layers} layers keep a state a sequence, not counted here"
    per_token = size.kv_bytes_per_token(kv_dtype)
    if per_token is not None:
        yield _line(f"KV cache a token as {kv_dtype}", per_token, " B")


def _line(name: str, figure: Figure, unit: str) -> str:
    return f"{name}: {figure.value:,}{unit} = {figure.arithmetic}"


if __name__ == "__main__":
    run_cli(main)
