"""One engine start: the worker's settings and files, and following it to its end."""

from __future__ import annotations

import json
import logging
import os
import platform
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from scripts.llm_batch.addresses import utc_now, write_json_atomic
from scripts.llm_batch.generate.company import compile_cache
from scripts.llm_batch.generate.facts import Attempt, start_record
from scripts.llm_batch.generate.gpus import Lease
from scripts.llm_batch.generate.guard import Guard
from scripts.llm_batch.generate.nodes import Nodes, Others
from scripts.llm_batch.generate.process import WorkerProcess
from scripts.llm_batch.generate.progress import Progress, Watchdog, read_status
from scripts.llm_batch.generate.requests import Part, Requests, write_parts
from scripts.llm_batch.generate.settings import (
    EngineSpec,
    dropped_variables,
    engine_arguments,
    switches,
    worker_environment,
)
from scripts.llm_batch.gpus.devices import VISIBLE
from scripts.llm_batch.gpus.telemetry import watched
from scripts.llm_batch.slurm import job_facts

POLL_S = 0.25

STOPPED = (143, -signal.SIGTERM)
"""How a worker ends that got SIGTERM: by itself, or before it could take it."""

log = logging.getLogger(__name__)


class Interrupted(Exception):
    """The supervisor was asked to stop; `number` is the signal."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class StopFlag:
    """Remembers that a signal came, or that the workflow which started this is gone."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._guard: Guard | None = None

    def install(self) -> None:
        """Take SIGTERM (schedulers, preemption) and SIGINT (Ctrl-C), and mind the workflow."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note)
        self._guard = Guard()

    def _note(self, number: int, _frame: Any) -> None:
        self.number = number

    def check(self) -> None:
        """Raise `Interrupted` if it is time to stop."""
        if self.number is None and self._guard is not None and self._guard.abandoned():
            log.warning("the workflow that started this has ended")
            self.number = signal.SIGTERM
        if self.number is not None:
            raise Interrupted(self.number)


@dataclass(frozen=True)
class Shard:
    """What is to be answered and where things lie. `folder` holds state that people may look at.

    `header` goes into the journals' first lines.
    """

    name: str
    requests: Requests
    journals: Path
    folder: Path
    header: Mapping[str, Any]


@dataclass(frozen=True)
class Ended:
    """How a worker ended: its exit code, or what it failed to do in time and was killed for.

    `wall_s` are the seconds from its start until nothing of it was left. `lost`: its process on
    another node ended first, with this log; `code` is then that process's.
    """

    code: int | None
    hung: str | None
    interrupted: Interrupted | None = None
    wall_s: float | None = None
    lost: Path | None = None

    @property
    def name(self) -> str:
        """Return how the facts call it."""
        if self.interrupted is not None:
            return "interrupted"
        if self.hung is not None:
            return "hung"
        return "finished" if self.code == 0 else "crashed"


def get_ready_to_write() -> None:
    """Import what writes the answers, half a second of a processor, beside a starting engine."""
    from scripts.llm_batch.generate import results

    results.get_ready()


class Launcher:
    """Starts workers for one shard and follows them."""

    def __init__(
        self,
        spec: EngineSpec,
        shard: Shard,
        stop: StopFlag,
        progress: Progress,
        gpus: Lease,
    ) -> None:
        self._spec = spec
        self._shard = shard
        self._stop = stop
        self._progress = progress
        self._gpus = gpus
        self._cache = compile_cache(spec, gpus.model, os.environ)
        self._compiled = self._cache.variables if self._cache else {}
        self._nodes = Nodes(spec, gpus.size, gpus.environment)
        self._environment = {
            **worker_environment(spec, os.environ),
            **gpus.environment,
            **self._compiled,
            **self._nodes.variables(),
        }
        self._defaults, self._arguments = engine_arguments(spec)
        self._starts = 0
        if ignored := sorted(name for name in dropped_variables(os.environ) if "VLLM" in name):
            log.warning("ignored, for they could change answers: %s", ", ".join(ignored))

    def new_attempt(self) -> Attempt:
        """Return the files of the next engine start."""
        now = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        stem = f"{self._shard.name}.{now}.{os.getpid()}-{self._starts}"
        return Attempt(stem, self._shard.folder, self._shard.journals)

    def write_parts(self, positions: Sequence[int]) -> list[Part]:
        """Write the requests at `positions` to where the worker reads them."""
        wanted = set(positions)
        lines = self._shard.requests.lines(wanted.__contains__)
        apart = self._spec.device == "cpu" and self._spec.backend != "dummy"
        return write_parts(lines, self._shard.folder, apart)

    def run(self, attempt: Attempt, parts: list[Part], window: int | None) -> Ended:
        """Run a worker to its end, whatever that is; nothing of it is left running."""
        with self._starting() as cache:
            return self._run(attempt, self._write_settings(attempt, parts, window), cache)

    def _starting(self) -> AbstractContextManager[str | None]:
        if self._cache is None:
            return nullcontext()
        return self._cache.starting(self._stop.check, self._progress.waiting)

    def _run(self, attempt: Attempt, settings: Path, cache: str | None) -> Ended:
        first = {
            "backend": self._spec.backend,
            "switches": switches(self._spec),
            "gpus": list(self._gpus.uuids),
            "visible_gpus": self._environment.get(VISIBLE),
            "slurm": job_facts(os.environ),
            "nodes": self._spec.nodes,
            "compile_cache": cache,
            "started": utc_now(),
        }
        start_record(attempt, first)
        self._starts += 1
        log.info("%s: starting an engine, its log is %s", self._shard.name, attempt.log)
        began = time.monotonic()
        with watched(self._gpus.source(), self._gpus.uuids, attempt.telemetry):
            told = json.loads(settings.read_bytes())
            stem = self._shard.folder / attempt.stem
            with self._nodes.joined(told, stem, self._compiled) as others:
                ended = self._run_process(settings, attempt, others)
        return replace(ended, wall_s=round(time.monotonic() - began, 3))

    def _run_process(self, settings: Path, attempt: Attempt, others: Others) -> Ended:
        process = WorkerProcess(self._spec.interpreter, settings, self._environment, attempt.log)
        threading.Thread(target=get_ready_to_write).start()
        try:
            return self._follow(process, attempt, others)
        except Interrupted as error:
            return Ended(process.stop(), None, error)
        finally:
            process.end()

    def _follow(self, process: WorkerProcess, attempt: Attempt, others: Others) -> Ended:
        watchdog = Watchdog(self._spec.supervisor, time.monotonic())
        status_path = self._shard.folder / "status.json"
        while (code := process.wait(POLL_S)) is None:
            self._stop.check()
            # The worker writes its first facts when the engine is ready.
            if self._cache is not None and attempt.engine.exists():
                self._cache.engine_is_ready()
            now = time.monotonic()
            status = read_status(status_path)
            if line := self._progress.update(status, now, attempt.log):
                log.info("%s", line)
            if hung := watchdog.hung(status, now):
                return Ended(None, hung)
            if (lost := others()) is not None:
                return Ended(lost, None, lost=attempt.other_log())
        if code in STOPPED:
            # SLURM signals all processes of a job at once: ours may come a moment later.
            time.sleep(POLL_S)
            self._stop.check()
        return Ended(code, None)

    def _write_settings(self, attempt: Attempt, parts: list[Part], window: int | None) -> Path:
        folder = self._shard.folder
        for name in ("status.json", "progress"):
            (folder / name).unlink(missing_ok=True)
        spec = self._spec
        settings = {
            "backend": spec.backend,
            "determinism": spec.determinism,
            "model": str(spec.model or ""),
            "adapters": {adapter.address: str(adapter.path) for adapter in spec.adapters},
            "defaults": self._defaults,
            "args": {**self._arguments, **self._nodes.arguments()},
            "dummy": dict(spec.dummy),
            "requests": [str(part.path) for part in parts],
            "window": window,
            "start": self._starts,
            "spawned": time.time(),
            "journal": str(attempt.journal),
            "header": {
                "backend": spec.backend,
                "started": utc_now(),
                "host": platform.node(),
                "pid": os.getpid(),
                **self._shard.header,
            },
            "progress": str(folder / "progress"),
            "status": str(folder / "status.json"),
            "facts": str(attempt.engine),
            "total": sum(len(part.positions) for part in parts),
        }
        path = folder / "settings.json"
        write_json_atomic(path, settings)
        return path
