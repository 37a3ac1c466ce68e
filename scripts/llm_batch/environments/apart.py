"""Calls of rattler in a process of their own, which is ended before Python takes itself down.

Processes that had used rattler 0.28 and done all they should were now and then seen to end by
SIGABRT or SIGSEGV. Why is not known; threads of its own that still run then are a guess.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from scripts.llm_batch.environments.uv_calls import die_with_parent
from scripts.llm_batch.errors import WorkflowError

T = TypeVar("T")


def apart(function: Callable[..., T], *arguments: Any) -> T:
    """Return what `function` returns in another process; it and its arguments can be pickled.

    Raises `WorkflowError` with the text of whatever the function raises, in one line, or if its
    process dies.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(sender, function, arguments), daemon=True)
    process.start()
    sender.close()
    try:
        succeeded, value = receiver.recv()
    except EOFError:
        process.join()
        raise WorkflowError(f"rattler died (exit code {process.exitcode}); run again") from None
    finally:
        if process.is_alive():
            process.join(1)
        process.kill()
    if not succeeded:
        raise WorkflowError(str(value))
    result: T = value
    return result


def _run(sender: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    die_with_parent()
    try:
        sender.send((True, function(*arguments)))
    except BaseException as error:
        # rattler's errors have no common class, and their texts several lines.
        sender.send((False, " ".join(str(error).split()) or type(error).__name__))
    sender.close()
    os._exit(0)
