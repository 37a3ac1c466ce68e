"""`ask`, the one object that rules use: `ask.run.identity` answers for the wildcard `{run}`.

Each attribute is named after a noun, and after a wildcard where there is one; its methods are
functions of inputs, params and resources as Snakemake calls them. A method for params takes
`output`: Snakemake then does not track its value, because placement (paths, tuning) must re-run
nothing, and identity is part of the output's path already. The one exception says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scripts.llm_batch.config.records import Config
from scripts.llm_batch.plan.records import Plan
from scripts.llm_batch.plan.results import Results
from scripts.llm_batch.rules.answers import Evaluations, Replications, Runs
from scripts.llm_batch.rules.engines import Batches, Engines
from scripts.llm_batch.rules.experiment import Experiment
from scripts.llm_batch.rules.parts import DataSets, DerivedPrompts, Environments, Fetched, Tasks


class Ask:
    """The plan of a config, held against `results/`, as rules ask it."""

    def __init__(self, config: Config, plan: Plan, workflow: Any, raw: Mapping[str, Any]) -> None:
        """Answer for `plan`; `workflow` is Snakemake's, `raw` the config as it was read."""
        results = Results(plan, Path("results"))
        self.plan = plan
        self.environment = Environments(plan, config.wheelhouse)
        self.model = Fetched(plan.models, "model")
        self.adapter = Fetched(plan.adapters, "adapter")
        self.dataset = DataSets(plan)
        self.prompts = DerivedPrompts(plan)
        self.task = Tasks(plan, results)
        self.batch = Batches(results)
        self.engine = Engines(results, workflow)
        self.run = Runs(plan, results)
        self.evaluation = Evaluations(config, results)
        self.replication = Replications(plan, results)
        self.experiment = Experiment(config, plan, workflow, raw)
