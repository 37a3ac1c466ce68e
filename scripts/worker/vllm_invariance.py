"""Whether a vLLM keeps an answer independent of the other requests in its batch.

On a GPU that is `VLLM_BATCH_INVARIANT`, which came with 0.11.1, for compute capability 9.0; in
0.19 it became one of vLLM's registered variables, and its kernels serve capability 8.0 too. On a
CPU it is `VLLM_CPU_ATTN_SPLIT_KV=0`, which came with 0.20. Told from vLLM's sources
(tests/recorded); what they are worth is measured in tests/peers/README.md.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from typing import Any

from scripts.worker.engine import EngineRefused

GPU_SWITCH = "VLLM_BATCH_INVARIANT"
CPU_SWITCH = "VLLM_CPU_ATTN_SPLIT_KV"

MODULES = (
    "vllm.model_executor.determinism.batch_invariant",
    "vllm.model_executor.layers.batch_invariant",
)
"""Where the kernels lie, in newer and older versions."""


def check_invariance() -> None:
    """Raise `EngineRefused` if `determinism: strict` is more than this vLLM or GPU offers.

    The switch is the one that the supervisor has set.
    """
    import vllm

    version = vllm.__version__
    if CPU_SWITCH in os.environ:
        if CPU_SWITCH not in _registered():
            raise EngineRefused(
                f"determinism: strict on a CPU needs a vLLM that knows {CPU_SWITCH} (0.20 does), "
                f"this is {version}; use an environment with a newer one, or determinism: fast"
            )
        return
    if not any(_exists(module) for module in MODULES):
        raise EngineRefused(
            f"determinism: strict needs a vLLM with batch-invariant kernels (0.11.1 or newer), "
            f"this is {version}; use an environment with a newer one, or determinism: fast"
        )
    _check_capability((8, 0) if GPU_SWITCH in _registered() else (9, 0), version)


def _check_capability(least: tuple[int, int], version: str) -> None:
    from vllm.platforms import current_platform

    found = current_platform.get_device_capability()
    if found is None or tuple(found) < least:
        what = "is not known" if found is None else "is {}.{}".format(*found)
        raise EngineRefused(
            f"determinism: strict with vLLM {version} needs a GPU of compute capability "
            f"{least[0]}.{least[1]}, that of this one {what}; use another, or determinism: fast"
        )


def invariance_facts() -> dict[str, Any]:
    """Return the switch that was set, and whether the engine itself takes it as on.

    None for `on` where this vLLM does not tell.
    """
    switch = next((name for name in (GPU_SWITCH, CPU_SWITCH) if name in os.environ), None)
    if switch is None:
        return {"switch": None, "on": False}
    return {"switch": f"{switch}={os.environ[switch]}", "on": _seen_on(switch)}


def _seen_on(switch: str) -> bool | None:
    from vllm import envs

    if switch == CPU_SWITCH:
        return not envs.VLLM_CPU_ATTN_SPLIT_KV if switch in _registered() else None
    if switch in _registered():
        return bool(envs.VLLM_BATCH_INVARIANT)
    if not _exists(MODULES[1]):
        return None
    return bool(importlib.import_module(MODULES[1]).vllm_is_batch_invariant())


def _registered() -> Any:
    from vllm import envs

    return envs.environment_variables


def _exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False
