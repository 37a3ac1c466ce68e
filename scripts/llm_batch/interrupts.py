"""SIGINT for Snakemake's process alone (`kill -INT`, `timeout`, a notebook) stops the engines too.

A terminal sends Ctrl-C to every process of a job; sent to Snakemake only, it would wait for its
jobs, and those that ask an engine may take hours.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from typing import Any

import psutil

SUPERVISORS = frozenset({"scripts.generate", "scripts.replicate_run"})
"""Programs that keep every finished answer and end within five seconds when they are asked to."""


def pass_interrupts_on() -> None:
    """Send each SIGINT of this process on to the supervisors below it, then do as Python does."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, _pass_on)


def _pass_on(number: int, frame: Any) -> None:
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if SUPERVISORS.intersection(child.cmdline()[:4]):
                child.send_signal(signal.SIGINT)
    signal.default_int_handler(number, frame)
