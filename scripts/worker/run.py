"""One engine start: read the settings, start the engine, answer the requests, say what happened."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import time
import traceback
from typing import Any

from scripts.worker.engine import Engine, EngineRefused
from scripts.worker.heartbeat import Heartbeat, write_atomic
from scripts.worker.journal import Counters, Journal, JournalError
from scripts.worker.loop import Loop
from scripts.worker.settings import Settings, read_settings
from scripts.worker.system import children_die_with_us

EXIT_FINISHED = 0
EXIT_FAILED = 1
EXIT_REFUSED = 3
EXIT_JOURNAL = 74
EXIT_STOPPED = 143

FACTS_INTERVAL_S = 2.0

log = logging.getLogger(__name__)


class Worker:
    """The state of one engine start."""

    def __init__(self, settings: Settings, started: float) -> None:
        self.settings = settings
        self.started = started
        self.phase = "start"
        self.engine: Engine | None = None
        self.counters = Counters(settings.progress)
        self.journal = Journal(settings.journal, settings.header)
        self.loop: Loop | None = None
        self.heartbeat = Heartbeat(settings.status, self.status, self.journal.sync)
        self.answering: float | None = None
        self.ready: float | None = None
        self.facts_written = 0.0
        self._stopping = False

    def stop(self, *_: Any) -> None:
        """Have the loop end after the step in progress."""
        self._stopping = True

    def stopped(self) -> bool:
        """Tell whether to stop; called before every step."""
        if self.heartbeat.failure is not None:
            raise self.heartbeat.failure
        if time.monotonic() - self.facts_written > FACTS_INTERVAL_S:
            self.write_facts(None)
        return self._stopping

    def status(self) -> dict[str, Any]:
        """Return what the status file holds."""
        counters = self.counters
        tokens = None
        if self.phase == "generate" and self.engine is not None:
            tokens = self.engine.generated_tokens()
        return {
            "phase": self.phase,
            "pid": os.getpid(),
            "total": self.settings.total,
            "done": counters.answered,
            "errors": counters.errors,
            "open": self.loop.open if self.loop else 0,
            "steps": counters.steps,
            "prompt_tokens": counters.prompt_tokens,
            "completion_tokens": counters.completion_tokens,
            "generated_tokens": tokens,
        }

    def run(self) -> int:
        """Answer everything; return the exit code."""
        self.heartbeat.start()
        self.engine = make_engine(self.settings)
        # vLLM installs handlers of its own while it starts.
        install_handlers(self)
        self.ready = time.time()
        self.answering = time.monotonic()
        self.phase = "generate"
        self.heartbeat.beat()
        self.write_facts(None)
        self.loop = Loop(
            self.engine, self.journal, self.counters, self.settings.window, self.stopped
        )
        finished = self.loop.run(self.settings.requests)
        self.phase = "finished" if finished else "stopped"
        return EXIT_FINISHED if finished else EXIT_STOPPED

    def end(self, exit_name: str | None) -> None:
        """Flush everything and write the facts."""
        try:
            self.journal.flush()
            self.journal.sync()
        except JournalError:
            log.error("the journal could not be flushed")
        self.write_facts(exit_name)
        self.heartbeat.end()
        if self.engine is not None:
            self.engine.close()

    def write_facts(self, exit_name: str | None) -> None:
        """Write what is known about this engine start so far; `exit_name` when it has ended."""
        self.facts_written = time.monotonic()
        if self.engine is None or self.ready is None or self.answering is None:
            return
        facts = self.engine.facts()
        startup = {
            "spawn": self.started - self.settings.spawned,
            **facts.pop("startup_s"),
            "total": self.ready - self.settings.spawned,
        }
        counters = self.counters
        write_atomic(
            self.settings.facts,
            {
                "backend": self.settings.backend,
                **facts,
                "startup_s": {name: round(value, 3) for name, value in startup.items()},
                "generate_s": round(time.monotonic() - self.answering, 3),
                "requests": counters.answered,
                "prompt_tokens": counters.prompt_tokens,
                "completion_tokens": counters.completion_tokens,
                "cached_prompt_tokens": counters.cached_prompt_tokens,
                "steps": counters.steps,
                "exit": exit_name,
            },
        )


def make_engine(settings: Settings) -> Engine:
    """Start the engine that the settings ask for."""
    if settings.backend == "dummy":
        from scripts.worker.dummy_engine import DummyEngine

        return DummyEngine(settings)
    from scripts.worker.vllm_engine import VllmEngine

    return VllmEngine(settings)


def follow(settings: Settings) -> int:
    """Do this node's part of an engine that another node leads; return when that one has ended."""
    try:
        if settings.backend == "dummy":
            from scripts.worker.dummy_nodes import follow_dummy

            follow_dummy(settings.args)
        else:
            from scripts.worker.vllm_nodes import follow_vllm

            follow_vllm(settings)
    except EngineRefused as error:
        log.error("refused: %s", error)
        return EXIT_REFUSED
    return EXIT_FINISHED


def install_handlers(worker: Worker) -> None:
    """Stop after the step in progress when asked to."""
    signal.signal(signal.SIGTERM, worker.stop)
    signal.signal(signal.SIGINT, worker.stop)


def main(argv: list[str], started: float) -> None:
    """Run one engine start and end the process without the interpreter's slow teardown."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(message)s")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--settings", required=True, help="JSON file, see settings.Settings")
    settings = read_settings(parser.parse_args(argv).settings)
    children_die_with_us()
    code = EXIT_FAILED
    try:
        code = follow(settings) if settings.args.get("node_rank") else answer_all(settings, started)
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def answer_all(settings: Settings, started: float) -> int:
    """Return the exit code of one engine start; whatever happens, the journal is whole."""
    worker: Worker | None = None
    try:
        worker = Worker(settings, started)
        code = worker.run()
        worker.end("finished" if code == EXIT_FINISHED else "interrupted")
        return code
    except JournalError as error:
        log.error("journal: %s", error)
        code = EXIT_JOURNAL
    except EngineRefused as error:
        log.error("refused: %s", error)
        code = EXIT_REFUSED
    except BaseException:
        traceback.print_exc()
        code = EXIT_FAILED
    if worker is not None:
        worker.end("crashed")
    return code
