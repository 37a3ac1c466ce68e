"""What rules ask of batches, and of the engines that answer them."""

from __future__ import annotations

import os
from typing import Any

from scripts.llm_batch import slurm
from scripts.llm_batch.addresses import canonical_json
from scripts.llm_batch.plan.batches import batch_spec
from scripts.llm_batch.plan.records import EnginePlan
from scripts.llm_batch.plan.results import Results


class Batches:
    """Rule `shard_prompts`."""

    def __init__(self, results: Results) -> None:
        self._results = results

    def prompts(self, wildcards: Any) -> list[str]:
        """Return the data files, and manifests of data sets, of all runs in a batch."""
        runs = self._results.batch(wildcards.batch).runs
        paths = {path for run in runs for path in (run.prompts_path, run.few_shot_path)}
        return sorted(path for path in paths if path)

    def spec(self, wildcards: Any, output: Any) -> str:
        """Return what is asked: engine, prompts and samplings."""
        return canonical_json(batch_spec(self._results.batch(wildcards.batch)))


class Engines:
    """Rules `generate` and `replicate_run`: what answers a batch, and what it runs on."""

    def __init__(self, results: Results, workflow: Any) -> None:
        self._results = results
        self._workflow = workflow

    def plan(self, wildcards: Any) -> EnginePlan:
        """Return the engine that a job asks."""
        return self._results.engine(self._batch(wildcards))

    def stages(self, wildcards: Any) -> list[str]:
        """Return the manifests of environment, model and adapters; none for a dummy engine."""
        return self._results.stage_manifests(self._batch(wildcards))

    def identity(self, wildcards: Any, output: Any) -> str:
        return canonical_json(self.plan(wildcards).stage.identity)

    def folder(self, wildcards: Any, output: Any) -> str:
        return self.plan(wildcards).stage.folder

    def tuning(self, wildcards: Any, output: Any) -> str:
        return canonical_json(self.plan(wildcards).tuning)

    def parts(self, wildcards: Any, output: Any) -> list[str]:
        """Return where the parts lie, as words of a command line; few for a dummy engine."""
        return self._results.engine_parts(self._batch(wildcards))

    def gpus(self, wildcards: Any) -> int:
        return self.plan(wildcards).gpus

    def nodes(self, wildcards: Any) -> int:
        return self.plan(wildcards).nodes

    def node_gpus(self, wildcards: Any) -> int | None:
        """Return what snakemake-executor-plugin-slurm gives the job's process; else all GPUs."""
        return self._leader_gpus(wildcards) if self.nodes(wildcards) > 1 else None

    def node_gres(self, wildcards: Any) -> str | None:
        """Return as many GPUs on each node, of the model that the profile asks for."""
        gpus, nodes = self.gpus(wildcards), self.nodes(wildcards)
        if nodes == 1 or not gpus:
            return None
        asked = self._workflow.resource_settings.overwrite_resources.get("generate", {})
        model = asked["gpu_model"].raw if "gpu_model" in asked else None
        return slurm.per_node(gpus, nodes, model)

    def node_tasks(self, wildcards: Any) -> int | None:
        """Return the nodes once more: without GPUs SLURM takes no more of them than tasks."""
        nodes = self.nodes(wildcards)
        return nodes if nodes > 1 and not self.gpus(wildcards) else None

    def threads(self, wildcards: Any) -> int:
        """Return the cores of a job.

        Local CPU engines take all, so that two of them never share; others take one.
        """
        uses_cpu = self._results.uses_cpu(self._batch(wildcards))
        workflow = self._workflow
        if workflow.remote_exec or workflow.non_local_exec or slurm.has_steps(os.environ):
            return slurm.threads(self._leader_gpus(wildcards), uses_cpu)
        # Without --cores there are none, as with --report: then nothing is run.
        return int(workflow.resource_settings.cores or 1) if uses_cpu else 1

    def step(self, wildcards: Any, output: Any, threads: int) -> str:
        """Return what starts a job on its own GPUs in an allocation of SLURM; else nothing."""
        if self._workflow.remote_exec:
            return ""
        return slurm.step(os.environ, threads, self._leader_gpus(wildcards))

    def _leader_gpus(self, wildcards: Any) -> int:
        """The GPUs on the node of the job's own process: all, where the engine has no other."""
        return self.gpus(wildcards) // self.nodes(wildcards)

    def _batch(self, wildcards: Any) -> str:
        """The batch whose engine is asked: its own, or that of the run that is replicated."""
        if replication := wildcards.get("replication"):
            return self._results.run_batch(self._results.replicated_run(replication))
        return str(wildcards.batch)
