"""From a config without problems to its records: defaults filled in, equal settings made equal."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts.llm_batch.config.errors import ConfigPath
from scripts.llm_batch.config.records import (
    Adapter,
    Comparisons,
    Config,
    DataSet,
    Engine,
    Environment,
    FewShot,
    Metric,
    Model,
    Prompts,
    ReportOptions,
    Run,
    Sampling,
)
from scripts.llm_batch.config.sampling import normalise_sampling
from scripts.llm_batch.config.schema import defaults, engine_schema, load_schema
from scripts.llm_batch.evaluation.metric_types import METRIC_TYPES, needs_reference
from scripts.llm_batch.judged_fields import FAVOURED
from scripts.llm_batch.models.adapters import NO_ADAPTER
from scripts.llm_batch.tasks.identity import OPTIONS, is_file

TASK_SAMPLING = "task"
"""Stands for a sampling in a run: each request has the parameters that its task asks for."""

OWN = "python"
"""The metric type whose path is one of the config's paths."""

NO_ENVIRONMENT = "none"
"""Stands for the environment of a dummy engine that names none."""

OWN_TUNING = ("shards", "stall_timeout_s", "start_timeout_s", "max_restarts")
"""Settings that `generate` obeys itself; the others are vLLM's, which knows their defaults."""

_SAME_DTYPE: Mapping[str, str] = {"half": "float16", "float": "float32"}


def build_config(config: Mapping[str, Any]) -> Config:
    """Return the records of a plain config that has passed all checks."""
    return Config(
        experiment=config["experiment"],
        models={name: _model(name, entry) for name, entry in config["models"].items()},
        adapters={
            name: _adapter(name, entry) for name, entry in config.get("adapters", {}).items()
        },
        environments={
            name: _environment(name, entry)
            for name, entry in config.get("environments", {}).items()
        },
        engines={name: _engine(name, entry) for name, entry in config["engines"].items()},
        prompts={name: _prompts(name, entry) for name, entry in config["prompts"].items()},
        samplings=_samplings(config),
        metrics={name: _metric(name, entry) for name, entry in config.get("metrics", {}).items()},
        runs=tuple(run for _, run in expand_runs(config)),
        report=_report(config.get("report", {})),
        comparisons=_comparisons(config.get("comparisons", {})),
        gates=tuple(_gate(entry) for entry in config.get("gates", [])),
        wheelhouse=local_path(config["wheelhouse"]) if "wheelhouse" in config else None,
    )


def local_path(text: str) -> str:
    """Return a path of the config with a leading `~` replaced by the home folder."""
    return str(Path(text).expanduser()) if text.startswith("~") else text


def _model(name: str, entry: Mapping[str, Any]) -> Model:
    path = local_path(entry["path"]) if "path" in entry else None
    return Model(
        name=name,
        path=path,
        repo=entry.get("repo"),
        revision=entry.get("revision"),
        files=tuple(entry["files"]) if "files" in entry else None,
        code=dict(entry["code"]) if "code" in entry else None,
        pickled=entry.get("pickled", False),
    )


def _adapter(name: str, entry: Mapping[str, Any]) -> Adapter:
    path = local_path(entry["path"]) if "path" in entry else None
    return Adapter(name, path, entry.get("repo"), entry.get("revision"))


def _environment(name: str, entry: Mapping[str, Any]) -> Environment:
    python, file = (local_path(entry[key]) if key in entry else None for key in ("python", "file"))
    return Environment(name, python, file, bool(entry.get("conda", True)))


def _engine(name: str, entry: Mapping[str, Any]) -> Engine:
    dummy = engine_schema("dummy")
    return Engine(
        name=name,
        model=entry["model"],
        environment=entry.get("environment", NO_ENVIRONMENT),
        backend=entry.get("backend", "vllm"),
        args=normalise_args(entry.get("args", {})),
        tuning={**_own_defaults(), **_given(engine_schema("tuning"), entry.get("tuning", {}))},
        dummy=_given(dummy, {**defaults(dummy), **entry.get("dummy", {})}),
    )


def normalise_args(args: Mapping[str, Any]) -> dict[str, Any]:
    """Return engine arguments without vLLM's defaults, and spelled in one way."""
    schema = engine_schema("args")
    standard = defaults(schema)
    kept: dict[str, Any] = {}
    for key in schema["properties"]:
        value = _number(schema["properties"][key], args.get(key, standard[key]))
        if key == "dtype":
            value = _SAME_DTYPE.get(value, value)
        elif key == "attention_backend" and value is not None:
            value = value.upper()
        elif key == "structured_outputs_config" and value.get("backend") == "auto":
            value = {}
        if value != standard[key]:
            kept[key] = value
    return kept


def _number(schema: Mapping[str, Any], value: Any) -> Any:
    """JSON Schema takes 4.0 for a whole number; vLLM does not."""
    if isinstance(value, float) and "integer" in schema["type"]:
        return int(value)
    return value


def _given(schema: Mapping[str, Any], entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings but those that are null."""
    return {
        key: _number(schema["properties"][key], value)
        for key, value in entry.items()
        if value is not None
    }


def _own_defaults() -> Mapping[str, Any]:
    tuning = defaults(engine_schema("tuning"))
    return {key: tuning[key] for key in OWN_TUNING}


def _prompts(name: str, entry: Mapping[str, Any]) -> Prompts:
    messages = entry.get("messages")
    limit = entry.get("limit")
    return Prompts(
        name=name,
        path=local_path(entry.get("path", "")),
        template=entry.get("template"),
        messages=_messages(messages),
        chat_template_kwargs=dict(entry.get("chat_template_kwargs", {})),
        reference=reference_of(entry),
        id=entry.get("id", "id" if judged_names(entry) else None),
        limit=None if limit is None else int(limit),
        on_too_long=entry.get("on_too_long", "error"),
        lm_eval=_task(entry) if "lm_eval_task" in entry else None,
        data_set=data_set_of(entry) if "dataset" in entry else None,
        filter=entry.get("filter"),
        sample_seed=None if entry.get("sample_seed") is None else int(entry["sample_seed"]),
        few_shot=few_shot_of(entry["few_shot"]) if entry.get("few_shot") else None,
        body_settings=entry.get("body_settings", "refuse"),
        from_runs=tuple(judged_names(entry)),
    )


def _messages(messages: Sequence[Mapping[str, str]] | None) -> tuple[dict[str, str], ...] | None:
    return None if messages is None else tuple(dict(message) for message in messages)


def data_set_of(entry: Mapping[str, Any]) -> DataSet:
    """Return the data set that an entry of prompts, or the identity made of one, names."""
    files = entry.get("files")
    return DataSet(
        repo=entry["dataset"],
        revision=entry.get("revision"),
        config=entry.get("config"),
        split=entry.get("split"),
        files=None if files is None else tuple(files),
    )


def few_shot_of(entry: Mapping[str, Any]) -> FewShot:
    """Return the examples that `few_shot`, or the identity made of it, describes."""
    return FewShot(
        count=int(entry["count"]),
        seed=int(entry.get("seed", 0)),
        path=local_path(entry["path"]) if "path" in entry else None,
        split=entry.get("split"),
        filter=entry.get("filter"),
        template=entry.get("template"),
        messages=_messages(entry.get("messages")),
    )


def judged_names(entry: Mapping[str, Any]) -> list[str]:
    """Return the runs that an entry of prompts is made from; none for a file."""
    return [entry["from_run"]] if "from_run" in entry else list(entry.get("from_runs", []))


def reference_of(entry: Mapping[str, Any]) -> str | None:
    """Return the field with the right answer; of two runs it is the letter of the first."""
    reference: str | None = entry.get("reference", FAVOURED if "from_runs" in entry else None)
    return reference


def _task(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a task that are not the harness's defaults, under its names."""
    section = load_schema()["properties"]["prompts"]["additionalProperties"]
    standard = defaults(section)
    options = {key: entry.get(key, standard[key]) for key in OPTIONS}
    task = entry["lm_eval_task"]
    return {
        "task": local_path(task) if is_file(task) else task,
        **{
            key: _number(section["properties"][key], value)
            for key, value in options.items()
            if value != standard[key]
        },
    }


def _samplings(config: Mapping[str, Any]) -> dict[str, Sampling]:
    """Return the samplings, and beside them the one that stands for what a task asks for."""
    samplings = {name: _sampling(name, entry) for name, entry in config["samplings"].items()}
    if any(TASK_SAMPLING in names_of(entry["sampling"]) for entry in config["runs"]):
        samplings[TASK_SAMPLING] = Sampling(TASK_SAMPLING, {}, 1, 0, by_task=True)
    return samplings


def _sampling(name: str, entry: Mapping[str, Any]) -> Sampling:
    return Sampling(
        name, normalise_sampling(entry), int(entry.get("n", 1)), int(entry.get("seed", 0))
    )


def _metric(name: str, entry: Mapping[str, Any]) -> Metric:
    settings = METRIC_TYPES[entry["type"]].settings
    values = {key: entry.get(key, setting.default) for key, setting in settings.items()}
    if entry["type"] == OWN:
        values["path"] = local_path(entry["path"])
    return Metric(name, entry["type"], values)


def _comparisons(entry: Mapping[str, Any]) -> Comparisons:
    values = {**defaults(load_schema()["properties"]["comparisons"]), **entry}
    return Comparisons(values["baseline"], values["correction"], float(values["level"]))


def _gate(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {**defaults(load_schema()["properties"]["gates"]["items"]), **entry}


def _report(entry: Mapping[str, Any]) -> ReportOptions:
    values = {**defaults(load_schema()["properties"]["report"]), **entry}
    price = values["price_per_gpu_hour"]
    return ReportOptions(
        values["title"],
        int(values["rows"]),
        None if price is None else float(price),
        values["currency"],
    )


def expand_runs(config: Mapping[str, Any]) -> Iterator[tuple[ConfigPath, Run]]:
    """Yield every combination of each entry of runs, with the entry's place in the config."""
    for position, entry in enumerate(config["runs"]):
        choices = [names_of(entry[key]) for key in ("engine", "prompts", "sampling")]
        adapters = names_of(entry.get("adapter", NO_ADAPTER))
        for engine, adapter, prompts, sampling in itertools.product(
            choices[0], adapters, *choices[1:]
        ):
            run = Run(
                name=entry.get("name", f"{adapted_name(engine, adapter)}.{prompts}.{sampling}"),
                engine=engine,
                adapter=None if adapter == NO_ADAPTER else adapter,
                prompts=prompts,
                sampling=sampling,
                metrics=_metrics_of(entry, config["prompts"].get(prompts, {}), config),
                max_error_rate=float(entry.get("max_error_rate", 0.01)),
                replicate=int(entry.get("replicate", 0)),
                determinism=entry.get("determinism", "fast"),
            )
            yield ("runs", position), run


def adapted_name(engine: str, adapter: str) -> str:
    """Return what stands for an engine with an adapter in the name of a run."""
    return engine if adapter == NO_ADAPTER else f"{engine}+{adapter}"


def names_of(value: str | list[str]) -> list[str]:
    """Return one name or a list of names as a list."""
    return [value] if isinstance(value, str) else value


def _metrics_of(
    entry: Mapping[str, Any], prompts: Mapping[str, Any], config: Mapping[str, Any]
) -> tuple[str, ...]:
    if "metrics" in entry:
        return tuple(dict.fromkeys(names_of(entry["metrics"])))
    return tuple(
        name
        for name, metric in config.get("metrics", {}).items()
        if reference_of(prompts) or not needs_reference(metric["type"], metric)
    )
