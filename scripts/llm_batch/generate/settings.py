"""How an engine is started: its arguments and its environment variables, on a CPU or on GPUs.

Everything here is decided before the worker starts; sources and measurements are vLLM 0.28's.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from scripts.llm_batch.addresses import read_json
from scripts.llm_batch.errors import WorkflowError
from scripts.llm_batch.models.adapters import Adapter, max_rank

SUPERVISOR_TUNING = frozenset(
    {"shards", "nodes", "window", "start_timeout_s", "stall_timeout_s", "max_restarts"}
)
"""Tuning that is the supervisor's; all other goes to the engine."""

PLACEMENT_VARIABLES = frozenset(
    {
        "VLLM_CACHE_ROOT",
        "VLLM_CONFIG_ROOT",
        "VLLM_ASSETS_CACHE",
        "VLLM_RPC_BASE_PATH",
        "VLLM_HOST_IP",
        "VLLM_PORT",
        "VLLM_NCCL_SO_PATH",
        "VLLM_CUDART_SO_PATH",
        "VLLM_CPU_OMP_THREADS_BIND",
        "VLLM_CPU_NUM_OF_RESERVED_CPU",
        "VLLM_ENGINE_READY_TIMEOUT_S",
        "VLLM_CONFIGURE_LOGGING",
        "VLLM_LOGGING_LEVEL",
        "VLLM_LOGGING_CONFIG_PATH",
    }
)
"""vLLM's variables that a user may set: they cannot change an answer. The others are dropped."""

LAUNCHER_VARIABLES = frozenset({"RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"})
"""What torchrun and its like set: vLLM would take one for its own place among several."""

CPU_MAX_NUM_SEQS = 256
CPU_BLOCK_TOKENS = 128
"""vLLM's block of the KV cache on a CPU."""

CPU_CACHE_BYTES = (64 << 20, 4 << 30)
CPU_CACHE_SHARE = 0.25
"""The KV cache of a CPU engine takes what all its requests can need, within these bounds."""

SMALL_MODEL_BYTES = 16 << 20
"""Below this a second thread waits more than it computes: with 350 kB of weights on two busy cores
one thread answered 960 requests a second, two answered 150."""


GPU_ADAPTER_SLOTS = 4
"""Adapters in a GPU's memory at once: requests come adapter by adapter, so few meet in a step."""


@dataclass(frozen=True)
class Tuning:
    """The supervisor's own settings, times in seconds."""

    window: int | None = None
    start_timeout_s: float = 3600.0
    stall_timeout_s: float = 600.0
    max_restarts: int = 20


@dataclass(frozen=True)
class EngineSpec:
    """An engine as the config has it, and where its parts lie."""

    backend: str
    args: Mapping[str, Any]
    dummy: Mapping[str, Any]
    tuning: Mapping[str, Any]
    determinism: str
    model: Path | None
    adapters: tuple[Adapter, ...]
    interpreter: Path
    device: str
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def nodes(self) -> int:
        """Return how many machines the engine is spread over."""
        return int(self.tuning.get("nodes") or 1)

    @property
    def supervisor(self) -> Tuning:
        """Return the supervisor's part of the tuning."""
        own = SUPERVISOR_TUNING - {"shards", "nodes"}
        return Tuning(
            **{name: self.tuning[name] for name in own if self.tuning.get(name) is not None}
        )


def engine_arguments(spec: EngineSpec) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return (defaults, arguments): a vLLM that does not know a default starts without it.

    Raises `WorkflowError` for a combination that cannot give right answers.
    """
    given = {**spec.args, **spec.tuning}
    arguments = {
        name: value
        for name, value in given.items()
        if name not in SUPERVISOR_TUNING and value is not None
    }
    if spec.backend == "dummy":
        return {}, arguments
    check_strict(spec)
    arguments |= adapter_arguments(spec)
    if spec.device != "cpu":
        return {"seed": 0}, arguments
    check_cpu(arguments)
    # Without compilation (TORCHDYNAMO_DISABLE) there is nothing but eager execution.
    arguments["enforce_eager"] = True
    config = read_json(spec.model / "config.json") if spec.model else {}
    return cpu_defaults(config, arguments), arguments


def adapter_arguments(spec: EngineSpec) -> dict[str, Any]:
    """Return the engine arguments for LoRA, empty without adapters.

    They are placement: on a CPU neither they nor other adapters in the batch changed a bit of an
    answer, of the base model (60 of 60) or of an adapter under ranks of 8, 16 and 64.
    """
    count = len(spec.adapters)
    if not count:
        return {}
    slots = min(count, GPU_ADAPTER_SLOTS)
    if spec.device == "cpu":
        # vLLM's CPU kernels take the last slot for a request without an adapter: it stays empty.
        slots = count + 1
    return {
        "enable_lora": True,
        "max_loras": slots,
        "max_cpu_loras": max(count, slots),
        "max_lora_rank": max_rank(spec.adapters),
    }


def check_strict(spec: EngineSpec) -> None:
    """Refuse `determinism: strict` where it cannot be kept."""
    if spec.determinism != "strict" or spec.device != "cpu":
        return
    if spec.args.get("dtype") not in ("float32", "float"):
        raise WorkflowError(
            f"determinism: strict on a CPU needs args: {{dtype: float32}}, found "
            f"{spec.args.get('dtype', 'auto')}: other number formats give other answers on "
            "another CPU; set it in the engine, or determinism: fast in the run"
        )


def check_cpu(arguments: Mapping[str, Any]) -> None:
    """Refuse what kills vLLM's CPU engine."""
    if arguments.get("enable_chunked_prefill"):
        raise WorkflowError(
            "tuning.enable_chunked_prefill: vLLM's CPU engine dies of seeded requests whose "
            "prompts are cut into steps; remove it"
        )
    tokens, length = arguments.get("max_num_batched_tokens"), arguments.get("max_model_len")
    if tokens is not None and length is not None and tokens < length:
        raise WorkflowError(
            f"tuning.max_num_batched_tokens: {tokens} is less than max_model_len={length}; on a "
            "CPU a prompt is read in one step, so it must be at least as large"
        )


def cpu_defaults(config: Mapping[str, Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the engine arguments for a CPU that the config left open; `config`: config.json."""
    text = config.get("text_config") or config
    sequences = int(arguments.get("max_num_seqs", CPU_MAX_NUM_SEQS))
    length = arguments.get("max_model_len") or text.get("max_position_embeddings")
    defaults: dict[str, Any] = {
        "seed": 0,
        "max_num_seqs": sequences,
        "enable_chunked_prefill": False,
        "kv_cache_memory_bytes": cpu_cache_bytes(text, arguments, sequences, length),
    }
    if length is not None:
        defaults["max_num_batched_tokens"] = max(4096, int(length))
    return defaults


def cpu_cache_bytes(
    config: Mapping[str, Any], arguments: Mapping[str, Any], sequences: int, length: int | None
) -> int:
    """Return the bytes of a KV cache that holds `sequences` contexts of `length` tokens, bounded.

    2 (keys and values) × layers × heads × head size × bytes of a number, for each token, in whole
    blocks; at most a quarter of the memory that is free.
    """
    least, most = CPU_CACHE_BYTES
    most = max(least, min(most, int(psutil.virtual_memory().available * CPU_CACHE_SHARE)))
    heads = config.get("num_attention_heads")
    layers, hidden = config.get("num_hidden_layers"), config.get("hidden_size")
    if not (heads and layers and hidden and length):
        return most
    size = int(config.get("head_dim") or hidden // heads)
    number = 4 if arguments.get("dtype") in ("float32", "float") else 2
    token = 2 * int(layers) * int(config.get("num_key_value_heads") or heads) * size * number
    blocks = sequences * -(-int(length) // CPU_BLOCK_TOKENS) + 1
    return min(max(blocks * CPU_BLOCK_TOKENS * token, least), most)


def switches(spec: EngineSpec) -> dict[str, str]:
    """Return the environment variables that decide how the engine computes; facts record them."""
    if spec.backend == "dummy":
        return {}
    if spec.device == "cpu":
        return {
            **cpu_threads(spec, os.environ),
            # One process: starts in a fifth of the time, and nothing is left when it is killed.
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            # vLLM compiles its sampler even in eager mode, and fails without a C++ compiler.
            "TORCHDYNAMO_DISABLE": "1",
            # Splitting the KV cache over threads makes sums depend on the rest of the batch.
            "VLLM_CPU_ATTN_SPLIT_KV": "0",
        }
    # The environment's own: its compiler, its CUDA toolkit, and what it must do without.
    found = {**spec.variables, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    if spec.determinism == "strict":
        found["VLLM_BATCH_INVARIANT"] = "1"
    return found


def cpu_threads(spec: EngineSpec, inherited: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that keep a small model on one thread, unless the user decided.

    The number of threads changes no bit of an answer once VLLM_CPU_ATTN_SPLIT_KV is 0.
    """
    if {"OMP_NUM_THREADS", "VLLM_CPU_OMP_THREADS_BIND"} & set(inherited) or spec.model is None:
        return {}
    if sum(path.stat().st_size for path in spec.model.glob("*.safetensors")) > SMALL_MODEL_BYTES:
        return {}
    return {"OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}


def dropped_variables(inherited: Mapping[str, str]) -> set[str]:
    """Return the variables that are kept from the worker: they could change an answer unseen."""
    return {
        name
        for name in inherited
        if name in LAUNCHER_VARIABLES
        or (name.startswith(("PYTHON", "VLLM_")) and name not in PLACEMENT_VARIABLES)
    }


def secrets(inherited: Mapping[str, str]) -> set[str]:
    """Return the variables with the user's tokens, which no engine needs: it asks no hub."""
    return {name for name in inherited if name.startswith("HF_TOKEN") or name in _OLD_TOKENS}


_OLD_TOKENS = ("HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_HUB_TOKEN")


def worker_environment(spec: EngineSpec, inherited: Mapping[str, str]) -> dict[str, str]:
    """Return the worker's environment variables.

    Python's own and vLLM's are taken from `inherited` only where they cannot change an answer.
    """
    return {**inherited_variables(inherited, program_folders(spec)), **fixed_variables(spec)}


def inherited_variables(inherited: Mapping[str, str], programs: Sequence[str]) -> dict[str, str]:
    """Return what a worker keeps of `inherited`; `programs` are folders that PATH begins with."""
    dropped = dropped_variables(inherited) | secrets(inherited)
    kept = {name: value for name, value in inherited.items() if name not in dropped}
    kept["PATH"] = os.pathsep.join([*programs, kept.get("PATH", os.defpath)])
    return kept


def program_folders(spec: EngineSpec) -> list[str]:
    """Return the folders with the programs of an engine's environment."""
    programs = [str(spec.interpreter.parent)]
    if "CUDA_HOME" in spec.variables:
        programs.append(f"{spec.variables['CUDA_HOME']}/bin")
    return programs


def fixed_variables(spec: EngineSpec) -> dict[str, str]:
    """Return the variables that a worker has whatever the user's are."""
    quiet = {
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "PYTHONUNBUFFERED": "1",
    }
    return {**quiet, **switches(spec)}
