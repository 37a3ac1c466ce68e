"""Every file that an environment is built from, in one folder: to build without a network."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from pathlib import Path

from scripts.llm_batch.environments.archives import obtain
from scripts.llm_batch.environments.conda_pins import read_pins
from scripts.llm_batch.environments.conda_settings import read_conda_settings
from scripts.llm_batch.environments.identity import (
    EnvironmentSpec,
    canonical_name,
    lock_path,
    pin_path,
    requirement_blocks,
)
from scripts.llm_batch.environments.lock_wheels import wheel_platforms
from scripts.llm_batch.environments.uv_calls import clean_environment, run_logged
from scripts.llm_batch.errors import WorkflowError


def download(spec: EnvironmentSpec, envs: Path, target: Path) -> None:
    """Put the wheels and the conda archives of an environment into `target`, checked by hash.

    What is there already is not loaded again. Raises `WorkflowError` if something is nowhere.
    """
    target.mkdir(parents=True, exist_ok=True)
    pins = pin_path(spec.name, envs)
    if pins.is_file():
        logging.info("conda archives of %s", pins.name)
        obtain(read_pins(pins), target, read_conda_settings(os.environ))
    elsewhere = {canonical_name(p): url for url, names in spec.indexes.items() for p in names}
    elsewhere |= {canonical_name(package): url for package, url in spec.files.items()}
    parts: dict[str, list[str]] = {}
    for block in requirement_blocks(lock_path(spec.name, envs).read_text(encoding="utf-8")):
        url = elsewhere.get(canonical_name(block.split("==")[0].strip()), "")
        parts.setdefault(url, []).append(block)
    for url, blocks in parts.items():
        _download(spec, blocks, url, target)


def _download(spec: EnvironmentSpec, blocks: list[str], url: str, target: Path) -> None:
    """Let pip load wheels, by the user's own settings and from `url`, an index or a wheel."""
    if url.endswith(".whl"):
        name, _, rest = blocks[0].partition("==")
        blocks = [f"{name.strip()} @ {url} {rest.partition(' ')[2]}"]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "requirements.txt"
        file.write_text("\n".join(blocks) + "\n", encoding="utf-8")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--require-hashes"]
        command += ["--no-deps", "--only-binary", ":all:", "--dest", str(target.absolute())]
        command += ["--find-links", str(target.absolute()), *_platform(spec)]
        command += ["--extra-index-url", url] if url and not url.endswith(".whl") else []
        command += ["--requirement", str(file)]
        code, lines = run_logged(command, clean_environment(os.environ, {}))
    if code:
        said = [line for line in lines if line.startswith("ERROR")] or lines or ["nothing"]
        raise WorkflowError(f"environment {spec.name}: pip cannot load its wheels: {said[-1]}")


def _platform(spec: EnvironmentSpec) -> list[str]:
    version = spec.python.replace(".", "")
    words = ["--python-version", spec.python, "--implementation", "cp"]
    words += [word for abi in (f"cp{version}", "abi3", "none") for word in ("--abi", abi)]
    return words + [word for name in wheel_platforms(spec) for word in ("--platform", name)]
