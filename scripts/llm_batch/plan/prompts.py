"""The prompts of a plan: what decides them, and which of them are made from other runs.

Runs are planned in the order in which they can be answered: those whose completions are judged
before those that judge them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scripts.llm_batch.config.records import Config, Prompts, Run
from scripts.llm_batch.digests import DigestMemo
from scripts.llm_batch.plan.fetch import data_set_stage, prompts_path
from scripts.llm_batch.plan.prompts_identity import prompts_identity
from scripts.llm_batch.plan.stages import Stage, make_stage
from scripts.llm_batch.tasks.planning import TaskPlan, plan_task, task_prompts_identity


@dataclass(frozen=True)
class DerivedPlan:
    """Rows made from the completions of one or two runs: their folders, and their prompts files."""

    stage: Stage
    runs: tuple[str, ...]
    prompts_paths: tuple[str, ...]

    @property
    def path(self) -> str:
        """Where the rows will lie."""
        return f"results/prompts/{self.stage.folder}/rows.jsonl"


class PromptsPlanner:
    """Tells what decides each prompts section; of derived ones once their runs are planned."""

    def __init__(self, config: Config, memo: DigestMemo, harness: Stage | None = None) -> None:
        """Plan the prompts of `config`; `harness` is the environment that tasks need."""
        self._config = config
        self._memo = memo
        self._harness = harness
        self._identities: dict[str, dict[str, Any]] = {}
        self._runs: dict[str, tuple[Run, Stage]] = {}
        self._derived: dict[str, DerivedPlan] = {}

    def add_run(self, run: Run, stage: Stage) -> None:
        """Remember the stage of a run, for prompts that are made from it."""
        self._runs[run.name] = run, stage

    def identity(self, name: str) -> dict[str, Any]:
        """Return the identity of a prompts section; the runs it is made from must be known."""
        if name not in self._identities:
            prompts = self._config.prompts[name]
            if prompts.from_runs:
                self._derived[name] = self._derive(prompts)
            judged = [self._runs[run][1].address for run in prompts.from_runs]
            if self._harness is not None and prompts.lm_eval is not None:
                identity = task_prompts_identity(prompts, self._harness, self._memo)
            else:
                identity = prompts_identity(prompts, self._memo, judged)
            self._identities[name] = identity
        return self._identities[name]

    def path(self, name: str) -> str:
        """Return where the rows of a prompts section lie, or will lie."""
        derived = self._derived.get(name)
        return derived.path if derived else prompts_path(self._config.prompts[name])

    def task(self, name: str, args: Mapping[str, Any], model: Stage) -> TaskPlan | None:
        """Return the task of a section for an engine of `model` with `args`; None if it is none."""
        prompts = self._config.prompts[name]
        if self._harness is None or prompts.lm_eval is None:
            return None
        return plan_task(prompts, self.identity(name), args, model, self._harness)

    @property
    def derived(self) -> Mapping[str, DerivedPlan]:
        """What is made from other runs, by stage folder."""
        return {derived.stage.folder: derived for derived in self._derived.values()}

    @property
    def data_sets(self) -> list[Stage]:
        """The data sets of the hub that have to be fetched."""
        stages = [data_set_stage(self._config.prompts[name]) for name in self._identities]
        return [stage for stage in stages if stage is not None]

    def _derive(self, prompts: Prompts) -> DerivedPlan:
        runs = [self._runs[name] for name in prompts.from_runs]
        stages = [stage for _, stage in runs]
        return DerivedPlan(
            make_stage("prompts", prompts.name, {"from_runs": [stage.address for stage in stages]}),
            tuple(stage.folder for stage in stages),
            tuple(self.path(run.prompts) for run, _ in runs),
        )


def judging_levels(config: Config) -> dict[str, int]:
    """Return for each run how many runs stand before it at most: 0 for prompts in a file.

    The config has been checked: no run waits for itself.
    """
    runs = {run.name: run for run in config.runs}
    levels: dict[str, int] = {}

    def level(name: str) -> int:
        if name not in levels:
            judged = config.prompts[runs[name].prompts].from_runs
            levels[name] = 1 + max((level(one) for one in judged), default=-1)
        return levels[name]

    return {name: level(name) for name in runs}
