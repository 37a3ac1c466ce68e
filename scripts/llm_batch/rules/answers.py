"""What rules ask of runs, and of what is made from one run: its evaluation, its replication."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from scripts.llm_batch.addresses import canonical_json
from scripts.llm_batch.config.records import Config
from scripts.llm_batch.evaluation.metric_files import metric_files
from scripts.llm_batch.plan.records import Plan, RunPlan
from scripts.llm_batch.plan.results import Results


class Runs:
    """Rule `merge_run`."""

    def __init__(self, plan: Plan, results: Results) -> None:
        self._planned = plan.runs
        self._results = results

    def batch(self, wildcards: Any) -> str:
        """Return the manifest of the batch whose answers are merged."""
        return f"results/batches/{self._results.run_batch(wildcards.run)}/manifest.json"

    def completions(self, wildcards: Any) -> list[str]:
        return self._results.run_completions(wildcards.run)

    def shard_facts(self, wildcards: Any) -> list[str]:
        return self._results.run_shard_facts(wildcards.run)

    def batch_folder(self, wildcards: Any, output: Any) -> str:
        return f"results/batches/{self._results.run_batch(wildcards.run)}"

    def identity(self, wildcards: Any, output: Any) -> str:
        return canonical_json(self._planned[wildcards.run].stage.identity)


class Evaluations:
    """Rule `evaluate_run`."""

    def __init__(self, config: Config, results: Results) -> None:
        self._config = config
        self._results = results

    @property
    def folders(self) -> Iterable[str]:
        """The folders of all evaluations."""
        return self._results.evaluations.keys()

    def run(self, wildcards: Any) -> str:
        """Return the manifest of the run that is scored."""
        return f"{self.run_folder(wildcards, None)}/manifest.json"

    def run_folder(self, wildcards: Any, output: Any) -> str:
        return f"results/runs/{self._results.evaluated_run(wildcards.evaluation)}"

    def scorer(self, wildcards: Any) -> list[str]:
        """Return what else is needed to score a run: for a task its requests and the harness."""
        return self._results.scorer_manifests(wildcards.evaluation)

    def scorer_words(self, wildcards: Any, output: Any) -> list[str]:
        return self._results.scorer_words(wildcards.evaluation)

    def identity(self, wildcards: Any, output: Any) -> str:
        return canonical_json(self._results.evaluation(wildcards.evaluation).identity)

    def files(self, wildcards: Any, output: Any) -> str:
        """Return the Python files of metrics: their digests are identity, their paths are not."""
        identity = self._results.evaluation(wildcards.evaluation).identity
        return canonical_json(metric_files(self._config, identity))

    def name(self, wildcards: Any, output: Any) -> str:
        return self._results.evaluation(wildcards.evaluation).name


class Replications:
    """Rule `replicate_run`."""

    def __init__(self, plan: Plan, results: Results) -> None:
        self._runs = plan.runs
        self._results = results

    @property
    def folders(self) -> Iterable[str]:
        """The folders of all replications; none unless the config asks for them."""
        return self._results.replications.keys()

    def run(self, wildcards: Any) -> str:
        """Return the manifest of the run that is replicated."""
        return f"{self.run_folder(wildcards, None)}/manifest.json"

    def run_folder(self, wildcards: Any, output: Any) -> str:
        return f"results/runs/{self._results.replicated_run(wildcards.replication)}"

    def prompts(self, wildcards: Any) -> str:
        return self._run(wildcards).prompts_path

    def few_shot(self, wildcards: Any, output: Any) -> list[str]:
        """Return where examples come from, as words of a command line; often none."""
        path = self._run(wildcards).few_shot_path
        return ["--few-shot", path] if path else []

    def identity(self, wildcards: Any, output: Any) -> str:
        return canonical_json(self._results.replications[wildcards.replication][0].identity)

    def _run(self, wildcards: Any) -> RunPlan:
        return self._runs[self._results.replicated_run(wildcards.replication)]
