"""The supervisor: has a shard's open requests answered, however often engines die.

It starts a worker with the requests that no journal answers yet, watches it, reads its journal
when it has ended, and starts over until every request has an answer or an error.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scripts.llm_batch.errors import WorkflowError
from scripts.llm_batch.generate.attempt import Ended, Launcher, Shard, StopFlag
from scripts.llm_batch.generate.deaths import Action, Deaths, Decision
from scripts.llm_batch.generate.diagnosis import (
    describe_exit,
    diagnose,
    last_lines,
    read_tail,
)
from scripts.llm_batch.generate.facts import Attempt, finish_record
from scripts.llm_batch.generate.gpus import Lease
from scripts.llm_batch.generate.journal import AnswerIndex
from scripts.llm_batch.generate.progress import Progress
from scripts.llm_batch.generate.requests import Part, decode
from scripts.llm_batch.generate.settings import EngineSpec
from scripts.worker.answers import answer, encode
from scripts.worker.engine import RequestError
from scripts.worker.loop import failed

EXIT_FINISHED = 0
EXIT_REFUSED = 3
EXIT_JOURNAL = 74
"""As in scripts/worker/run.py, which is another interpreter's."""

log = logging.getLogger(__name__)


class Supervisor:
    """Answers one shard; `records` tells of each engine start."""

    def __init__(
        self,
        spec: EngineSpec,
        shard: Shard,
        index: AnswerIndex,
        stop: StopFlag,
        progress: Progress,
        gpus: Lease,
    ) -> None:
        self._spec = spec
        self._shard = shard
        self._index = index
        self._stop = stop
        self.deaths = Deaths(spec.supervisor.max_restarts)
        self.records: list[dict[str, Any]] = []
        self._progress = progress
        self._launcher = Launcher(spec, shard, stop, progress, gpus)

    def run(self) -> None:
        """Answer every open request; raises `WorkflowError` when that cannot be done."""
        decision: Decision | None = Decision(Action.ANSWER_OPEN)
        while decision is not None:
            self._stop.check()
            positions = self._positions(decision)
            decision = self._answer(positions, decision) if positions else self.deaths.finished()

    def _positions(self, decision: Decision) -> list[int]:
        if decision.action is Action.ANSWER_OPEN:
            return self._index.open_positions()
        return [place for place in decision.positions if not self._index.answered(place)]

    def _answer(self, positions: list[int], decision: Decision) -> Decision | None:
        """Start an engine for the requests at `positions`; return what comes after it."""
        log.info(
            "%s: %d requests, %d open, %d in this engine",
            self._shard.name,
            len(self._shard.requests),
            len(self._shard.requests) - self._index.count(),
            len(positions),
        )
        parts = self._launcher.write_parts(positions)
        self._progress.engine_started(self._index.count(), self._index.errors(), self.deaths.total)
        attempt = self._launcher.new_attempt()
        window = decision.window or self._spec.supervisor.window
        ended = self._launcher.run(attempt, parts, window)
        answered = self._index.add(attempt.journal) if attempt.journal.exists() else 0
        self.records.append(finish_record(attempt, ended.name, ended.wall_s))
        if ended.interrupted is not None:
            raise ended.interrupted
        if ended.code == EXIT_FINISHED:
            self._check_complete(positions)
            return self.deaths.finished()
        return self._after_death(attempt, ended, answered, parts)

    def _after_death(
        self, attempt: Attempt, ended: Ended, answered: int, parts: list[Part]
    ) -> Decision:
        if ended.code == EXIT_JOURNAL:
            raise self._disk_error(attempt)
        if ended.code == EXIT_REFUSED:
            message = (last_lines(read_tail(attempt.log)) or (f"{attempt.log} is empty",))[-1]
            raise WorkflowError(message.partition("refused: ")[2] or message)
        diagnosis = diagnose(ended.lost or attempt.log, ended.code)
        what = ended.hung or describe_exit(ended.code)
        if ended.lost is not None:
            what = f"lost its process on another node, which {what} ({ended.lost})"
        # The worker writes its first facts when the engine is ready.
        if attempt.engine.exists():
            decision = self.deaths.died(self._held(parts), answered)
        else:
            decision = self.deaths.failed_to_start(diagnosis.permanent)
        if decision.action is Action.GIVE_UP:
            raise WorkflowError(
                f"{self._shard.name}: {decision.reason} ({len(self.records)} tries, "
                f"{self._kept()}). Cause: {diagnosis}"
            )
        log.warning("%s: the engine %s; next: %s", self._shard.name, what, decision.action.value)
        if decision.action is Action.QUARANTINE:
            self._quarantine(decision.positions[0], what)
            return Decision(Action.ANSWER_OPEN)
        return decision

    def _held(self, parts: list[Part]) -> tuple[int, ...]:
        """Return the requests that the engine held when it died."""
        try:
            numbers = (self._shard.folder / "progress").read_text().split()
            part, admitted = parts[int(numbers[0])], int(numbers[1])
        except (OSError, ValueError, IndexError):
            return ()
        taken = part.positions[:admitted]
        return tuple(position for position in taken if not self._index.answered(position))

    def _check_complete(self, positions: Sequence[int]) -> None:
        missing = [position for position in positions if not self._index.answered(position)]
        if missing:
            raise WorkflowError(
                f"{self._shard.name}: the engine ended without answering {len(missing)} requests, "
                f"the first at line {missing[0] + 1} of {self._shard.requests.path}"
            )

    def _kept(self) -> str:
        return f"{self._index.count()} of {len(self._shard.requests)} answers are kept"

    def _disk_error(self, attempt: Attempt) -> WorkflowError:
        reason = journal_reason(attempt.log)
        free = shutil.disk_usage(self._shard.journals).free
        return WorkflowError(
            f"{self._shard.journals}: answers cannot be written: {reason} ({free >> 20} MiB free); "
            f"{self._kept()}; free space and run again"
        )

    def _quarantine(self, position: int, what: str) -> None:
        """Answer the request at `position` by an error, in a journal of the supervisor's own."""
        request = decode(next(self._shard.requests.lines(position.__eq__))[1])
        error = RequestError("engine_killed", f"the engine {what} while it held this request alone")
        lost = answer(request["key"], request["max_tokens"], failed("", error))
        header = {"journal": {"version": 1, "backend": self._spec.backend, **self._shard.header}}
        path = self._shard.journals / f"{self._launcher.new_attempt().stem}-quarantine.jsonl"
        with path.open("xb") as stream:
            stream.writelines(map(encode, (header, lost)))
            stream.flush()
            os.fsync(stream.fileno())
        self._index.add(path)
        log.warning("%s: request %s is quarantined", self._shard.name, request["key"])


def journal_reason(log: Path) -> str:
    """Return why a worker could not write its journal; on a full disk its log may lack that."""
    said = [line for line in last_lines(read_tail(log)) if "journal: " in line]
    return said[-1].rpartition("journal: ")[2] if said else "the disk may be full"
