"""Run one Python program that a model wrote, with limits.

What it is kept from, on Linux: the network and other processes (namespaces of its own, where
`unshare` works), more time, memory, open files, processes and bytes in a file than the limits say,
our environment variables, and a terminal. It works in an empty folder that is deleted afterwards,
and everything that it started is killed.

What it is NOT kept from: reading whatever the user who runs the workflow can read, writing where
this user can write, and reading its own tests, so that it passes without solving them. Without
namespaces a process that leaves its group also outlives it. Against code that is meant to do harm
run the workflow in a container or a virtual machine that holds nothing of value.
"""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from scripts.llm_batch.errors import WorkflowError

LAUNCHER = """\
import os, resource, sys
seconds, memory = int(sys.argv[1]), int(sys.argv[2])
for name, value in (
    ("RLIMIT_CPU", seconds), ("RLIMIT_AS", memory), ("RLIMIT_FSIZE", 16 << 20),
    ("RLIMIT_NOFILE", 64), ("RLIMIT_NPROC", 256), ("RLIMIT_CORE", 0),
):
    resource.setrlimit(getattr(resource, name), (value, value))
os.execv(sys.executable, [sys.executable, "-I", "-B", "-X", "utf8", sys.argv[3]])
"""

_NAMESPACES = ("--net", "--ipc", "--pid", "--fork", "--kill-child")


class Limits(NamedTuple):
    """Seconds of wall time and of processor time, and memory."""

    seconds: float
    memory_mb: int


@functools.cache
def isolation(allow_network: bool) -> tuple[str, ...]:
    """Return the words before a command that cut it off the network.

    Raises `WorkflowError` where that cannot be done, unless the network is allowed.
    """
    unshare = shutil.which("unshare")
    for words in (_NAMESPACES, ("--user", "--map-root-user", *_NAMESPACES)):
        if unshare is None:
            break
        command = (unshare, *words)
        tried = subprocess.run([*command, "true"], capture_output=True, check=False, timeout=30)
        if tried.returncode == 0:
            return command
    if allow_network:
        return ()
    raise WorkflowError(
        "this machine does not let a process be cut off the network (unshare fails), so code of a "
        "model is not run; set the metric's allow_network: true to run it all the same"
    )


def run_program(source: str, prefix: Sequence[str], limits: Limits) -> bool:
    """Return whether the program came to its end without an error, within the limits."""
    with tempfile.TemporaryDirectory(prefix="llm-batch-code-") as name:
        folder = Path(name)
        # A program that calls exit() before its tests does not print this word.
        word = secrets.token_hex(16)
        program = folder / "program.py"
        program.write_text(f"{source}\n\nprint('\\n{word}')\n", encoding="utf-8", errors="replace")
        seconds = max(1, round(limits.seconds))
        command = [*prefix, sys.executable, "-I", "-c", LAUNCHER]
        command += [str(seconds), str(limits.memory_mb << 20), str(program)]
        code, output = _run(command, folder, limits.seconds)
        return code == 0 and output.rstrip().endswith(word)


def _run(command: Sequence[str], folder: Path, seconds: float) -> tuple[int, str]:
    """Run a command in `folder`, and kill all that is left of it; return its code and the end of
    its output.
    """
    said = folder / "output.txt"
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "LANG": "C.UTF-8"}
    with said.open("wb") as stream:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            code = -1
        finally:
            _kill_group(process)
    with said.open("rb") as stream:
        stream.seek(max(0, said.stat().st_size - 4096))
        return code, stream.read().decode("utf-8", errors="replace")


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
