"""A node of a vLLM engine that another node leads: its workers, without a scheduler of their own.

vLLM does the same for `vllm serve --headless`. The config must be the leader's but for the rank, so
it is made from the same arguments as `vllm.LLM` makes it.
"""

from __future__ import annotations

import inspect
from typing import Any

from scripts.worker.settings import Settings
from scripts.worker.vllm_invariance import check_invariance
from scripts.worker.vllm_versions import engine_arguments, engine_fields


def follow_vllm(settings: Settings) -> None:
    """Run the workers of this node until one of them ends."""
    from vllm.engine.arg_utils import EngineArgs
    from vllm.usage.usage_lib import UsageContext

    if settings.determinism == "strict":
        check_invariance()
    arguments = engine_arguments(settings, engine_fields())
    from vllm.v1.executor.multiproc_executor import MultiprocExecutor

    make = EngineArgs(**arguments).create_engine_config
    options: dict[str, Any] = {"usage_context": UsageContext.LLM_CLASS}
    if "headless" in inspect.signature(make).parameters:
        options["headless"] = True
    executor = MultiprocExecutor(make(**options), monitor_workers=False)
    executor.start_worker_monitor(inline=True)
