"""Models, adapters and data sets of a plan: from a local folder, or from the hub at a commit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.llm_batch.config.records import Adapter, Model, Prompts
from scripts.llm_batch.digests import DigestMemo
from scripts.llm_batch.errors import ConfigError, WorkflowError
from scripts.llm_batch.hub.selection import refuse_pickled
from scripts.llm_batch.models.adapters import local_adapter_identity
from scripts.llm_batch.models.local import local_model_identity
from scripts.llm_batch.plan.prompts_identity import data_set_identity, without_none
from scripts.llm_batch.plan.stages import Stage, make_stage


@dataclass(frozen=True)
class FetchPlan:
    """A model or an adapter and where it comes from: `path` for a local folder, else the hub."""

    stage: Stage
    path: str | None
    pickled: bool = False

    @property
    def unpinned(self) -> bool:
        """Whether it is on the hub and has no commit yet."""
        return self.path is None and "revision" not in self.stage.identity


def plan_model(model: Model, memo: DigestMemo) -> FetchPlan:
    """Return the stage of a model; raise `ConfigError` for pickled weights not allowed."""
    if model.path is None:
        identity = hub_identity(model)
    else:
        identity = local_model_identity(Path(model.path), memo)
        try:
            refuse_pickled(identity["files"], model.pickled)
        except WorkflowError as error:
            raise ConfigError(f"models.{model.name}.path: {model.path}: {error}") from None
        if model.code:
            identity["code"] = dict(model.code)
    return FetchPlan(make_stage("models", model.name, identity), model.path, model.pickled)


def hub_identity(model: Model | Adapter) -> dict[str, Any]:
    """Return the identity of what is on the hub: repository, commit, and what is said besides.

    Without a commit the identity only serves to show a plan; nothing is fetched by it.
    """
    identity: dict[str, Any] = {"repo": model.repo, "revision": model.revision}
    if isinstance(model, Model):
        identity["files"] = list(model.files) if model.files else None
        identity["code"] = dict(model.code) if model.code else None
    return without_none(identity)


def plan_adapter(adapter: Adapter, memo: DigestMemo) -> FetchPlan:
    """Return the stage of a LoRA adapter; raise `WorkflowError` without its files."""
    if adapter.path is None:
        identity = hub_identity(adapter)
    else:
        identity = local_adapter_identity(Path(adapter.path), memo)
    return FetchPlan(make_stage("adapters", adapter.name, identity), adapter.path)


def data_set_stage(prompts: Prompts) -> Stage | None:
    """Return the stage that fetches the data set of a prompts section; None for a local file."""
    data_set = prompts.data_set
    if data_set is None:
        return None
    identity = data_set_identity(data_set)
    identity.pop("split", None)
    examples = prompts.few_shot.split if prompts.few_shot else None
    splits = sorted({split for split in (data_set.split, examples) if split})
    return make_stage("datasets", prompts.name, {**identity, "splits": splits or None})


def few_shot_path(prompts: Prompts) -> str | None:
    """Return the file of its own that few-shot examples are drawn from, if they have one."""
    return prompts.few_shot.path if prompts.few_shot else None


def prompts_path(prompts: Prompts) -> str:
    """Return the file that a run waits for: the data, or the manifest of a fetched data set."""
    stage = data_set_stage(prompts)
    return prompts.path if stage is None else f"results/datasets/{stage.folder}/manifest.json"
