"""What `shard_prompts` is told of a batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scripts.llm_batch.addresses import address
from scripts.llm_batch.plan.records import BatchPlan


def batch_spec(batch: BatchPlan) -> dict[str, Any]:
    """Return what `shard_prompts` needs to know; each prompts section is told once."""
    prompts: dict[str, Any] = {}
    runs = []
    for run in batch.runs:
        identity = run.stage.identity["prompts"]
        name = address("prompts", identity)
        prompts[name] = {"identity": identity, "path": run.prompts_path}
        if run.few_shot_path is not None:
            prompts[name]["few_shot_path"] = run.few_shot_path
        runs.append(
            {
                "run": run.stage.address,
                "prompts": name,
                "sampling": run.stage.identity["sampling"],
                **run_adapter(run.stage.identity),
            }
        )
    return {
        "identity": batch.stage.identity,
        "engine": batch.engine.stage.folder,
        "prompts": prompts,
        "runs": runs,
    }


def run_adapter(identity: Mapping[str, Any]) -> dict[str, str]:
    """Return the part of a run's identity that names its adapter, empty without one."""
    return {"adapter": identity["adapter"]} if "adapter" in identity else {}
