"""What a plan consists of: engines, batches and runs, each with the stage folder it will have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scripts.llm_batch.environments.sources import Source
from scripts.llm_batch.plan.fetch import FetchPlan
from scripts.llm_batch.plan.prompts import DerivedPlan
from scripts.llm_batch.plan.stages import Stage
from scripts.llm_batch.tasks.planning import TaskPlan


@dataclass(frozen=True)
class EnginePlan:
    """An engine under one determinism: what answers its requests, and how it is placed."""

    stage: Stage
    environment: Stage | None
    model: FetchPlan | None
    tuning: Mapping[str, Any]
    gpus: int

    @property
    def nodes(self) -> int:
        """Return how many machines the engine is spread over, each with as many of its GPUs."""
        return int(self.tuning.get("nodes") or 1)


@dataclass(frozen=True)
class RunPlan:
    """A run, the batch that would answer it, and what evaluates it."""

    stage: Stage
    batch: str
    prompts_path: str
    few_shot_path: str | None
    task: TaskPlan | None
    adapter: Stage | None
    evaluation: Stage
    replication: Stage | None
    max_error_rate: float


@dataclass(frozen=True)
class BatchPlan:
    """All runs that one config sends to one engine, cut into shards."""

    stage: Stage
    engine: EnginePlan
    runs: tuple[RunPlan, ...]
    shards: int


@dataclass(frozen=True)
class Plan:
    """Everything one config asks for; the mappings are keyed by stage folder.

    `unpinned` names the sections of the config that have no commit yet: they can be planned only.
    """

    experiment: str
    environments: Mapping[str, tuple[Stage, Source]]
    models: Mapping[str, FetchPlan]
    adapters: Mapping[str, FetchPlan]
    data_sets: Mapping[str, Stage]
    tasks: Mapping[str, TaskPlan]
    engines: Mapping[str, EnginePlan]
    batches: Mapping[str, BatchPlan]
    runs: Mapping[str, RunPlan]
    derived: Mapping[str, DerivedPlan]
    report: Stage
    unpinned: Sequence[str] = ()
