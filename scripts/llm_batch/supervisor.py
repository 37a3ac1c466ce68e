"""The supervisor: has a shard's open requests answered, however often engines die.

It starts a worker with the requests that no journal answers yet, watches it, reads its journal
when it has ended, and starts over until every request has an answer or an error.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import shutil
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripts.llm_batch.addresses import utc_now, write_json_atomic
from scripts.llm_batch.errors import WorkflowError
from scripts.llm_batch.generate_journal import AnswerIndex
from scripts.llm_batch.generate_requests import Part, Requests, write_parts
from scripts.llm_batch.supervisor_deaths import Action, Deaths, Decision
from scripts.llm_batch.supervisor_diagnosis import describe_exit, diagnose, last_lines, read_tail
from scripts.llm_batch.supervisor_facts import Attempt, finish_record, start_record
from scripts.llm_batch.supervisor_process import WorkerProcess
from scripts.llm_batch.supervisor_progress import Progress, Watchdog, read_status
from scripts.llm_batch.supervisor_settings import (
    EngineSpec,
    engine_arguments,
    switches,
    worker_environment,
)

POLL_S = 0.25

EXIT_FINISHED = 0
EXIT_REFUSED = 3
EXIT_JOURNAL = 74
"""As in scripts/worker/run.py, which cannot be imported: it is another program's."""

log = logging.getLogger(__name__)


class Interrupted(Exception):
    """A signal asked the supervisor to stop; `number` is which."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class StopFlag:
    """Remembers that a signal came."""

    def __init__(self) -> None:
        self.number: int | None = None

    def install(self) -> None:
        """Take SIGTERM (schedulers, preemption) and SIGINT (Ctrl-C)."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note)

    def _note(self, number: int, _frame: Any) -> None:
        self.number = number

    def check(self) -> None:
        """Raise `Interrupted` if a signal came."""
        if self.number is not None:
            raise Interrupted(self.number)


@dataclass(frozen=True)
class Shard:
    """What is to be answered and where things lie. `folder` holds state that people may look at."""

    name: str
    requests: Requests
    journals: Path
    folder: Path
    header: Mapping[str, Any]


@dataclass(frozen=True)
class Outcome:
    """How an engine start ended."""

    started: bool
    code: int | None
    hung: str | None
    answered: int
    held: tuple[int, ...]
    attempt: Attempt


@dataclass
class Supervisor:
    """Answers one shard."""

    spec: EngineSpec
    shard: Shard
    index: AnswerIndex
    stop: StopFlag
    environment: Mapping[str, str]
    gpus: Sequence[str] = ()
    records: list[dict[str, Any]] = field(default_factory=list)
    deaths: Deaths = field(init=False)
    _progress: Progress = field(init=False)

    def __post_init__(self) -> None:
        self.deaths = Deaths(self.spec.supervisor.max_restarts)
        self._progress = Progress(self.shard.name, len(self.shard.requests), self.index.count())
        self._arguments = engine_arguments(self.spec)

    def run(self) -> None:
        """Answer every open request; raises `WorkflowError` when that cannot be done."""
        decision: Decision | None = Decision(Action.ANSWER_OPEN)
        while decision is not None:
            self.stop.check()
            positions = self._positions(decision)
            if not positions:
                decision = self.deaths.finished()
                if not self.index.open_positions():
                    return
                continue
            outcome = self._answer(positions, decision.window or self.spec.supervisor.window)
            decision = self._decide(outcome)

    def _positions(self, decision: Decision) -> list[int]:
        if decision.action is Action.ANSWER_OPEN:
            return self.index.open_positions()
        return [place for place in decision.positions if not self.index.answered(place)]

    def _answer(self, positions: list[int], window: int | None) -> Outcome:
        """Start an engine for the requests at `positions` and follow it to its end."""
        attempt = self._new_attempt()
        wanted = set(positions)
        lines = self.shard.requests.lines(wanted.__contains__)
        apart = self.spec.device == "cpu" and self.spec.backend != "dummy"
        parts = write_parts(lines, self.shard.folder, apart)
        settings = self._write_settings(attempt, parts, window, len(positions))
        log.info(
            "%s: %d of %d requests open; starting an engine, its log is %s",
            self.shard.name,
            len(positions),
            len(self.shard.requests),
            attempt.log,
        )
        first = {
            "switches": switches(self.spec),
            "gpus": list(self.gpus),
            "started": utc_now(),
            "backend": self.spec.backend,
        }
        start_record(attempt, first)
        environment = {**worker_environment(self.spec, os.environ), **self.environment}
        process = WorkerProcess(self.spec.interpreter, settings, environment, attempt.log)
        hung: str | None = None
        try:
            code, hung = self._follow(process)
        except Interrupted:
            process.stop()
            self._collect(attempt, "interrupted")
            raise
        finally:
            process.end()
        started = attempt.engine.exists()
        answered = self._collect(attempt, exit_name(code, hung))
        held = self._held(parts)
        return Outcome(started, code, hung, answered, held, attempt)

    def _new_attempt(self) -> Attempt:
        now = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        stem = f"{self.shard.name}.{now}.{os.getpid()}-{len(self.records)}"
        return Attempt(stem, self.shard.folder, self.shard.journals)

    def _write_settings(
        self, attempt: Attempt, parts: list[Part], window: int | None, total: int
    ) -> Path:
        defaults, arguments = self._arguments
        folder = self.shard.folder
        (folder / "status.json").unlink(missing_ok=True)
        settings = {
            "backend": self.spec.backend,
            "model": str(self.spec.model or ""),
            "adapter": str(self.spec.adapter) if self.spec.adapter else None,
            "defaults": defaults,
            "args": arguments,
            "dummy": dict(self.spec.dummy),
            "device": self.spec.device,
            "determinism": self.spec.determinism,
            "requests": [str(part.path) for part in parts],
            "window": window,
            "start": len(self.records),
            "spawned": time.time(),
            "journal": str(attempt.journal),
            "header": {
                "backend": self.spec.backend,
                "started": utc_now(),
                "host": platform.node(),
                "pid": os.getpid(),
                **self.shard.header,
            },
            "progress": str(folder / "progress"),
            "status": str(folder / "status.json"),
            "facts": str(attempt.engine),
            "total": total,
        }
        path = folder / "settings.json"
        write_json_atomic(path, settings)
        return path

    def _follow(self, process: WorkerProcess) -> tuple[int | None, str | None]:
        """Wait for the worker's end; return its exit code and, if it hung, what it failed to do."""
        watchdog = Watchdog(self.spec.supervisor, time.monotonic())
        status_path = self.shard.folder / "status.json"
        self._progress.restart(self.index.count())
        while (code := process.wait(POLL_S)) is None:
            self.stop.check()
            status = read_status(status_path)
            now = time.monotonic()
            if line := self._progress.line(status, now):
                log.info("%s", line)
            if hung := watchdog.hung(status, now):
                return None, hung
        return code, None

    def _collect(self, attempt: Attempt, how: str) -> int:
        """Read the journal of an engine that has ended; return how many requests it answered."""
        answered = self.index.add(attempt.journal, True) if attempt.journal.exists() else 0
        self.records.append(finish_record(attempt, how))
        return answered

    def _held(self, parts: list[Part]) -> tuple[int, ...]:
        """Return the requests that the engine held when it died."""
        try:
            numbers = (self.shard.folder / "progress").read_text().split()
            part, admitted = parts[int(numbers[0])], int(numbers[1])
        except (OSError, ValueError, IndexError):
            return ()
        taken = part.positions[:admitted]
        return tuple(position for position in taken if not self.index.answered(position))

    def _decide(self, outcome: Outcome) -> Decision | None:
        """Return what comes next, None when all is done; raises `WorkflowError` to give up."""
        if outcome.code == EXIT_FINISHED:
            return self.deaths.finished() or self._check_complete()
        if outcome.code == EXIT_JOURNAL:
            raise self._disk_error(outcome)
        if outcome.code == EXIT_REFUSED:
            raise WorkflowError(last_lines(read_tail(outcome.attempt.log))[-1])
        diagnosis = diagnose(outcome.attempt.log, outcome.code)
        what = outcome.hung or describe_exit(outcome.code)
        if outcome.started:
            decision = self.deaths.died(outcome.held, outcome.answered)
        else:
            decision = self.deaths.failed_to_start(diagnosis.permanent)
        if decision.action is Action.GIVE_UP:
            raise WorkflowError(
                f"{self.shard.name}: {decision.reason} ({len(self.records)} tries); "
                f"{self.index.count()} of {len(self.shard.requests)} answers are kept. "
                f"Cause: {diagnosis}"
            )
        log.warning("%s: the engine %s; %s", self.shard.name, what, decision.action.value)
        if decision.action is Action.QUARANTINE:
            self._quarantine(decision.positions[0], what)
            return Decision(Action.ANSWER_OPEN)
        return decision

    def _check_complete(self) -> Decision | None:
        missing = self.index.open_positions()
        if missing:
            raise WorkflowError(
                f"{self.shard.name}: the engine ended without answering {len(missing)} requests, "
                f"the first at line {missing[0] + 1} of {self.shard.requests.path}"
            )
        return None

    def _disk_error(self, outcome: Outcome) -> WorkflowError:
        reason = last_lines(read_tail(outcome.attempt.log))[-1].rpartition("journal: ")[2]
        free = shutil.disk_usage(self.shard.journals).free
        return WorkflowError(
            f"{self.shard.journals}: answers cannot be written: {reason} ({free >> 20} MiB free); "
            f"{self.index.count()} of {len(self.shard.requests)} answers are kept; free space and "
            "run again"
        )

    def _quarantine(self, position: int, what: str) -> None:
        """Answer the request at `position` by an error, in a journal of the supervisor's."""
        head = json.loads(next(self.shard.requests.lines(position.__eq__))[1])
        answer = {
            **dict.fromkeys(
                (
                    "key",
                    "max_tokens",
                    "text",
                    "token_ids",
                    "finish_reason",
                    "stop_reason",
                    "prompt_tokens",
                    "rendered_prompt",
                    "truncated_prompt_tokens",
                    "cumulative_logprob",
                    "logprobs",
                    "prompt_logprobs",
                )
            ),
            "key": head["key"],
            "max_tokens": head["max_tokens"],
            "truncated_prompt_tokens": 0,
            "error": {
                "type": "engine_killed",
                "message": f"with this request alone the engine {what}",
            },
        }
        header = {"journal": {"version": 1, "backend": self.spec.backend, **self.shard.header}}
        lines = [json.dumps(line, separators=(",", ":")) + "\n" for line in (header, answer)]
        stem = f"{self._new_attempt().stem}-quarantine"
        path = self.shard.journals / f"{stem}.jsonl"
        with path.open("x", encoding="utf-8") as stream:
            stream.writelines(lines)
            stream.flush()
            os.fsync(stream.fileno())
        self.index.add(path, True)
        log.warning("%s: request %s is quarantined", self.shard.name, head["key"])


def exit_name(code: int | None, hung: str | None) -> str:
    """Return how the facts call an engine's end."""
    if hung is not None:
        return "hung"
    return "finished" if code == EXIT_FINISHED else "crashed"
