"""The answers that journals hold for the requests of a shard, found by key and read by place.

Only places are kept in memory: which journal, which byte. Of several answers to a request the one
with its very limit is taken before one with another limit, an answer before an error, and then the
first in the order of journals, so that what was merged once is merged again.
"""

from __future__ import annotations

import logging
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from scripts.llm_batch.generate.requests import Requests, read_head
from scripts.llm_batch.retries import NO_ERRORS

log = logging.getLogger(__name__)

NONE, ERROR, OTHER_LIMIT, SAME_LIMIT = range(4)
"""How well an answer serves a request."""

_NO_ERROR = b'"error":null}\n'


class AnswerIndex:
    """Where the answers to `requests` are."""

    def __init__(self, requests: Requests) -> None:
        self._requests = requests
        self._rank = bytearray(len(requests))
        self._file = array("i", bytes(4 * len(requests)))
        self._offset = array("q", bytes(8 * len(requests)))
        self.journals: list[Path] = []

    def answered(self, position: int) -> bool:
        """Tell whether the request at `position` has an answer or an error."""
        return self._rank[position] != NONE

    def count(self) -> int:
        """Return how many requests have one."""
        return len(self._rank) - self._rank.count(NONE)

    def errors(self) -> int:
        """Return how many requests ended with an error."""
        return self._rank.count(ERROR)

    def open_positions(self) -> list[int]:
        """Return the positions of the requests without an answer."""
        return [position for position, rank in enumerate(self._rank) if rank == NONE]

    def add(self, journal: Path, void: frozenset[str] = NO_ERRORS) -> int:
        """Read a journal; return how many requests were answered by it that were not before.

        Errors of the types in `void` do not count. A torn last line is dropped. A broken line
        within is reported and dropped: its request stays open, so nothing wrong can come of it.
        """
        self.journals.append(journal)
        number = len(self.journals) - 1
        before = self.count()
        offset = 0
        with journal.open("rb") as stream:
            for line in stream:
                if line.endswith(b"\n"):
                    try:
                        self._consider(line, number, offset, void)
                    except (ValueError, KeyError, TypeError):
                        if offset:
                            log.warning("%s: byte %d: broken line; dropped", journal, offset)
                offset += len(line)
        return self.count() - before

    def _consider(self, line: bytes, number: int, offset: int, void: frozenset[str]) -> None:
        if line.startswith(b'{"journal":'):
            return
        head = read_head(line)
        answer: dict[str, Any] | None = None
        for position in self._requests.positions(head.key):
            if self._rank[position] == SAME_LIMIT:
                continue
            limit = self._requests.max_tokens[position]
            if head.max_tokens == limit and line.endswith(_NO_ERROR):
                rank = SAME_LIMIT
            else:
                answer = answer if answer is not None else orjson.loads(line)
                rank = rank_answer(answer, limit)
                if rank == ERROR and answer["error"]["type"] in void:
                    continue
            if rank > self._rank[position]:
                self._rank[position] = rank
                self._file[position] = number
                self._offset[position] = offset

    def answers(self) -> Iterator[tuple[int, int, dict[str, Any] | None]]:
        """Yield (position, max_tokens, answer or None) for every request, in order."""
        streams: dict[int, BinaryIO] = {}
        try:
            for position, rank in enumerate(self._rank):
                answer = None
                if rank != NONE:
                    number = self._file[position]
                    if number not in streams:
                        streams[number] = self.journals[number].open("rb")
                    streams[number].seek(self._offset[position])
                    answer = orjson.loads(streams[number].readline())
                yield position, self._requests.max_tokens[position], answer
        finally:
            for stream in streams.values():
                stream.close()


def rank_answer(answer: dict[str, Any], limit: int) -> int:
    """Return how well `answer` serves a request of its key with `limit` as max_tokens.

    An answer to another limit is the answer to this one if it ended by itself, or at the end of
    the context, within both; unless the prompt was cut, which leaves room for `max_tokens`.
    """
    same = int(answer["max_tokens"]) == limit
    if answer.get("error") is not None:
        return ERROR if same else NONE
    if same:
        return SAME_LIMIT
    tokens = len(answer["token_ids"])
    ended = answer["finish_reason"] == "stop" or tokens < int(answer["max_tokens"])
    if ended and tokens <= limit and not answer.get("truncated_prompt_tokens"):
        return OTHER_LIMIT
    return NONE


def find_journals(folder: Path) -> Sequence[Path]:
    """Return the journals in `folder` in a fixed order."""
    return sorted(folder.glob("*.jsonl"), key=lambda path: path.name)
