"""What each GPU did over time, from the samples that engine starts left beside their journals.

The samples are no output that the report depends on: where they are gone, or no driver was there
to be asked, there is no timeline.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from scripts.llm_batch.gpus.telemetry import INTERVAL_S, Sample, read_samples
from scripts.llm_batch.report.engines import Batch

MOST_STEPS = 240
"""A timeline has at most so many steps: more cannot be told apart on a page."""

MEASURES = ("utilization_percent", "memory_bytes", "power_w")


class Step(NamedTuple):
    """Means over one step of time, `seconds` after the first sample of the batch."""

    seconds: float
    utilization_percent: float | None
    memory_bytes: float | None
    power_w: float | None


@dataclass(frozen=True)
class Track:
    """One GPU: runs of steps without a gap between them, in order of time."""

    gpu: str
    stretches: tuple[tuple[Step, ...], ...]


@dataclass(frozen=True)
class Timeline:
    """The GPUs of a batch; `ready`: seconds at which its engines began to answer."""

    batch: Batch
    step_s: float
    tracks: tuple[Track, ...]
    ready: tuple[float, ...]

    def knows(self, measure: str) -> bool:
        """Whether the driver told a measure."""
        return any(
            getattr(step, measure) is not None
            for track in self.tracks
            for stretch in track.stretches
            for step in stretch
        )


def read_timelines(batches: Sequence[Batch]) -> list[Timeline]:
    """Return the timelines of the batches that have samples."""
    return [found for batch in batches if (found := _read(batch)) is not None]


def _read(batch: Batch) -> Timeline | None:
    samples: dict[str, list[tuple[float, Sample]]] = {}
    for path, began in _sample_files(batch):
        for gpu, found in read_samples(path).items():
            samples.setdefault(gpu, []).extend((began + one.seconds, one) for one in found)
    if not samples:
        return None
    times = [time for found in samples.values() for time, _ in found]
    first = min(times)
    step = max(INTERVAL_S, (max(times) - first) / MOST_STEPS)
    tracks = [
        Track(gpu, tuple(_stretches(found, first, step))) for gpu, found in sorted(samples.items())
    ]
    ready = tuple(sorted(time - first for time in _ready(batch) if time >= first))
    return Timeline(batch, step, tuple(tracks), ready)


def _sample_files(batch: Batch) -> Iterator[tuple[Path, float]]:
    """Yield the files of a batch's engine starts, and the time at which each of them began."""
    engines = batch.runs[0].folder.parent.parent / "engines"
    for folder in sorted(engines.glob(f"*-{batch.engine_address}/shards/{batch.name}.*")):
        records = {path.stem: path for path in folder.glob("*.json")}
        for path in sorted(folder.glob("*.gpus.jsonl")):
            stems = [stem for stem in records if path.name.startswith(f"{stem}.")]
            began = _time(records[max(stems, key=len)]) if stems else None
            if began is not None:
                yield path, began


def _time(record: Path) -> float | None:
    try:
        started: dict[str, Any] = json.loads(record.read_text("utf-8"))
        return datetime.fromisoformat(started["started"]).timestamp()
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _ready(batch: Batch) -> Iterator[float]:
    for shard in batch.runs[0].facts.get("shards") or []:
        for start in shard.get("engines") or []:
            startup = (start.get("startup_s") or {}).get("total")
            if startup is not None and start.get("started"):
                yield datetime.fromisoformat(start["started"]).timestamp() + startup


def _stretches(
    samples: Sequence[tuple[float, Sample]], first: float, step: float
) -> Iterator[tuple[Step, ...]]:
    steps: dict[int, list[Sample]] = {}
    for time, sample in samples:
        steps.setdefault(int((time - first) / step), []).append(sample)
    stretch: list[Step] = []
    last = None
    for number in sorted(steps):
        if last is not None and number - last > 2:
            yield tuple(stretch)
            stretch = []
        stretch.append(Step(round((number + 0.5) * step, 3), *_means(steps[number])))
        last = number
    yield tuple(stretch)


def _means(samples: Sequence[Sample]) -> Iterator[float | None]:
    for name in MEASURES:
        known = [v for one in samples if (v := getattr(one.reading, name)) is not None]
        yield round(fmean(known), 3) if known else None


def timeline_lines(timelines: Sequence[Timeline]) -> Iterator[Mapping[str, Any]]:
    """Yield the lines of the table: a step of a GPU."""
    for timeline in timelines:
        for track in timeline.tracks:
            for stretch in track.stretches:
                for step in stretch:
                    names = {"batch": timeline.batch.name, "gpu": track.gpu}
                    yield {**names, "step_s": timeline.step_s, **step._asdict()}
