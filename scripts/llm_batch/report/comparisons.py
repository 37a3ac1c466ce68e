"""The comparison of every two runs, and the verdicts of the gates, for the page and as CSV."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scripts.llm_batch.evaluation.comparing import MAIN_STATISTICS, Options, Scored, compare
from scripts.llm_batch.evaluation.gates import judge_gates
from scripts.llm_batch.evaluation.paired import FLIPS, SIGN_FLIP
from scripts.llm_batch.report import numbers
from scripts.llm_batch.report.records import Experiment, Run

MOST_LINES = 300
"""Lines of the page's table; all are in comparisons.csv."""

P_VALUES = ("p", "p_corrected")

COLUMNS = (
    "metric",
    "statistic",
    "a",
    "b",
    "rows",
    "value_a",
    "value_b",
    "difference",
    "low",
    "high",
    "interval",
    "p",
    "p_corrected",
    "p_at_most",
    "family",
    "significant",
    "test",
    "minimum_detectable",
    "agreement",
    "kappa",
    "kappa_low",
    "kappa_high",
)


@dataclass(frozen=True)
class Comparison:
    """What comparisons.json holds, and what of it the page shows."""

    document: Mapping[str, Any]
    labels: Mapping[str, str]

    @property
    def gates(self) -> Sequence[Mapping[str, Any]]:
        """The verdicts of the gates."""
        gates: Sequence[Mapping[str, Any]] = self.document["gates"]
        return gates

    @property
    def lines(self) -> list[Mapping[str, Any]]:
        """The comparisons that the page shows: the clearest ones if there are very many."""
        found: list[Mapping[str, Any]] = self.document["comparisons"]
        if len(found) <= MOST_LINES:
            return found
        return sorted(found, key=lambda one: one["p"])[:MOST_LINES]

    @property
    def metrics(self) -> list[str]:
        """The metrics that were compared."""
        return list(dict.fromkeys(one["metric"] for one in self.document["comparisons"]))

    @property
    def tests(self) -> list[str]:
        """The tests and intervals that were used."""
        found = {
            text
            for one in self.document["comparisons"]
            for text in (one["test"], one["interval"])
            if text
        }
        return sorted(found)

    def label(self, setting: str) -> str:
        """Return the short name of a setting."""
        return self.labels.get(setting, setting)

    @property
    def notable(self) -> bool:
        """Whether there is anything to show."""
        document = self.document
        return bool(
            document["comparisons"] or self.gates or document["seeds"] or "too_many" in document
        )


def compare_experiment(experiment: Experiment, identity: Mapping[str, Any]) -> Comparison:
    """Compare the runs of an experiment as the report's identity says, and judge its gates."""
    options: dict[str, Any] = {"baseline": None, "correction": "holm", "level": 0.95}
    options |= identity.get("comparisons", {})
    runs = [scored for run in experiment.runs if (scored := _scored(run)) is not None]
    document = compare(runs, Options(**options))
    for one in document["comparisons"]:
        # No drawn flip reached the difference: the p is a bound, whatever the evidence.
        one["p_at_most"] = one["test"] == SIGN_FLIP and one["p"] <= 1.0001 / (FLIPS + 1)
    document["gates"] = judge_gates(identity.get("gates", []), runs)
    short = {run.name: run.label for run in experiment.runs}
    labels = {setting["name"]: _label(setting, short) for setting in document["settings"]}
    return Comparison(rounded(document), labels)


def _label(setting: Mapping[str, Any], short: Mapping[str, str]) -> str:
    """Return a setting's short name; where it pools several seeds, none of them stands in it."""
    first = setting["runs"][0]
    name = short[first] if len(setting["runs"]) == 1 else re.sub(r"\+seed_\d+", "", short[first])
    return str(setting["name"]).replace(first, name, 1)


def p_text(one: Mapping[str, Any]) -> str:
    """Return the corrected p of a comparison: "≤" where the test cannot tell a smaller one."""
    p = float(one["p_corrected"])
    if p < 0.0001:
        return "< 0.0001"
    return ("≤ " if one["p_at_most"] else "") + numbers.decimal(p, 4)


def rounded(value: Any) -> Any:
    """Return figures with ten decimals: sums differ between processors, the file must not.

    A p value keeps digits however small it is, for it is never 0.
    """
    if isinstance(value, dict):
        return {
            key: float(f"{item:.6g}") if _is_p(key, item) else rounded(item)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return round(value, 10) if isinstance(value, float) else value


def _is_p(key: str, value: Any) -> bool:
    return key in P_VALUES and isinstance(value, float)


def _scored(run: Run) -> Scored | None:
    if run.evaluation is None:
        return None
    # A metric without any score has no figure, but gates may still name it; a task's metrics are
    # known by their figures only.
    statistics = dict.fromkeys(run.metrics.get("metrics", {}), "accuracy")
    statistics |= {
        value.metric: value.statistic
        for value in run.values
        if value.metric is not None and value.statistic in MAIN_STATISTICS
    }
    return Scored(run.name, run.identity, statistics, run.evaluation / "scores.parquet")
