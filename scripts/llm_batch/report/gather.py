"""From stage folders to the records of a report; completions stay in their files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts.llm_batch.addresses import address, folder_address, read_json
from scripts.llm_batch.errors import WorkflowError
from scripts.llm_batch.report.records import Experiment, Run, StageFolder, Value, name_parts

DEFAULT_ROWS = 2000
DEFAULT_LEVEL = 0.95


def gather(
    identity: Mapping[str, Any],
    runs: Sequence[Path],
    evaluations: Sequence[Path],
    command: str,
    replications: Sequence[Path] = (),
    config: Mapping[str, Any] | None = None,
) -> Experiment:
    """Read what the folders of runs, evaluations and replications say, in the order of `runs`.

    Raises `WorkflowError` for a missing or torn file and for folders that do not belong to
    `identity`.
    """
    entries = {entry["run"]: entry for entry in identity["evaluations"]}
    scored = {folder_address(folder): folder for folder in (*evaluations, *replications)}
    labels = short_labels([_name(folder) for folder in runs])
    options = identity.get("options") or {}
    rows = options.get("rows")
    records = [
        _read_run(index, folder, label, entries, scored)
        for index, (folder, label) in enumerate(zip(runs, labels, strict=True))
    ]
    return Experiment(
        name=identity["experiment"],
        title=options.get("title") or identity["experiment"],
        command=command,
        config=config or {},
        address=address("reports", identity),
        row_limit=DEFAULT_ROWS if rows is None else int(rows),
        price_per_gpu_hour=options.get("price_per_gpu_hour"),
        currency=str(options.get("currency") or ""),
        runs=tuple(records),
        models=_read_stages(records, "model", "models", "model.json"),
        environments=_read_stages(records, "environment", "environments", "environment.json"),
    )


def short_labels(names: Sequence[str]) -> list[str]:
    """Return run names without the parts (engine, prompts, sampling) that all of them share."""
    parts = [name_parts(name) for name in names]
    if len(names) < 2 or len({len(words) for words in parts}) > 1:
        return list(names)
    differ = [i for i in range(len(parts[0])) if len({words[i] for words in parts}) > 1]
    return [
        ".".join(words[i] for i in differ) or name for words, name in zip(parts, names, strict=True)
    ]


def _name(folder: Path) -> str:
    return folder.name.rpartition("-")[0]


def _read_run(
    index: int,
    folder: Path,
    label: str,
    entries: Mapping[str, Mapping[str, Any]],
    scored: Mapping[str, Path],
) -> Run:
    name = _name(folder)
    if name not in entries:
        raise WorkflowError(
            f"{folder}: the identity has no run of this name; give the runs it names"
        )
    entry = entries[name]
    evaluation = scored.get(entry["evaluation"])
    if evaluation is None:
        raise WorkflowError(
            f"{folder}: its evaluation {entry['evaluation']} is not among the evaluations"
        )
    metrics = read_json(evaluation / "metrics.json")
    replication = scored.get(entry.get("replication", ""))
    return Run(
        index=index,
        name=name,
        label=label,
        folder=folder,
        evaluation=evaluation,
        identity=read_json(folder / "identity.json")["identity"],
        facts=read_json(folder / "facts.json"),
        metrics=metrics,
        values=tuple(_read_value(value) for value in metrics["values"]),
        level=float(metrics.get("level") or DEFAULT_LEVEL),
        max_error_rate=entry.get("max_error_rate"),
        replication=read_json(replication / "replication.json") if replication else None,
    )


def _read_value(value: Mapping[str, Any]) -> Value:
    names = ("k", "value", "low", "high", "interval", "rows", "samples")
    rest = {name: value.get(name) for name in names}
    return Value(metric=value.get("metric"), statistic=value["statistic"], **rest)


def _read_stages(runs: Sequence[Run], key: str, stage: str, file: str) -> dict[str, StageFolder]:
    """Return the models or environments of `runs` that lie beside them, by address."""
    found = {}
    for run in runs:
        wanted = str(run.engine.get(key) or "")
        folders = sorted((run.folder.parent.parent / stage).glob(f"*-{wanted}")) if wanted else []
        for folder in folders[:1]:
            if (folder / "identity.json").is_file():
                path = folder / file
                found[wanted] = StageFolder(
                    name=_name(folder),
                    identity=read_json(folder / "identity.json")["identity"],
                    description=read_json(path) if path.is_file() else {},
                )
    return found
