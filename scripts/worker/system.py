"""What the worker asks of the operating system."""

from __future__ import annotations

import ctypes
import os
import signal

_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Have the kernel kill this process when the thread that started it ends (Linux only)."""
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    except (AttributeError, OSError):
        return


def children_die_with_us() -> None:
    """Apply `die_with_parent` in processes that are forked rather than spawned."""
    os.register_at_fork(after_in_child=die_with_parent)
