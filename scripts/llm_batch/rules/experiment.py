"""What rules ask of the experiment: its report, its verdict, its links by name."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from scripts.llm_batch.addresses import canonical_json
from scripts.llm_batch.config.records import Config
from scripts.llm_batch.plan.records import Plan


class Experiment:
    """Rules `report`, `check_experiment` and `link_experiment`."""

    def __init__(self, config: Config, plan: Plan, workflow: Any, raw: Mapping[str, Any]) -> None:
        self._config = config
        self._plan = plan
        self._workflow = workflow
        self._raw = raw

    def sources(self, wildcards: Any, output: Any) -> str:
        """Return the report's identity, the folders it is made from, and the config to show."""
        plan, runs = self._plan, self._plan.runs.values()
        replications = [run.replication.folder for run in runs if run.replication]
        sources = {
            "identity": plan.report.identity,
            "runs": [f"results/runs/{run}" for run in plan.runs],
            "evaluations": [f"results/evaluations/{run.evaluation.folder}" for run in runs],
            "replications": [f"results/replications/{folder}" for folder in replications],
            "config": self._raw,
        }
        return json.dumps(sources)

    def reproduce_command(self, wildcards: Any, output: Any) -> str:
        """Return the command line that asks for the same again."""
        workflow = self._workflow
        settings = workflow.config_settings.config
        return reproduce_command(workflow.configfiles, settings, self._config)

    def error_limits(self, wildcards: Any, output: Any) -> str:
        """Return where each run's facts lie, and the share of its completions that may fail."""
        limits = [
            {"facts": f"results/runs/{folder}/facts.json", "max_error_rate": run.max_error_rate}
            for folder, run in self._plan.runs.items()
        ]
        return canonical_json(limits)

    def record(self, wildcards: Any) -> str:
        """Return what is linked by name; here a change must re-run, so Snakemake tracks it."""
        runs = {
            run.stage.name: {"run": folder, "evaluation": run.evaluation.folder}
            for folder, run in self._plan.runs.items()
        }
        plan = self._plan
        return canonical_json(
            {"experiment": plan.experiment, "report": plan.report.folder, "runs": runs}
        )


def reproduce_command(
    configfiles: Sequence[str], overrides: Mapping[str, Any], config: Config
) -> str:
    """Return the command line that asks for the same experiment again, on any machine.

    What `environment: auto` was here is named, unless engines have different environments.
    """
    environments = {engine.environment for engine in config.engines.values()}
    if config.auto and environments == {config.auto.name}:
        overrides = {**overrides, "environment": config.auto.name}
    words = ["snakemake", "--cores", "all"]
    if [str(path) for path in configfiles] not in ([], ["config/config.yaml"]):
        words += ["--configfile", *(str(path) for path in configfiles)]
    given = [
        f"{key}={value if isinstance(value, str) else canonical_json(value)}"
        for key, value in sorted(overrides.items())
    ]
    return shlex.join(words + (["--config", *given] if given else []))
