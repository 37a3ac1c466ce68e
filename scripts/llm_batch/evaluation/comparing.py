"""Which runs of an experiment are compared, on which rows, and what comes out.

Runs that differ in the seed of their sampling only are one setting, measured several times: their
samples of a row are pooled, and the spread between seeds is told beside the interval over rows.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from numpy.typing import NDArray
from statsmodels.stats.multitest import multipletests

from scripts.llm_batch.addresses import canonical_json
from scripts.llm_batch.evaluation.agreement import cohen
from scripts.llm_batch.evaluation.paired import paired_difference
from scripts.llm_batch.evaluation.statistics import estimate_mean, estimate_share
from scripts.llm_batch.judged_fields import JUDGED_ROW

Floats = NDArray[np.float64]

FORM = frozenset(
    {
        *("template", "messages", "chat_template_kwargs", "on_too_long", "body_settings"),
        *("few_shot", "filter", "limit", "sample_seed"),
    }
)
"""What may differ between runs that are compared row by row: how rows are asked, and which."""

MAIN_STATISTICS = ("accuracy", "mean_score")
CORRECTIONS = {"holm": "holm", "benjamini_hochberg": "fdr_bh", "none": None}

MOST_PAIRS = 5000
"""Pairs that are compared: those of 100 settings. So many take half a minute; the correction for
them leaves little to be found, and nobody reads them."""

DEFINITIONS: Mapping[str, str] = {
    "difference": "mean over common rows of (b - a), of each row the mean over its samples",
    "p": "two-sided; of the test named in 'test'",
    "p_corrected": "corrected for all comparisons of one metric in this experiment: holm keeps the "
    "chance of any false find below 1 - level (Holm 1979), benjamini_hochberg the expected share "
    "of false ones among the finds (Benjamini and Hochberg 1995)",
    "interval": "of one comparison by itself, not corrected",
    "minimum_detectable": "true difference that a test at 1 - level finds with a chance of 80 %, "
    "given the spread of the rows' differences",
    "agreement": "share of completions of the same row and sample from which the metric took the "
    "same answer; kappa: beyond chance (Cohen 1960), with the interval of statsmodels",
    "between_seed_sd": "standard deviation of the mean over rows between runs that differ in "
    "their seed only; it is part of no interval",
}


@dataclass(frozen=True)
class Scored:
    """A run with its scores: `identity` is the run's, `statistics` names each metric's main one."""

    name: str
    identity: Mapping[str, Any]
    statistics: Mapping[str, str]
    scores: Path

    @property
    def data(self) -> str:
        """What tells prompts files apart: runs on the same one are compared row by row."""
        rows = {k: v for k, v in self.identity["prompts"].items() if k not in FORM}
        return canonical_json(rows)

    @property
    def setting(self) -> str:
        """The run's identity without the seed of its sampling."""
        sampling = {k: v for k, v in self.identity["sampling"].items() if k != "seed"}
        return canonical_json({**self.identity, "sampling": sampling})

    @cached_property
    def table(self) -> pd.DataFrame:
        """scores.parquet, with which time a row's id is there as `occurrence`."""
        # Not read_table: it would take "name=value" in a folder's name for a column.
        with pq.ParquetFile(self.scores) as file:
            table: pd.DataFrame = file.read().to_pandas()
        # A user's ids may repeat: a row begins where its first sample stands.
        begins = table["sample"] == table["sample"].min()
        return table.assign(occurrence=begins.groupby(table["row"]).cumsum())

    @cached_property
    def rows(self) -> pd.DataFrame:
        """Mean score of each row (index) on each metric (column); NaN where it has none.

        Of a run that judges, the row is that of the judged run.
        """
        keys = [JUDGED_ROW] if JUDGED_ROW in self.table else ["row", "occurrence"]
        means: pd.DataFrame = self.table.groupby(keys, sort=False)[list(self.statistics)].mean()
        return means

    def answers(self, metric: str) -> pd.Series[str]:
        """Return the answer that `metric` took from each completion that it scored."""
        scored = self.table[self.table[metric].notna()]
        keys = ["row", "occurrence", "sample"]
        answers: pd.Series[str] = scored.set_index(keys)[f"{metric}.extracted"]
        return answers


@dataclass(frozen=True)
class Setting:
    """One run, or several that differ in their seed only."""

    runs: tuple[Scored, ...]

    @property
    def name(self) -> str:
        """The name of its first run, and how many seeds it has."""
        more = f" ({len(self.runs)} seeds)" if len(self.runs) > 1 else ""
        return f"{self.runs[0].name}{more}"

    @property
    def metrics(self) -> list[str]:
        """The metrics that all of its runs have."""
        first, *others = self.runs
        return [name for name in first.statistics if all(name in o.statistics for o in others)]

    @cached_property
    def _values(self) -> dict[str, pd.Series[float]]:
        """Of each metric the mean of each row: a setting of many seeds takes part in many pairs."""
        columns = {name: [run.rows[name] for run in self.runs] for name in self.metrics}
        return {
            name: pd.concat(of_runs, axis=1, join="inner").mean(axis=1).dropna()
            for name, of_runs in columns.items()
        }

    def values(self, metric: str) -> pd.Series[float]:
        """Return the mean of each row over all its samples and seeds."""
        return self._values[metric]


@dataclass(frozen=True)
class Options:
    """How comparisons are made: `baseline` is a run's name, None for every pair."""

    baseline: str | None
    correction: str
    level: float


def settings_of(runs: Sequence[Scored]) -> list[Setting]:
    """Return the settings of an experiment, in the order of their first runs."""
    groups: dict[str, list[Scored]] = {}
    for run in runs:
        groups.setdefault(run.setting, []).append(run)
    return [Setting(tuple(group)) for group in groups.values()]


def compare(runs: Sequence[Scored], options: Options) -> dict[str, Any]:
    """Return comparisons.json without gates: figures of seeds, comparisons, what was left out."""
    settings = settings_of(runs)
    pairs = list(_pairs(settings, options.baseline))
    too_many = _too_many(len(settings), len(pairs))
    if too_many:
        pairs = []
    found = [record for a, b in pairs for record in _compared(a, b, options.level)]
    _correct(found, options)
    return {
        **({"too_many": too_many} if too_many else {}),
        "level": options.level,
        "correction": options.correction,
        "baseline": options.baseline,
        "settings": [
            {"name": one.name, "runs": [run.name for run in one.runs]} for one in settings
        ],
        "seeds": [record for one in settings for record in _seed_figures(one, options.level)],
        "comparisons": found,
        "absent": [
            {"a": a.name, "b": b.name, "reason": reason}
            for a, b in pairs
            if (reason := _incomparable(a, b)) is not None
        ],
        "definitions": dict(DEFINITIONS),
    }


def _pairs(settings: Sequence[Setting], baseline: str | None) -> Iterator[tuple[Setting, Setting]]:
    if baseline is None:
        yield from itertools.combinations(settings, 2)
        return
    first = next(one for one in settings if baseline in [run.name for run in one.runs])
    yield from ((first, one) for one in settings if one is not first)


def _too_many(settings: int, pairs: int) -> str | None:
    """Return why nothing is compared, None if all is."""
    if pairs <= MOST_PAIRS:
        return None
    return (
        f"{settings} settings make {pairs} pairs, more than {MOST_PAIRS}; name one run that the "
        "others are compared with (comparisons: {baseline: NAME})"
    )


def _incomparable(a: Setting, b: Setting) -> str | None:
    if a.runs[0].data != b.runs[0].data:
        return "their prompts are not of the same rows"
    if not set(a.metrics) & set(b.metrics):
        return "they have no metric in common"
    return None


def _compared(a: Setting, b: Setting, level: float) -> Iterator[dict[str, Any]]:
    if _incomparable(a, b) is not None:
        return
    for metric in [name for name in a.metrics if name in b.metrics]:
        both = pd.concat([a.values(metric), b.values(metric)], axis=1, join="inner")
        if both.empty:
            continue
        left, right = (both.iloc[:, side].to_numpy(dtype=np.float64) for side in (0, 1))
        difference = asdict(paired_difference(left, right, level))
        yield {
            "metric": metric,
            "statistic": a.runs[0].statistics[metric],
            "a": a.name,
            "b": b.name,
            "value_a": float(left.mean()),
            "value_b": float(right.mean()),
            "difference": difference.pop("value"),
            **difference,
            **_agreement(a, b, metric),
        }


def _agreement(a: Setting, b: Setting, metric: str) -> dict[str, float | None]:
    """Return how far the answers of two runs agree; nothing where they give none, or of seeds."""
    if len(a.runs) + len(b.runs) > 2:
        return {}
    sides = [setting.runs[0].answers(metric) for setting in (a, b)]
    both = pd.concat(sides, axis=1, join="inner")
    if both.empty or both.isna().to_numpy().all():
        return {}
    left, right = (
        [None if pd.isna(value) else str(value) for value in both.iloc[:, side]] for side in (0, 1)
    )
    return cohen(left, right)


def _correct(found: Sequence[dict[str, Any]], options: Options) -> None:
    """Add `p_corrected` and `significant`; the comparisons of one metric are one family."""
    for metric in dict.fromkeys(record["metric"] for record in found):
        family = [record for record in found if record["metric"] == metric]
        method = CORRECTIONS[options.correction]
        corrected = [record["p"] for record in family]
        if method is not None:
            corrected = multipletests(corrected, method=method)[1].tolist()
        for record, p in zip(family, corrected, strict=True):
            record["p_corrected"] = p
            record["family"] = len(family)
            record["significant"] = p < 1 - options.level and not math.isclose(p, 1 - options.level)


def _seed_figures(setting: Setting, level: float) -> Iterator[dict[str, Any]]:
    """Yield the pooled figure of each metric of a setting that has several seeds."""
    if len(setting.runs) < 2:
        return
    for metric in setting.metrics:
        pooled = np.asarray(setting.values(metric), dtype=np.float64)
        if len(pooled) == 0:
            continue
        statistic = setting.runs[0].statistics[metric]
        estimate_of = estimate_share if statistic == "accuracy" else estimate_mean
        means = [float(run.rows[metric].mean()) for run in setting.runs]
        yield {
            "setting": setting.name,
            "metric": metric,
            "statistic": statistic,
            "seeds": len(means),
            **asdict(estimate_of(pooled, level)),
            "between_seed_sd": statistics.stdev(means),
            "lowest": min(means),
            "highest": max(means),
        }
