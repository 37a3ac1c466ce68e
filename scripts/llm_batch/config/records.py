"""The records that a valid config becomes. Defaults are filled in; nothing refers to a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from scripts.llm_batch.doctor.choose import Choice

Backend = Literal["vllm", "dummy"]
Determinism = Literal["fast", "strict"]
BodySettings = Literal["refuse", "ignore"]
OnTooLong = Literal["error", "truncate_left", "truncate_right"]


@dataclass(frozen=True)
class Model:
    """A local folder (`path`), or a hub repository at a commit (None: not pinned yet).

    `files` are patterns in place of the usual choice, `code` the commits of other repositories
    whose code it runs, by name; `pickled` allows weights in pickle format.
    """

    name: str
    path: str | None
    repo: str | None
    revision: str | None
    files: tuple[str, ...] | None = None
    code: Mapping[str, str] | None = None
    pickled: bool = False


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter in PEFT format: a local folder (`path`), or a hub repository at a commit."""

    name: str
    path: str | None
    repo: str | None = None
    revision: str | None = None


@dataclass(frozen=True)
class Environment:
    """An interpreter that is there (`python`), or a description beside its locks (`file`).

    With neither it is that of the same name in envs/; `conda`: whether it has its conda layer.
    """

    name: str
    python: str | None
    file: str | None
    conda: bool


@dataclass(frozen=True)
class Engine:
    """`args` (identity) hold no value that is vLLM's default; `tuning` is placement."""

    name: str
    model: str
    environment: str
    backend: Backend
    args: Mapping[str, Any]
    tuning: Mapping[str, Any]
    dummy: Mapping[str, Any]


@dataclass(frozen=True)
class DataSet:
    """A data set on the hub at a commit (None: not pinned yet): its config and split, or files."""

    repo: str
    revision: str | None
    config: str | None
    split: str | None
    files: tuple[str, ...] | None


@dataclass(frozen=True)
class FewShot:
    """Rows that stand before every prompt: `count` drawn with `seed` from a file or a split.

    Without `path` and `split` they come from the data of the prompts themselves.
    """

    count: int
    seed: int
    path: str | None
    split: str | None
    filter: str | None
    template: str | None
    messages: tuple[Mapping[str, str], ...] | None


@dataclass(frozen=True)
class Prompts:
    """A data file and how its rows become prompts; `messages` hold `role` and `content`.

    `path` is empty for a data set of the hub, and where `from_runs` names one or two runs whose
    completions are the rows.
    A task of lm-evaluation-harness has `lm_eval` instead: `task` (a name or a YAML file) and the
    options that are given.
    """

    name: str
    path: str
    template: str | None
    messages: tuple[Mapping[str, str], ...] | None
    chat_template_kwargs: Mapping[str, Any]
    reference: str | None
    id: str | None
    limit: int | None
    on_too_long: OnTooLong
    data_set: DataSet | None = None
    filter: str | None = None
    sample_seed: int | None = None
    few_shot: FewShot | None = None
    body_settings: BodySettings = "refuse"
    from_runs: tuple[str, ...] = ()
    lm_eval: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Sampling:
    """vLLM SamplingParams (`params`, canonical, without n and seed), samples and seed.

    `by_task`: each request has the parameters that its task asks for, and `params` is empty.
    """

    name: str
    params: Mapping[str, Any]
    n: int
    seed: int
    by_task: bool = False


@dataclass(frozen=True)
class Metric:
    """A metric type with all its settings, defaults included."""

    name: str
    type: str
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Run:
    """Engine × adapter × prompts × sampling: the thing a paper's table has a row for."""

    name: str
    engine: str
    adapter: str | None
    prompts: str
    sampling: str
    metrics: tuple[str, ...]
    max_error_rate: float
    replicate: int
    determinism: Determinism


@dataclass(frozen=True)
class ReportOptions:
    """What the report shows: its heading (None: the experiment's name) and rows to browse.

    `price_per_gpu_hour` is None where cost is not to be told.
    """

    title: str | None
    rows: int
    price_per_gpu_hour: float | None = None
    currency: str = "USD"


@dataclass(frozen=True)
class Comparisons:
    """How runs are compared: with one run or every pair, corrected how, at which level."""

    baseline: str | None = None
    correction: str = "holm"
    level: float = 0.95


@dataclass(frozen=True)
class Config:
    """One experiment; every name in `runs` is a key of the section it names.

    `auto` is what `environment: auto` has been replaced by, None if no real engine said so.
    `wheelhouse` is the folder from which environments are built without a network.
    """

    experiment: str
    models: Mapping[str, Model]
    adapters: Mapping[str, Adapter]
    environments: Mapping[str, Environment]
    engines: Mapping[str, Engine]
    prompts: Mapping[str, Prompts]
    samplings: Mapping[str, Sampling]
    metrics: Mapping[str, Metric]
    runs: tuple[Run, ...]
    report: ReportOptions
    comparisons: Comparisons = Comparisons()
    gates: tuple[Mapping[str, Any], ...] = ()
    auto: Choice | None = None
    wheelhouse: str | None = None
