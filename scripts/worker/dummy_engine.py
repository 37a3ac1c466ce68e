"""An engine that answers without a model: to rehearse a config, and to test what faults do.

Tokens are words. An answer depends on the prompt, the sampling and the seed alone, so it is the
same in any order, batch or shard. Settings, all optional:

latency_s             seconds that an answer of mean length takes (0)
length                mean number of tokens of an answer (16)
crash_after           answers after which the engine kills its process, at every start
hang_after            answers after which the engine stops, at every start
out_of_memory_starts  starts of a shard that fail for want of memory (0)
long                  text in prompts whose answers are ten times as long
gpus                  leased by the supervisor for it, and left idle
poison                text that kills the process while a prompt with it is in the engine
"""

from __future__ import annotations

import hashlib
import heapq
import os
import signal
import struct
import time
from collections import deque
from typing import Any, NamedTuple

from scripts.worker.dummy_nodes import gather
from scripts.worker.engine import (
    PROMPT_EMPTY,
    PROMPT_TOO_LONG,
    SAMPLING_INVALID,
    Finished,
    RequestError,
)
from scripts.worker.settings import Settings

MAX_MODEL_LEN = 4096
MAX_NUM_SEQS = 256
MEAN_LENGTH = 16
LONG_FACTOR = 10

HANG_S = 3600.0

WORDS = [f"w{token}" for token in range(256)]
"""The vocabulary: a token is a byte of a digest."""


class Prepared(NamedTuple):
    """A checked request: what it will answer, and in how many steps."""

    text: str
    token_ids: list[int]
    stops: bool
    prompt_tokens: int
    truncated: int
    rendered: str | None
    poisonous: bool


class DummyEngine:
    """Simulates batching: at most `max_num_seqs` requests run, each gains a token a step."""

    def __init__(self, settings: Settings) -> None:
        dummy = settings.dummy
        if settings.start < int(dummy.get("out_of_memory_starts") or 0):
            raise MemoryError("dummy engine: out of memory, as set by out_of_memory_starts")
        self._nodes = gather(settings.args)
        self.max_num_seqs = int(settings.args.get("max_num_seqs") or MAX_NUM_SEQS)
        self._max_model_len = int(settings.args.get("max_model_len") or MAX_MODEL_LEN)
        self._length = max(1, int(dummy.get("length", MEAN_LENGTH)))
        self._step_s = float(dummy.get("latency_s") or 0.0) / self._length
        self._crash_after = dummy.get("crash_after")
        self._hang_after = dummy.get("hang_after")
        self._poison = dummy.get("poison")
        self._long = dummy.get("long")
        self._waiting: deque[tuple[str, Prepared]] = deque()
        self._running: list[tuple[int, int, str, Prepared]] = []
        self.now = 0
        self._order = 0
        self._answered = 0
        self._tokens = 0

    def prepare(self, requests: list[dict[str, Any]]) -> list[Prepared | RequestError]:
        """Work out the answers; see `engine.Engine`."""
        prepared: list[Prepared | RequestError] = []
        for request in requests:
            try:
                prepared.append(self._prepare(request))
            except RequestError as error:
                prepared.append(error)
        return prepared

    def _prepare(self, request: dict[str, Any]) -> Prepared:
        prompt, sampling = request["prompt"], request["sampling"]
        if float(sampling.get("temperature", 1.0)) < 0:
            raise RequestError(SAMPLING_INVALID, "temperature must not be negative")
        rendered = None
        if "text" in prompt:
            text = prompt["text"]
        elif "messages" in prompt:
            text = rendered = render_chat(prompt["messages"])
        else:
            text = " ".join(map(str, prompt["token_ids"]))
        words = text.split()
        kept = self._fit(words, request)
        seed = sampling.get("seed", "greedy")
        adapter = f"{request['adapter']}\n" if "adapter" in request else ""
        content = f"{adapter}{seed}\n{' '.join(kept)}".encode("utf-8", "replace")
        first = hashlib.blake2b(content).digest()
        # 0.5 to 1.5 times the mean, and never beyond the limit or the context.
        wanted = max(1, self._length // 2 + first[0] * (self._length + 1) // 256)
        if self._long is not None and self._long in text:
            wanted *= LONG_FACTOR
        room = min(request["max_tokens"], self._max_model_len - len(kept))
        ids = token_ids(first, content, min(wanted, room))
        return Prepared(
            text=" ".join(map(WORDS.__getitem__, ids)),
            token_ids=ids,
            stops=wanted <= room,
            prompt_tokens=len(kept),
            truncated=len(words) - len(kept),
            rendered=rendered,
            poisonous=self._poison is not None and self._poison in text,
        )

    def _fit(self, words: list[str], request: dict[str, Any]) -> list[str]:
        if not words:
            raise RequestError(PROMPT_EMPTY, "the prompt has no tokens")
        if len(words) < self._max_model_len:
            return words
        mode = request.get("on_too_long", "error")
        if mode == "error":
            error = RequestError(
                PROMPT_TOO_LONG,
                f"the prompt has {len(words)} tokens; with room for an answer at most "
                f"{self._max_model_len - 1} fit into max_model_len={self._max_model_len}",
            )
            error.prompt_tokens = len(words)
            raise error
        limit = self._max_model_len
        kept = max(limit - request["max_tokens"], limit // 2, 1)
        return words[-kept:] if mode == "truncate_left" else words[:kept]

    def add(self, request_id: str, prepared: Prepared) -> None:
        """Queue a request; see `engine.Engine`."""
        self._waiting.append((request_id, prepared))

    def step(self) -> list[Finished]:
        """Go to the next step in which a request finishes; see `engine.Engine`."""
        self._start_waiting()
        if self._crash_after is not None and self._answered >= self._crash_after:
            os.kill(os.getpid(), signal.SIGKILL)
        if self._hang_after is not None and self._answered >= self._hang_after:
            time.sleep(HANG_S)
        running = self._running
        until = running[0][0]
        if self._step_s:
            time.sleep(self._step_s * (until - self.now))
        self._tokens += len(running) * (until - self.now)
        self.now = until
        finished = []
        while running and running[0][0] == until:
            _, _, request_id, item = heapq.heappop(running)
            finished.append(
                Finished(
                    request_id,
                    item.text,
                    item.token_ids,
                    "stop" if item.stops else "length",
                    None,
                    item.prompt_tokens,
                    None,
                    item.rendered,
                    item.truncated,
                )
            )
        self._answered += len(finished)
        return finished

    def _start_waiting(self) -> None:
        waiting, running = self._waiting, self._running
        while waiting and len(running) < self.max_num_seqs:
            request_id, item = waiting.popleft()
            if item.poisonous:
                os.kill(os.getpid(), signal.SIGKILL)
            self._order += 1
            end = self.now + len(item.token_ids)
            heapq.heappush(running, (end, self._order, request_id, item))

    def generated_tokens(self) -> int | None:
        """Return the tokens generated so far; see `engine.Engine`."""
        return self._tokens

    def facts(self) -> dict[str, Any]:
        """Return what little there is to tell; see `engine.Engine`."""
        return {
            "version": None,
            "torch": None,
            "cuda": None,
            "device": "cpu",
            "dtype": None,
            "max_model_len": self._max_model_len,
            "max_num_seqs": self.max_num_seqs,
            "max_num_batched_tokens": None,
            "startup_s": {"import": 0.0, "load": 0.0},
        }

    def close(self) -> None:
        """Let the other nodes go; see `engine.Engine`."""
        for connection in self._nodes:
            connection.close()


def token_ids(first: bytes, content: bytes, count: int) -> list[int]:
    """Return `count` token ids: `first`, the digest of `content`, and digests of what follows."""
    digest = first
    while len(digest) < count:
        digest += hashlib.blake2b(content, salt=struct.pack("<Q", len(digest))).digest()
    return list(digest[:count])


def render_chat(messages: list[dict[str, Any]]) -> str:
    """Return messages as the dummy's chat template has them."""
    turns = [f"<{message['role']}> {message['content']}" for message in messages]
    return "\n".join([*turns, "<assistant>"])
