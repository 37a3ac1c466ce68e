"""Where the parts of a plan lie in `results/`, and what is there already."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from scripts.llm_batch.addresses import address, read_json
from scripts.llm_batch.errors import WorkflowError
from scripts.llm_batch.plan.records import BatchPlan, EnginePlan, Plan
from scripts.llm_batch.plan.stages import Stage
from scripts.llm_batch.tasks.call import harness_spec
from scripts.llm_batch.tasks.planning import TaskPlan


class Results:
    """A plan held against what `results/` has already.

    A run that is complete keeps pointing at the batch that made it, so that another shard count,
    or one more run on the same engine, asks nothing again.
    """

    def __init__(self, plan: Plan, root: Path) -> None:
        self._plan = plan
        self._root = root

    def run_batch(self, run: str) -> str:
        """Return the batch folder whose answers are, or will be, merged into `run`."""
        return self._recorded_batches.get(run) or self._plan.runs[run].batch

    def is_merged(self, run: str) -> bool:
        """Tell whether `run` is complete, with all that it was merged from."""
        return run in self._recorded_batches

    def run_completions(self, run: str) -> list[str]:
        """Return the shards' completions that `run` is merged from."""
        batch = self.run_batch(run)
        folder = f"results/batches/{batch}/completions"
        return [f"{folder}/{shard}.parquet" for shard in range(self._shards(batch))]

    def run_shard_facts(self, run: str) -> list[str]:
        """Return the facts of these shards, which are written after the completions."""
        batch = self.run_batch(run)
        folder = f"results/batches/{batch}/facts"
        return [f"{folder}/{shard}.json" for shard in range(self._shards(batch))]

    def batch(self, batch: str) -> BatchPlan:
        """Return the batch of this plan at folder `batch`."""
        try:
            return self._plan.batches[batch]
        except KeyError:
            raise WorkflowError(
                f"results/batches/{batch} does not belong to this config; "
                "run the config that made it"
            ) from None

    def engine(self, batch: str) -> EnginePlan:
        """Return the engine that answers `batch`."""
        if batch in self._plan.batches:
            return self._plan.batches[batch].engine
        identity = read_json(self._root / "batches" / batch / "identity.json")["identity"]
        wanted = address("engines", identity["engine"])
        for engine in self._plan.engines.values():
            if engine.stage.address == wanted:
                return engine
        return self.batch(batch).engine

    def stage_manifests(self, batch: str) -> list[str]:
        """Return the manifests of the environment, the model and the adapters `batch` needs."""
        folders = [self.environment_folder(batch), self.model_folder(batch)]
        folders += self.adapter_folders(batch)
        return [f"{folder}/manifest.json" for folder in folders if folder]

    def environment_folder(self, batch: str) -> str:
        """Return the folder of the environment of `batch`; empty for a dummy engine."""
        environment = self.engine(batch).environment
        return f"results/environments/{environment.folder}" if environment else ""

    def model_folder(self, batch: str) -> str:
        """Return the folder of the model of `batch`; empty for a dummy engine."""
        model = self.engine(batch).model
        return f"results/models/{model.stage.folder}" if model else ""

    def adapter_folders(self, batch: str) -> tuple[str, ...]:
        """Return the folders of the adapters that runs of `batch` use, in a fixed order."""
        runs = (run for name, run in self._plan.runs.items() if self.run_batch(name) == batch)
        if batch in self._plan.batches:
            runs = (run for run in self._plan.batches[batch].runs)
        used = {run.adapter.folder: run.adapter.address for run in runs if run.adapter}
        return tuple(f"results/adapters/{name}" for name in sorted(used, key=lambda n: used[n]))

    def engine_parts(self, batch: str) -> list[str]:
        """Return the words of the command line that say where the parts of an engine lie."""
        words = []
        if environment := self.environment_folder(batch):
            words += ["--environment", environment]
        if model := self.model_folder(batch):
            words += ["--model", model]
        if adapters := self.adapter_folders(batch):
            words += ["--adapters", *adapters]
        engine = self.engine(batch).stage.identity
        return [*words, "--determinism", engine.get("determinism", "fast")]

    def scorer_manifests(self, evaluation: str) -> list[str]:
        """Return the manifests of what scores an evaluation besides ourselves: a task's harness."""
        task = self._plan.runs[self.evaluated_run(evaluation)].task
        return [*self.task_manifests(task), task.manifest] if task else []

    def scorer_words(self, evaluation: str) -> list[str]:
        """Return the words of the command line that say what scores an evaluation; often none."""
        task = self._plan.runs[self.evaluated_run(evaluation)].task
        return [*self.task_words(task), "--task", task.prompts_path] if task else []

    def task_manifests(self, task: TaskPlan) -> list[str]:
        """Return the manifests of the environment and the model that a task needs."""
        harness = f"results/environments/{task.harness.folder}/manifest.json"
        return [harness, f"{self._task_model(task)}/manifest.json"]

    def task_words(self, task: TaskPlan) -> list[str]:
        """Return the words of the command line that say how the harness is called for a task."""
        environment = f"results/environments/{task.harness.folder}"
        model = self._task_model(task)
        spec = harness_spec(environment, model, task.stage.identity, task.files, task.path)
        return ["--harness", spec]

    def _task_model(self, task: TaskPlan) -> str:
        wanted = task.stage.identity["model"]
        (folder,) = [name for name, m in self._plan.models.items() if m.stage.address == wanted]
        return f"results/models/{folder}"

    def uses_cpu(self, batch: str) -> bool:
        """Tell whether the engine of `batch` computes on the CPU."""
        engine = self.engine(batch)
        return engine.environment is not None and engine.gpus == 0

    @cached_property
    def evaluations(self) -> dict[str, tuple[Stage, str]]:
        """Each evaluation with the folder of its run, keyed by the evaluation's folder."""
        return {
            run.evaluation.folder: (run.evaluation, folder)
            for folder, run in self._plan.runs.items()
        }

    def evaluation(self, evaluation: str) -> Stage:
        """Return the evaluation at folder `evaluation`."""
        return self.evaluations[evaluation][0]

    def evaluated_run(self, evaluation: str) -> str:
        """Return the folder of the run that `evaluation` scores."""
        return self.evaluations[evaluation][1]

    @cached_property
    def replications(self) -> dict[str, tuple[Stage, str]]:
        """Each replication with the folder of its run, keyed by the replication's folder."""
        return {
            run.replication.folder: (run.replication, folder)
            for folder, run in self._plan.runs.items()
            if run.replication
        }

    def replicated_run(self, replication: str) -> str:
        """Return the folder of the run that `replication` asks again."""
        return self.replications[replication][1]

    def _shards(self, batch: str) -> int:
        if batch in self._plan.batches:
            return self._plan.batches[batch].shards
        identity = read_json(self._root / "batches" / batch / "identity.json")["identity"]
        return int(identity["shards"])

    @cached_property
    def _recorded_batches(self) -> dict[str, str]:
        """The batch of each complete run, where all that it was merged from is still there."""
        recorded = {}
        for run in self._plan.runs:
            manifest = self._root / "runs" / run / "manifest.json"
            if manifest.is_file():
                batch = read_json(manifest)["facts"]["batch"]
                if self._is_complete(batch):
                    recorded[run] = batch
        return recorded

    def _is_complete(self, batch: str) -> bool:
        folder = self._root / "batches" / batch
        if not (folder / "manifest.json").is_file():
            return False
        shards = range(self._shards(batch))
        made = [f for s in shards for f in (f"completions/{s}.parquet", f"facts/{s}.json")]
        return all((folder / name).is_file() for name in made)
