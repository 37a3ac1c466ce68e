"""The loop that keeps the engine's window of requests full and journals what finishes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from typing import Any, Callable, NamedTuple

from scripts.worker.answers import answer
from scripts.worker.engine import Engine, Finished, RequestError
from scripts.worker.journal import Counters, Journal

WINDOW_FACTOR = 2
"""Requests in the engine per request that can run: the others wait, so that none is missed."""

REFILL_SHARE = 4
"""The window is refilled when a quarter is free: prompts are tokenised faster together."""


_decode = json.JSONDecoder().raw_decode


class Entry(NamedTuple):
    """A request in the engine."""

    key: str
    max_tokens: int


class Loop:
    """Answers files of requests with one engine."""

    def __init__(
        self,
        engine: Engine,
        journal: Journal,
        counters: Counters,
        window: int | None,
        stopped: Callable[[], bool],
    ) -> None:
        self._engine = engine
        self._journal = journal
        self._counters = counters
        self._window = window or WINDOW_FACTOR * engine.max_num_seqs
        self._chunk = max(1, self._window // REFILL_SHARE)
        self._stopped = stopped
        self._open: dict[str, Entry] = {}
        self._number = 0

    @property
    def open(self) -> int:
        """Return how many requests are in the engine."""
        return len(self._open)

    def run(self, paths: list[str]) -> bool:
        """Answer the requests in `paths`, one file after another; False if stopped before the end.

        The engine is empty between two files.
        """
        for part, path in enumerate(paths):
            self._counters.part = part
            self._counters.admitted = 0
            with open(path, "rb") as stream:
                if not self._answer(iter(stream)):
                    return False
        return True

    def _answer(self, lines: Iterator[bytes]) -> bool:
        more = True
        while more or self._open:
            if self._stopped():
                return False
            while more and len(self._open) <= self._window - self._chunk:
                more = self._refill(lines)
            if self._open:
                self._take(self._engine.step())
                self._counters.steps += 1
            self._journal.flush()
        return True

    def _refill(self, lines: Iterator[bytes]) -> bool:
        """Put the next requests into the engine; False when there are no more."""
        chunk = list(islice(lines, self._chunk))
        # Stored before the engine sees them: should it die, these are among the suspects.
        self._counters.admitted += len(chunk)
        self._counters.write()
        requests = [_decode(line.decode("utf-8", "surrogatepass"))[0] for line in chunk]
        for request, prepared in zip(requests, self._engine.prepare(requests)):
            self._admit(request, prepared)
        self._journal.flush()
        return len(chunk) == self._chunk

    def _admit(self, request: dict[str, Any], prepared: Any) -> None:
        self._number += 1
        number = str(self._number)
        entry = Entry(request["key"], request["max_tokens"])
        if not isinstance(prepared, RequestError):
            try:
                self._engine.add(number, prepared)
            except RequestError as error:
                prepared = error
            else:
                self._open[number] = entry
                return
        self._record(entry, failed(number, prepared))

    def _take(self, finished: list[Finished]) -> None:
        for item in finished:
            self._record(self._open.pop(item.request_id), item)

    def _record(self, entry: Entry, item: Finished) -> None:
        self._journal.append(answer(entry.key, entry.max_tokens, item))
        counters = self._counters
        counters.answered += 1
        counters.prompt_tokens += item.prompt_tokens or 0
        if item.cached_prompt_tokens is not None:
            cached = counters.cached_prompt_tokens or 0
            counters.cached_prompt_tokens = cached + item.cached_prompt_tokens
        if item.error is not None:
            counters.errors += 1
        elif item.token_ids is not None:
            counters.completion_tokens += len(item.token_ids)


def failed(request_id: str, error: RequestError) -> Finished:
    """Return a request that ended with `error` before the engine saw it."""
    return Finished(
        request_id=request_id,
        text=None,
        token_ids=None,
        finish_reason=None,
        stop_reason=None,
        prompt_tokens=error.prompt_tokens,
        rendered_prompt=error.rendered_prompt,
        error=error,
    )
