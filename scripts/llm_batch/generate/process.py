"""Worker processes: they cannot outlive the supervisor, and end with all their kin."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import psutil

from scripts.llm_batch.errors import WorkflowError

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36

WORKER = Path(__file__).resolve().parents[2] / "worker"

STOP_GRACE_S = 3.0
"""A worker that was asked to stop has so long for the step in progress; 5 s in all are promised."""

TRACKER_GRACE_S = 1.0
"""Python's resource tracker removes shared memory after the others died, and then ends itself."""

_libc = ctypes.CDLL(None, use_errno=True)


def adopt_orphans() -> None:
    """Become the parent of all descendants whose parents die (Linux): none can get lost."""
    _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _die_with_supervisor() -> None:
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


class WorkerProcess:
    """A running worker, in a session of its own: Ctrl-C reaches the supervisor only."""

    def __init__(
        self, interpreter: Path, settings: Path, environment: Mapping[str, str], log: Path
    ) -> None:
        self._kept = {child.pid for child in psutil.Process().children(recursive=True)}
        self._log: BinaryIO = log.open("ab")
        try:
            self._process = subprocess.Popen(
                [interpreter, WORKER, "--settings", settings],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                env=dict(environment),
                start_new_session=True,
                preexec_fn=_die_with_supervisor,
            )
        except OSError as error:
            self._log.close()
            raise WorkflowError(
                f"{interpreter}: cannot be started ({error.strerror}); build the environment again"
            ) from error
        self.pid = self._process.pid
        try:
            self._handle: int | None = os.pidfd_open(self.pid)
        except OSError:
            self._handle = None

    def wait(self, seconds: float) -> int | None:
        """Wait for the worker to end, at most `seconds`; return its exit code or None."""
        if self._handle is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=seconds)
        else:
            select.select([self._handle], [], [], seconds)
        return self._process.poll()

    def stop(self) -> int | None:
        """Ask the worker to stop after the step in progress; kill it if it takes too long."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        code = self.wait(STOP_GRACE_S)
        self.end()
        return code

    def end(self) -> None:
        """Kill the worker if it runs, and every process that came from it."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        deadline = time.monotonic() + TRACKER_GRACE_S
        while kin := self._kin():
            late = time.monotonic() > deadline
            for process in kin:
                with contextlib.suppress(psutil.Error):
                    if late or not is_tracker(process):
                        process.kill()
            psutil.wait_procs(kin, timeout=0.1)
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
        self._log.close()

    def _kin(self) -> list[psutil.Process]:
        """Return the processes that came from the worker and still run; reaps dead ones."""
        children = psutil.Process().children(recursive=True)
        found = [child for child in children if child.pid not in self._kept]
        return [child for child in found if not _reap(child)]


def _reap(process: psutil.Process) -> bool:
    """Tell whether `process` is dead, after collecting it if it is ours."""
    try:
        if process.status() != psutil.STATUS_ZOMBIE:
            return False
        os.waitpid(process.pid, os.WNOHANG)
    except (psutil.Error, ChildProcessError):
        return True
    return True


def is_tracker(process: psutil.Process) -> bool:
    """Tell whether `process` cleans up shared memory after others."""
    return any("resource_tracker" in word for word in process.cmdline())
