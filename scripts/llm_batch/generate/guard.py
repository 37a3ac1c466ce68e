"""Notices that the workflow which started a supervisor was killed.

Snakemake starts rules through a shell. A signal that kills Snakemake or that shell does not reach
the program below, which would then hold its GPU for hours with nobody waiting for the answers.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import PurePath

import psutil

DEPTH = 6
"""So far up Snakemake is looked for."""

WORKFLOW = "LLM_BATCH_WORKFLOW"
"""Tells a program which Snakemake has started it: `<process id> <time of its start>`."""


def announce() -> None:
    """Have the programs that this process starts know of it, even if it ends before they look."""
    os.environ[WORKFLOW] = f"{os.getpid()} {psutil.Process().create_time()!r}"


class Guard:
    """Watches the processes between this one and Snakemake, if Snakemake started it.

    Started by hand there is nothing to watch: a program in the background may outlive its shell.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        """Look for Snakemake; it may have been killed while this program was being loaded."""
        self._chain = workflow_chain(psutil.Process())
        self._parent = os.getppid()
        self._late = not self._chain and has_ended(environ.get(WORKFLOW))

    def abandoned(self) -> bool:
        """Tell whether one of them has ended."""
        if not self._chain:
            return self._late
        if os.getppid() != self._parent:
            return True
        return any(not process.is_running() or _is_zombie(process) for process in self._chain)


def workflow_chain(process: psutil.Process) -> list[psutil.Process]:
    """Return the ancestors of `process` up to the nearest Snakemake, empty without one."""
    ancestors: list[psutil.Process] = process.parents()[:DEPTH]
    for number, ancestor in enumerate(ancestors):
        try:
            if is_snakemake(ancestor.cmdline()):
                return ancestors[: number + 1]
        except psutil.Error:
            return []
    return []


def has_ended(announced: str | None) -> bool:
    """Tell whether the Snakemake that announced itself so is gone; False if none did."""
    if not announced:
        return False
    number, _, started = announced.partition(" ")
    try:
        process = psutil.Process(int(number))
        return bool(process.create_time() != float(started)) or _is_zombie(process)
    except psutil.Error:
        return True


def is_snakemake(words: list[str]) -> bool:
    """Tell whether a command line runs Snakemake (`snakemake …`, `python -m snakemake …`)."""
    return any(PurePath(word).name == "snakemake" for word in words[:4])


def _is_zombie(process: psutil.Process) -> bool:
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return True
