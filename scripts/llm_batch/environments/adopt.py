"""Make the stage folder of an interpreter that is there: what it has, and how to call it."""

from __future__ import annotations

import logging
import shlex
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scripts.llm_batch.addresses import write_identity, write_json_atomic, write_manifest
from scripts.llm_batch.environments.build import environment_record
from scripts.llm_batch.environments.checks import probe
from scripts.llm_batch.environments.external import ask, check, external_identity, find_program
from scripts.llm_batch.environments.staging import (
    building_lock,
    is_finished,
    put_in_place,
    remove_leftovers,
    staging,
)
from scripts.llm_batch.errors import WorkflowError

IMPORTS = ("torch", "vllm")


def record_environment(identity: Mapping[str, Any], python: Path, folder: Path) -> None:
    """Make `folder` the environment of the interpreter `python`; at once if it is there already.

    Raises `WorkflowError` if the interpreter has other packages than when the workflow was planned,
    or cannot import torch and vLLM.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with building_lock(folder):
        if is_finished(folder, identity):
            logging.info("%s: recorded already", folder)
            return
        remove_leftovers(folder)
        place = str(find_program(python))
        found = ask(place)
        check(place, found)
        if external_identity(found) != dict(identity):
            raise WorkflowError(
                f"{place}: its packages changed since the workflow was planned; run it again"
            )
        with staging(folder) as staged:
            describe(staged, place, folder.name.rpartition("-")[0], identity)
            put_in_place(staged, folder)
    logging.info("%s: recorded", folder)


def describe(staged: Path, place: str, name: str, identity: Mapping[str, Any]) -> None:
    """Write what calls the interpreter at `place`, check it, and describe it."""
    python = staged / "bin/python"
    python.parent.mkdir()
    # A link to it would not do: a virtual environment is found by the path it is called by.
    python.write_text(f'#!/bin/sh\nexec {shlex.quote(place)} "$@"\n', encoding="utf-8")
    python.chmod(0o755)
    scratch = staged.with_name("scratch")
    scratch.mkdir()
    started = time.monotonic()
    installed = probe(python, name, IMPORTS, scratch, isolated=False)
    seconds = {"check": round(time.monotonic() - started, 1)}
    write_identity(staged, "environments", identity)
    record = environment_record(name, installed, seconds, 0)
    # What is called from here on decides, wherever it was found first.
    record |= {"external": place, "built_with": {}, "torch": identity["external"]["torch"]}
    write_json_atomic(staged / "environment.json", record)
    files = [staged / "identity.json", staged / "environment.json", python]
    write_manifest(staged, files, {"packages": len(installed.packages), "seconds": seconds})
