"""How every program ends: exit codes, one line for what a user can mend, and silence besides."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.unit.tiny_environments import ROOT

USER_ERROR = "raise errors.WorkflowError('a.yaml: wrong; mend it')"


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        ("return 0", 0, ""),
        ("return 3", 3, ""),
        (USER_ERROR, 1, "error: a.yaml: wrong; mend it\n"),
        ("raise KeyboardInterrupt", 130, "error: interrupted\n"),
    ],
)
def test_a_program_says_no_more_than_it_has_to_say(body: str, code: int, said: str) -> None:
    # duckdb reports, at the end of a process, what Python has not given back to it.
    program = (
        f"import duckdb\nfrom scripts.llm_batch import errors\ndef main():\n    {body}\n"
        "errors.run_cli(main)"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stderr) == (code, said)
