"""Judges in processes of their own: one that hangs or dies costs its completion, no more.

Such a judge is a function `(text, accepted, row) -> Judgement`, made in the process by a factory
that can be pickled. Equal questions are asked once.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Any

from scripts.llm_batch.errors import WorkflowError
from scripts.llm_batch.evaluation.metrics.base import Failure, Item, Judgement

Judge = Callable[[str, Any, Mapping[str, Any]], Judgement]
Factory = Callable[[], Judge]

START_TIMEOUT_S = 120.0
ITEMS_PER_PROCESS = 100
"""Below so many a second process is not worth its start of about two seconds."""


def judge_in_processes(
    factory: Factory, items: Sequence[Item], timeout_s: float
) -> Iterator[Judgement | Failure]:
    """Yield what the judge says of each item, in order.

    Raises `WorkflowError` if the factory fails: its message is that of the error.
    """
    keys = [json.dumps([one.text, repr(one.accepted), one.row], sort_keys=True) for one in items]
    distinct = dict(zip(keys, items, strict=True))
    count = max(1, min(len(os.sched_getaffinity(0)), len(distinct) // ITEMS_PER_PROCESS))
    parts = [list(distinct.items())[start::count] for start in range(count)]
    found: dict[str, Judgement | Failure] = {}
    with ThreadPoolExecutor(count) as pool:
        for judged in pool.map(lambda part: _judge_part(factory, part, timeout_s), parts):
            found.update(judged)
    return (found[key] for key in keys)


def _judge_part(
    factory: Factory, part: Sequence[tuple[str, Item]], timeout_s: float
) -> dict[str, Judgement | Failure]:
    found: dict[str, Judgement | Failure] = {}
    process = _Process(factory)
    try:
        for key, item in part:
            found[key] = process.ask(item, timeout_s)
    finally:
        process.stop()
    return found


class _Process:
    """A process that judges, started when it is needed and again after it was lost."""

    def __init__(self, factory: Factory) -> None:
        self._factory = factory
        self._process: Any = None
        self._connection: Connection | None = None

    def ask(self, item: Item, timeout_s: float) -> Judgement | Failure:
        connection = self._connection or self._start()
        try:
            connection.send(tuple(item))
            if not connection.poll(timeout_s):
                self.stop()
                return Failure(f"no result after {timeout_s:g} s")
            answer = connection.recv()
        except (EOFError, OSError):
            self._process.join(5)
            code = self._process.exitcode
            self.stop()
            return Failure(f"its process died (exit code {code})")
        return answer if isinstance(answer, Failure) else Judgement(*answer)

    def _start(self) -> Connection:
        # Not forked: this process has threads.
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self._factory), daemon=True)
        self._process.start()
        theirs.close()
        self._connection = ours
        try:
            problem = ours.recv() if ours.poll(START_TIMEOUT_S) else "did not start in time"
        except EOFError:
            problem = "its process died at the start"
        if problem is not None:
            self.stop()
            raise WorkflowError(problem)
        return ours

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
        if self._connection is not None:
            self._connection.close()
        self._process = self._connection = None


def _serve(connection: Connection, factory: Factory) -> None:
    """Judge what comes through `connection`, until it is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        judge = factory()
    except WorkflowError as error:
        connection.send(str(error))
        return
    connection.send(None)
    while True:
        try:
            text, accepted, row = connection.recv()
        except EOFError:
            return
        try:
            connection.send(tuple(judge(text, accepted, row)))
        except Exception as error:
            connection.send(Failure(_one_line(error)))


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
