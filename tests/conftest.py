"""What several kinds of tests share: the real environment of the CPU engine."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.llm_batch.addresses import address, canonical_json
from scripts.llm_batch.environments.identity import LM_EVAL, environment_identity

ROOT = Path(__file__).resolve().parents[1]


def built_cpu_environment() -> Path:
    """Return the environment `cpu`, where `make quickstart` builds it; built here if it is not."""
    return built_environment("cpu")


@functools.cache
def built_environment(name: str) -> Path:
    """Return an environment of the checkout; built here if it is not there."""
    identity = environment_identity(name, ROOT / "envs")
    folder = ROOT / "results/environments" / f"{name}-{address('environments', identity)}"
    if not (folder / "manifest.json").is_file():
        command = [sys.executable, "-m", "scripts.build_environment"]
        command += ["--identity", canonical_json(identity), "--environments-dir", "envs"]
        command += ["--output", str(folder / "manifest.json")]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=900)
    return folder


@pytest.fixture(scope="session")
def lm_eval_environment() -> Path:
    """The environment of lm-evaluation-harness of the checkout."""
    return built_environment(LM_EVAL)


@pytest.fixture(scope="session")
def cpu_environment() -> Path:
    """The environment `cpu` of the checkout."""
    return built_cpu_environment()
