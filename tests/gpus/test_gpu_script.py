"""The script for a real GPU works, shown with a made-up card."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_checks_of_a_real_gpu_pass_on_a_simulated_one() -> None:
    command = [sys.executable, "-m", "tests.peers.gpu_leases", "--simulated"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count(" ok ") >= 8
    assert "FAILED" not in done.stdout
