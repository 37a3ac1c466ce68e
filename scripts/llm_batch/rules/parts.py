"""What rules ask of the parts that requests are made of, before any engine is asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scripts.llm_batch.addresses import canonical_json
from scripts.llm_batch.environments.sources import build_words
from scripts.llm_batch.plan.fetch import FetchPlan
from scripts.llm_batch.plan.records import Plan
from scripts.llm_batch.plan.results import Results


class Environments:
    """Rule `build_environment`."""

    def __init__(self, plan: Plan, wheelhouse: str | None) -> None:
        self._planned = plan.environments
        self._wheelhouse = wheelhouse

    def locks(self, wildcards: Any) -> list[str]:
        """Return the files that decide an environment; none for an interpreter that is there."""
        return list(self._planned[wildcards.environment][1].locks)

    def identity(self, wildcards: Any, output: Any) -> str:
        return canonical_json(self._planned[wildcards.environment][0].identity)

    def source(self, wildcards: Any, output: Any) -> list[str]:
        """Return where an environment comes from, as words of a command line."""
        return build_words(self._planned[wildcards.environment][1], self._wheelhouse)


class Fetched:
    """Rules `fetch_model` and `fetch_adapter`."""

    def __init__(self, planned: Mapping[str, FetchPlan], wildcard: str) -> None:
        self._planned = planned
        self._wildcard = wildcard

    def identity(self, wildcards: Any, output: Any) -> str:
        return canonical_json(self._fetched(wildcards).stage.identity)

    def source(self, wildcards: Any, output: Any) -> list[str]:
        """Return where a model or an adapter comes from, as words of a command line."""
        fetched = self._fetched(wildcards)
        words = ["--path", fetched.path] if fetched.path else []
        return [*words, "--pickled"] if fetched.pickled else words

    def _fetched(self, wildcards: Any) -> FetchPlan:
        return self._planned[getattr(wildcards, self._wildcard)]


class DataSets:
    """Rule `fetch_dataset`."""

    def __init__(self, plan: Plan) -> None:
        self._planned = plan.data_sets

    def identity(self, wildcards: Any, output: Any) -> str:
        return canonical_json(self._planned[wildcards.dataset].identity)


class DerivedPrompts:
    """Rule `derive_prompts`: prompts that are made from the completions of other runs."""

    def __init__(self, plan: Plan) -> None:
        self._planned = plan.derived

    def runs(self, wildcards: Any) -> list[str]:
        """Return the manifests of the runs that prompts are made from."""
        return [f"{folder}/manifest.json" for folder in self.run_folders(wildcards, None)]

    def files(self, wildcards: Any) -> list[str]:
        """Return the prompts files that these runs were asked from, each once."""
        return sorted(set(self._planned[wildcards.prompts].prompts_paths))

    def identity(self, wildcards: Any, output: Any) -> str:
        return canonical_json(self._planned[wildcards.prompts].stage.identity)

    def run_folders(self, wildcards: Any, output: Any) -> list[str]:
        return [f"results/runs/{folder}" for folder in self._planned[wildcards.prompts].runs]

    def files_by_run(self, wildcards: Any, output: Any) -> list[str]:
        """Return the prompts file of each judged run, in the order of the runs."""
        return list(self._planned[wildcards.prompts].prompts_paths)


class Tasks:
    """Rule `build_task`."""

    def __init__(self, plan: Plan, results: Results) -> None:
        self._planned = plan.tasks
        self._results = results

    def stages(self, wildcards: Any) -> list[str]:
        """Return the environment of the harness, and the model whose tokenizer is used."""
        return self._results.task_manifests(self._planned[wildcards.task])

    def harness(self, wildcards: Any, output: Any) -> list[str]:
        """Return what the harness is told, as words of a command line."""
        return self._results.task_words(self._planned[wildcards.task])
