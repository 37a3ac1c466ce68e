"""From a valid config to the plan: every stage folder there will be, and its address.

Computed while the Snakefile is parsed, so that `snakemake -n` shows the whole plan. Nothing is
read but the config, the lock files and the digests of data and model files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts.llm_batch.config.records import (
    Config,
    Engine,
    Run,
    Sampling,
)
from scripts.llm_batch.digests import DigestMemo
from scripts.llm_batch.environments.external import ExternalRecords
from scripts.llm_batch.environments.identity import LM_EVAL
from scripts.llm_batch.environments.sources import Source, find_source
from scripts.llm_batch.errors import ConfigError
from scripts.llm_batch.evaluation.metric_files import with_digests
from scripts.llm_batch.gpus.capacity import AUTO, replicas
from scripts.llm_batch.gpus.sizes import parallel_size
from scripts.llm_batch.plan.fetch import (
    FetchPlan,
    few_shot_path,
    plan_adapter,
    plan_model,
)
from scripts.llm_batch.plan.prompts import PromptsPlanner, judging_levels
from scripts.llm_batch.plan.prompts_identity import without_none
from scripts.llm_batch.plan.records import BatchPlan, EnginePlan, Plan, RunPlan
from scripts.llm_batch.plan.report import plan_evaluation, plan_replication, plan_report
from scripts.llm_batch.plan.stages import Stage, make_stage
from scripts.llm_batch.requests import BY_TASK, is_greedy
from scripts.llm_batch.tasks.planning import asks_tasks

DUMMY = "dummy"


def make_plan(
    config: Config,
    envs: Path,
    memo: DigestMemo,
    externals: ExternalRecords | None = None,
    gpus: int = 1,
) -> Plan:
    """Return the plan of `config`; raise `WorkflowError` for files that are not there.

    `envs` is the folder of the lock files, `externals` remembers what interpreters have, `gpus` is
    what `shards: auto` shares out.
    """
    config = with_digests(config, memo)
    sources = _find_sources(config, envs, externals or ExternalRecords())
    engines = _plan_engines(config, sources, memo)
    adapters = _plan_adapters(config, memo)
    adapter_stages = {name: adapter.stage for name, adapter in adapters.items()}
    harness = _plan_harness(sources)
    prompts = PromptsPlanner(config, memo, harness)
    levels = judging_levels(config)
    # An engine that judges completions of its own is started again: those come first.
    runs_by_engine: dict[tuple[str, str, int], list[tuple[Run, Stage]]] = {}
    for run in sorted(config.runs, key=lambda run: levels[run.name]):
        engine = engines[run.engine, run.determinism]
        sampling = config.samplings[run.sampling]
        adapter = _adapter_address(run, engine, adapter_stages)
        stage = _run_stage(run, engine, adapter, prompts.identity(run.prompts), sampling)
        prompts.add_run(run, stage)
        asked = runs_by_engine.setdefault((run.engine, run.determinism, levels[run.name]), [])
        asked.append((run, stage))
    _refuse_twins([stage for runs in runs_by_engine.values() for _, stage in runs])
    batches: dict[str, BatchPlan] = {}
    for key, runs in runs_by_engine.items():
        batch = _plan_batch(engines[key[:2]], runs, config, adapter_stages, prompts, gpus)
        batches[batch.stage.folder] = batch
    planned = {run.stage.name: run for batch in batches.values() for run in batch.runs}
    ordered = {planned[run.name].stage.folder: planned[run.name] for run in config.runs}
    used = [engines[key] for key in dict.fromkeys(key[:2] for key in runs_by_engine)]
    data_sets = prompts.data_sets
    return Plan(
        experiment=config.experiment,
        environments={
            environment.folder: (environment, sources[environment.name])
            for environment in (*(e.environment for e in used), harness)
            if environment
        },
        models={e.model.stage.folder: e.model for e in used if e.model},
        adapters={adapter.stage.folder: adapter for adapter in adapters.values()},
        data_sets={stage.folder: stage for stage in data_sets},
        tasks={run.task.stage.folder: run.task for run in ordered.values() if run.task},
        engines={e.stage.folder: e for e in used},
        batches=batches,
        runs=ordered,
        derived=prompts.derived,
        report=plan_report(config, list(ordered.values())),
        unpinned=[
            f"{fetched.stage.stage}.{fetched.stage.name}"
            for fetched in (*(e.model for e in used), *adapters.values())
            if fetched and fetched.unpinned
        ]
        + [f"prompts.{stage.name}" for stage in data_sets if "revision" not in stage.identity],
    )


def engine_identity(
    engine: Engine, determinism: str, model: str, environment: str
) -> dict[str, Any]:
    """Return what decides an answer besides the request; `model`, `environment`: addresses."""
    identity = {
        "backend": engine.backend,
        "model": model,
        "environment": environment,
        "args": dict(engine.args),
        "dummy": dict(engine.dummy) if engine.backend == DUMMY else None,
        "determinism": determinism if determinism != "fast" else None,
    }
    return without_none(identity)


def sampling_identity(sampling: Sampling) -> dict[str, Any]:
    """Return the sampling parameters, n and seed; a greedy sampling has no seed."""
    identity: dict[str, Any] = {"params": dict(sampling.params), "n": sampling.n}
    if sampling.by_task:
        identity[BY_TASK] = True
    if not is_greedy(sampling.params):
        identity["seed"] = sampling.seed
    return identity


def _find_sources(config: Config, envs: Path, externals: ExternalRecords) -> dict[str, Source]:
    """Return where the environments of all real engines, and the harness's, come from, by name."""
    engines = [config.engines[name] for name in dict.fromkeys(run.engine for run in config.runs)]
    names = dict.fromkeys(e.environment for e in engines if e.backend != DUMMY)
    found = {name: find_source(name, config.environments, envs, externals) for name in names}
    if asks_tasks(config):
        found[LM_EVAL] = find_source(LM_EVAL, {}, envs, externals)
    return found


def _plan_harness(sources: Mapping[str, Source]) -> Stage | None:
    """Return the environment of lm-evaluation-harness, None if no run asks a task."""
    if LM_EVAL not in sources:
        return None
    return make_stage("environments", LM_EVAL, sources[LM_EVAL].identity)


def _plan_engines(
    config: Config, sources: Mapping[str, Source], memo: DigestMemo
) -> dict[tuple[str, str], EnginePlan]:
    models: dict[str, FetchPlan] = {}
    environments: dict[str, Stage] = {}
    engines: dict[tuple[str, str], EnginePlan] = {}
    for name, determinism in dict.fromkeys((run.engine, run.determinism) for run in config.runs):
        engine = config.engines[name]
        dummy = engine.backend == DUMMY
        if engine.model not in models and not dummy:
            models[engine.model] = plan_model(config.models[engine.model], memo)
        if engine.environment not in environments and not dummy:
            environments[engine.environment] = make_stage(
                "environments", engine.environment, sources[engine.environment].identity
            )
        model = None if dummy else models[engine.model]
        environment = None if dummy else environments[engine.environment]
        # A rehearsal keeps engines apart by their names: nothing is built or hashed for a dummy.
        identity = engine_identity(
            engine,
            determinism,
            model.stage.address if model else engine.model,
            environment.address if environment else engine.environment,
        )
        engines[name, determinism] = EnginePlan(
            stage=make_stage("engines", name, identity),
            environment=environment,
            model=model,
            tuning=engine.tuning,
            gpus=engine_gpus(engine, "cpu" if dummy else sources[engine.environment].device),
        )
    return engines


def engine_gpus(engine: Engine, device: str) -> int:
    """Return how many GPUs one engine takes; 0 on a CPU, or for a dummy that asks for none."""
    if engine.backend == DUMMY:
        return int(engine.dummy.get("gpus") or 0)
    return 0 if device == "cpu" else parallel_size(engine.args)


def _plan_adapters(config: Config, memo: DigestMemo) -> dict[str, FetchPlan]:
    """Return the adapters that real engines use, by name."""
    real = [run for run in config.runs if config.engines[run.engine].backend != DUMMY]
    names = dict.fromkeys(run.adapter for run in real if run.adapter)
    return {name: plan_adapter(config.adapters[name], memo) for name in names}


def _adapter_address(run: Run, engine: EnginePlan, adapters: Mapping[str, Stage]) -> str | None:
    """Return what names the adapter of a run in its identity and its requests."""
    if run.adapter is None or engine.model is None:
        return run.adapter
    return adapters[run.adapter].address


def _run_stage(
    run: Run,
    engine: EnginePlan,
    adapter: str | None,
    prompts: Mapping[str, Any],
    sampling: Sampling,
) -> Stage:
    identity = {
        "engine": engine.stage.identity,
        "adapter": adapter,
        "prompts": prompts,
        "sampling": sampling_identity(sampling),
    }
    return make_stage("runs", run.name, without_none(identity))


def _refuse_twins(stages: Sequence[Stage]) -> None:
    """Two runs that ask exactly the same would be one row of a table under two names."""
    names: dict[str, str] = {}
    for stage in stages:
        if stage.address in names:
            raise ConfigError(
                f"runs: '{names[stage.address]}' and '{stage.name}' ask exactly the same question; "
                "remove one, or give one of them another seed"
            )
        names[stage.address] = stage.name


def _plan_batch(
    engine: EnginePlan,
    runs: Sequence[tuple[Run, Stage]],
    config: Config,
    adapters: Mapping[str, Stage],
    prompts: PromptsPlanner,
    gpus: int,
) -> BatchPlan:
    asked = engine.tuning.get("shards", 1)
    shards = replicas(engine.gpus, gpus) if asked == AUTO else int(asked)
    identity = {
        "engine": engine.stage.identity,
        "runs": sorted(stage.address for _, stage in runs),
        "shards": shards,
    }
    stage = make_stage("batches", engine.stage.name, identity)
    args, model = engine.stage.identity["args"], engine.model
    tasks = [prompts.task(run.prompts, args, model.stage) if model else None for run, _ in runs]
    planned = tuple(
        RunPlan(
            stage=run_stage,
            batch=stage.folder,
            prompts_path=task.prompts_path if task else prompts.path(run.prompts),
            few_shot_path=few_shot_path(config.prompts[run.prompts]),
            task=task,
            adapter=adapters[run.adapter] if run.adapter and engine.model else None,
            evaluation=plan_evaluation(run, run_stage, config),
            replication=plan_replication(run, run_stage),
            max_error_rate=run.max_error_rate,
        )
        for (run, run_stage), task in zip(runs, tasks, strict=True)
    )
    return BatchPlan(stage, engine, planned, shards)
