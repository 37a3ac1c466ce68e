"""What happens when Snakemake reads the Snakefile: config in, plan and `ask` out.

Snakemake wraps an error of a Snakefile in the place where it was raised and the calls that led
there, of no use to whoever wrote the config. So what a user can mend ends Python with its message.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scripts.llm_batch import interrupts
from scripts.llm_batch.config.load import load_config
from scripts.llm_batch.digests import DigestMemo
from scripts.llm_batch.environments.external import ExternalRecords
from scripts.llm_batch.errors import WorkflowError
from scripts.llm_batch.generate import guard
from scripts.llm_batch.gpus.capacity import limit_gpus
from scripts.llm_batch.plan.make import make_plan
from scripts.llm_batch.rules import refusals
from scripts.llm_batch.rules.ask import Ask

RESULTS = Path("results")


class Start:
    """The workflow from the reading of its config to the line that names its report."""

    def __init__(self, root: Path, workflow: Any, raw: Mapping[str, Any], log: Any) -> None:
        """Plan what the config `raw` asks; exits with a line if it is not valid.

        `root` is the project's folder; `workflow` and `log` are Snakemake's.
        """
        make_programs_callable(root)
        guard.announce()
        if workflow.is_main_process:
            interrupts.pass_interrupts_on()
        self._workflow = workflow
        self._envs = root / "envs"
        with told_in_a_line():
            memo = DigestMemo(RESULTS / ".digests.json", log.info)
            self._config = load_config(raw, [Path(path) for path in workflow.configfiles])
            externals = ExternalRecords(RESULTS / ".externals.json")
            gpus = limit_gpus(workflow)
            self._plan = make_plan(self._config, self._envs, memo, externals, gpus)
            memo.save()
        self.ask = Ask(self._config, self._plan, workflow, raw)
        if self._config.auto and workflow.is_main_process:
            log.info(str(self._config.auto))
        if self._plan.unpinned:
            log.warning(refusals.unpinned_message(self._plan, workflow.configfiles))

    def refuse(self) -> None:
        """Exit with a line for what can be known to fail, before the first job."""
        with told_in_a_line():
            refusals.refuse_to_start(
                self._workflow, self._config, self._plan, self._envs, self.ask.engine.plan
            )

    def tell_report(self) -> None:
        """Say where the report is, if there is one: a part of the chain makes none."""
        page = RESULTS / "experiments" / self._plan.experiment / "report.html"
        if page.exists():
            print(f"report: {page}")


@contextmanager
def told_in_a_line() -> Iterator[None]:
    """Exit with code 1 and the message of a `WorkflowError`, and nothing else, on stderr."""
    try:
        yield
    except WorkflowError as error:
        sys.exit(f"error: {error}")


def make_programs_callable(root: Path) -> None:
    """Let `python -m scripts.NAME` work in rules, from any folder.

    `python` is the interpreter that runs Snakemake, whether or not its environment is activated.
    """
    first = {"PATH": str(Path(sys.executable).parent), "PYTHONPATH": str(root)}
    for variable, folder in first.items():
        rest = [part for part in os.environ.get(variable, "").split(os.pathsep) if part]
        os.environ[variable] = os.pathsep.join([folder, *(p for p in rest if p != folder)])
