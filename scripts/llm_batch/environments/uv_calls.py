"""Calls of uv: with the user's pip settings, every line logged, and a failure in one line."""

from __future__ import annotations

import ctypes
import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from uv import find_uv_bin

from scripts.llm_batch.environments.pip_settings import (
    PipSettings,
    read_pip_settings,
    uv_variables,
    without_passwords,
)
from scripts.llm_batch.errors import WorkflowError

_PR_SET_PDEATHSIG = 1

# Of the user's UV_* variables only those that say how to reach packages, never which to take.
_KEPT = re.compile(
    r"UV_(DEFAULT_INDEX|INDEX|INDEX_URL|EXTRA_INDEX_URL|INDEX_.+_(USERNAME|PASSWORD)|FIND_LINKS|"
    r"CACHE_DIR|NO_CACHE|LINK_MODE|HTTP_.+|SYSTEM_CERTS|NATIVE_TLS|INSECURE_HOST|OFFLINE|"
    r"KEYRING_PROVIDER|CONCURRENT_.+|PYTHON_INSTALL_DIR|PYTHON_INSTALL_MIRROR|PYTHON_DOWNLOADS)"
)
_DROPPED = frozenset({"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "CONDA_PREFIX"})

_NOT_FOUND = (
    "{}: in none of the places where packages are looked for; check index-url and find-links "
    "(`pip config list`)"
)
_FAILURES: tuple[tuple[str, str], ...] = (
    ("No space left on device|Disk quota exceeded", "the disk is full; free some space"),
    (
        r"Hash mismatch for `([^`]+)`",
        "{}: the file's sha256 is not the one in the lock, so it was changed or damaged on the "
        "way; run again without the cache (UV_NO_CACHE=1), or ask whoever runs your index",
    ),
    (
        "status code:? (?:401|403)|(?:401|403) (?:Unauthorized|Forbidden)",
        "the package index refuses access; check the user name and password in its address "
        "(`pip config list`)",
    ),
    (
        "error sending request|dns error|client error|timed out|Failed to fetch|"
        "Connectivity is disabled|network was disabled",
        "the package index cannot be reached; check the network, or name a proxy or a mirror "
        "(HTTPS_PROXY, `pip config set global.index-url ADDRESS`)",
    ),
    (r"there (?:is|are) no versions? of ([^\s,]+)", _NOT_FOUND),
    (r"Because ([^\s,]+) (?:was not found|has no)", _NOT_FOUND),
    (
        r"No interpreter found for (Python [\d.]+)",
        "{} is not on this machine, and uv could not fetch it; install it and put it on PATH",
    ),
)


class UvError(WorkflowError):
    """uv failed; the message says why and what to do."""


def user_settings() -> PipSettings:
    """Return the pip settings of this user and this virtual environment."""
    return read_pip_settings(os.environ, Path(sys.prefix))


def run_uv(arguments: Sequence[str], doing: str, folder: Path | None = None) -> None:
    """Run uv, log what it says, and raise `UvError` beginning with `doing` if it fails.

    uv dies with this process, so a killed build leaves no writer behind.
    """
    variables = uv_variables(user_settings(), os.environ)
    command = [find_uv_bin(), *arguments]
    logging.info("%s", without_passwords(" ".join(["uv", *arguments])))
    code, lines = run_logged(command, clean_environment(os.environ, variables), folder)
    if code:
        raise UvError(f"{doing}: {diagnosis(lines, code)}")


def clean_environment(inherited: Mapping[str, str], more: Mapping[str, str]) -> dict[str, str]:
    """Return variables in which only the locks decide what is installed."""
    kept = {
        name: value
        for name, value in inherited.items()
        if name not in _DROPPED and (not name.startswith("UV_") or _KEPT.fullmatch(name))
    }
    return {**kept, **more}


def run_logged(
    command: Sequence[str], environ: Mapping[str, str], folder: Path | None = None
) -> tuple[int, list[str]]:
    """Run a command, log its lines as they come, and return its exit code and the lines."""
    lines = []
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=dict(environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        preexec_fn=die_with_parent,
    )
    try:
        for line in process.stdout or ():
            lines.append(line.rstrip())
            logging.info("  %s", without_passwords(lines[-1]))
        return process.wait(), lines
    except BaseException:
        process.kill()
        process.wait()
        raise


def die_with_parent() -> None:
    """Let the kernel kill this process when the one that started it dies."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def diagnosis(lines: Sequence[str], code: int) -> str:
    """Return why uv failed and what to do, in one line; the whole text is in the log."""
    text = " ".join(" ".join(lines).split())
    for pattern, message in _FAILURES:
        found = re.search(pattern, text)
        if found:
            return message.format(*found.groups())
    if code < 0:
        return f"uv was killed by signal {-code}; run again"
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    last = without_passwords(errors[-1] if errors else (lines or ["no message"])[-1])
    return f"uv says: {last}; its whole answer is in the log above"
