"""What a report is made from: runs with their identities, facts and figures."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from scripts.llm_batch.addresses import address, canonical_json, folder_address
from scripts.llm_batch.evaluation.comparing import FORM

DUMMY = "dummy"

_SWEPT_NUMBER = re.compile(r"(\+[A-Za-z0-9_-]+_-?[0-9]+)\.([0-9])")
_POINT = "\0"


def _sum(values: Iterable[int | None]) -> int | None:
    """Return the sum; None if anything in it is unknown."""
    known = list(values)
    return None if None in known else sum(value or 0 for value in known)


def name_parts(name: str) -> list[str]:
    """Return the parts of a run's name; the point in `+top_p_0.8`, made by a sweep, cuts none."""
    plain = name.split(".")
    if len(plain) == 3:
        return plain
    kept = _SWEPT_NUMBER.sub(rf"\1{_POINT}\2", name)
    return [part.replace(_POINT, ".") for part in kept.split(".")]


@dataclass(frozen=True)
class Value:
    """One figure of a run; `metric` is None for figures that need no reference."""

    metric: str | None
    statistic: str
    k: int | None
    value: float | None
    low: float | None
    high: float | None
    interval: str | None
    rows: int | None
    samples: int | None


@dataclass(frozen=True)
class Run:
    """A run as its folder, its evaluation and the report's identity describe it."""

    index: int
    name: str
    label: str
    folder: Path
    evaluation: Path | None
    identity: Mapping[str, Any]
    facts: Mapping[str, Any]
    metrics: Mapping[str, Any]
    values: tuple[Value, ...]
    level: float
    max_error_rate: float | None
    replication: Mapping[str, Any] | None = None

    @property
    def address(self) -> str:
        """The address of the run."""
        return folder_address(self.folder)

    @property
    def parts(self) -> tuple[str | None, str | None, str | None]:
        """The names of engine, prompts and sampling, where the run's name tells them.

        A LoRA adapter stands with the engine: `<engine>+<adapter>`.
        """
        words = name_parts(self.name)
        if len(words) == 3:
            return words[0], words[1], words[2]
        engine, _, _ = str(self.facts.get("batch") or "").rpartition("-")
        return engine or None, None, None

    @property
    def engine_name(self) -> str | None:
        """The name of the engine, without that of an adapter."""
        name = self.parts[0]
        if name is None or "adapter" not in self.identity:
            return name
        return name.rpartition("+")[0] or name

    @property
    def engine(self) -> Mapping[str, Any]:
        """The identity of the engine."""
        found: Mapping[str, Any] = self.identity["engine"]
        return found

    @property
    def prompts(self) -> Mapping[str, Any]:
        """The identity of the prompts."""
        found: Mapping[str, Any] = self.identity["prompts"]
        return found

    @property
    def engine_address(self) -> str:
        """The address of the engine."""
        return address("engines", self.engine)

    @property
    def prompts_address(self) -> str:
        """The address of the prompts."""
        return address("prompts", self.prompts)

    @property
    def is_dummy(self) -> bool:
        """Whether the answers come from the dummy engine, that is from no model."""
        return bool(self.engine.get("backend") == DUMMY)

    @property
    def params(self) -> Mapping[str, Any]:
        """The sampling parameters that were sent, without n and seed."""
        found: Mapping[str, Any] = self.identity["sampling"]["params"]
        return found

    @property
    def unscored(self) -> list[Mapping[str, Any]]:
        """The metrics that came to nothing, each with `metric`, `statistic` and `reason`."""
        main = ("accuracy", "mean_score", "score")
        return [one for one in self.metrics.get("absent", ()) if one["statistic"] in main]

    @property
    def n(self) -> int:
        """Samples of each prompt."""
        return int(self.identity["sampling"]["n"])

    @property
    def seed(self) -> int | None:
        """The sampling's seed; None for a greedy sampling."""
        found: int | None = self.identity["sampling"].get("seed")
        return found

    @property
    def data(self) -> str:
        """What tells prompts files apart: runs on the same file can be compared row by row."""
        if "lm_eval" in self.prompts:
            return canonical_json(self.prompts)
        return canonical_json(
            {k: v for k, v in self.prompts.items() if k not in (*FORM, "reference")}
        )

    @property
    def completions(self) -> int | None:
        """Completions, errors among them."""
        found: int | None = self.facts.get("completions")
        return found

    @property
    def requested(self) -> int | None:
        """Completions that an engine had to be asked for, now or earlier."""
        found: int | None = self.facts.get("requested")
        return (
            _sum([self.facts.get("reused"), self.facts.get("answered")]) if found is None else found
        )

    @property
    def errors(self) -> int | None:
        """Completions that are errors."""
        found = self.facts.get("errors")
        return None if found is None else sum(found.values())

    @property
    def too_many_errors(self) -> bool:
        """Whether more completions are errors than the config allows."""
        errors, total, limit = self.errors, self.completions, self.max_error_rate
        return bool(errors and total and limit is not None and errors / total > limit)

    @property
    def truncated(self) -> int | None:
        """Completions that ended at max_tokens."""
        found = self.facts.get("finish_reasons")
        return None if found is None else int(found.get("length", 0))

    def find(self, metric: str | None, statistic: str, k: int | None = None) -> Value | None:
        """Return the figure of that name; without `k` the one with the largest k."""
        found = [v for v in self.values if (v.metric, v.statistic) == (metric, statistic)]
        if k is not None:
            found = [v for v in found if v.k == k]
        return max(found, key=lambda v: v.k or 0, default=None)

    def curve(self, metric: str, statistic: str) -> list[Value]:
        """Return the figures of that name in the order of their k."""
        found = [v for v in self.values if (v.metric, v.statistic) == (metric, statistic)]
        return sorted(found, key=lambda v: v.k or 0)


@dataclass(frozen=True)
class Experiment:
    """Everything the page tells, apart from the completions, which stay in their files."""

    name: str
    title: str
    command: str
    config: Mapping[str, Any]
    address: str
    row_limit: int
    price_per_gpu_hour: float | None
    currency: str
    runs: tuple[Run, ...]
    models: Mapping[str, StageFolder]
    environments: Mapping[str, StageFolder]

    @cached_property
    def metrics(self) -> list[str]:
        """The metrics of all runs, in order of first appearance."""
        named = (v.metric for run in self.runs for v in run.values if v.metric is not None)
        return list(dict.fromkeys(named))

    @property
    def reused(self) -> int | None:
        """Answers that were there already."""
        return _sum(run.facts.get("reused") for run in self.runs)

    @property
    def requested(self) -> int | None:
        """Answers that the runs needed, of whatever origin."""
        return _sum(run.requested for run in self.runs)

    def batches(self) -> Iterator[tuple[str, list[Run]]]:
        """Yield each batch once with the runs of this report that it answered."""
        runs: dict[str, list[Run]] = {}
        for run in self.runs:
            runs.setdefault(str(run.facts.get("batch")), []).append(run)
        yield from runs.items()


@dataclass(frozen=True)
class StageFolder:
    """The stage folder of a model or an environment: its name, identity and description."""

    name: str
    identity: Mapping[str, Any]
    description: Mapping[str, Any]
