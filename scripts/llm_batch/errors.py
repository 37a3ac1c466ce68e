"""Errors that a user can act on, and the wrapper that prints them as one line."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import NoReturn


class WorkflowError(Exception):
    """Something the user can mend: the message says what, where and how, in one line."""


class ConfigError(WorkflowError):
    """The configuration is wrong; nothing has been run."""


def run_cli(main: Callable[[], int]) -> NoReturn:
    """Run a program's `main`, turn a `WorkflowError` into one line on stderr, and exit.

    Exit codes: what `main` returns, 1 for a `WorkflowError`, 130 for Ctrl-C. Any other exception
    is a defect of ours and keeps its trace.
    """
    logging.basicConfig(
        level=logging.INFO,
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(message)s",
        datefmt="%H:%M:%S",
    )
    try:
        code = main()
    except WorkflowError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 1
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        code = 130
    sys.exit(code)
