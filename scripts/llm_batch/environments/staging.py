"""Stage folders of environments appear whole: locks, hidden folders beside them, one rename."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from scripts.llm_batch.addresses import read_json
from scripts.llm_batch.errors import WorkflowError

_BUILDING = ".building-"


def is_finished(folder: Path, identity: Mapping[str, Any]) -> bool:
    """Whether a whole environment of this identity lies in `folder`."""
    if not ((folder / "manifest.json").is_file() and (folder / "identity.json").is_file()):
        return False
    return bool(read_json(folder / "identity.json").get("identity") == dict(identity))


@contextmanager
def building_lock(folder: Path) -> Iterator[None]:
    """Hold the lock of `folder`; the kernel releases it when its holder dies."""
    path = _lock_file(folder)
    lock = FileLock(path)
    try:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            logging.info("%s: being built by another process; waiting for it", folder)
            lock.acquire()
    except (OSError, NotImplementedError) as error:
        raise WorkflowError(
            f"{path}: cannot be locked ({error}); put the project on a disk with file locks"
        ) from None
    try:
        yield
    finally:
        lock.release()


def _lock_file(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.lock")


def remove_leftovers(folder: Path) -> None:
    """Remove what killed builders left beside `folder`; the caller holds its lock."""
    for leftover in folder.parent.glob(f".*{_BUILDING}*"):
        other = leftover.with_name(leftover.name[1:].rpartition(_BUILDING)[0])
        lock = FileLock(_lock_file(other))
        try:
            if other.name != folder.name:
                # Somebody who is alive and builds there holds this lock.
                lock.acquire(timeout=0)
            logging.info("%s: left by a builder that was killed; removed", leftover)
            shutil.rmtree(leftover, ignore_errors=True)
        except Timeout:
            continue
        finally:
            lock.release()


@contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """Yield a new folder of the same name below a hidden sibling, which goes in the end."""
    hidden = folder.with_name(f".{folder.name}{_BUILDING}{os.getpid()}")
    staged = hidden / folder.name
    staged.mkdir(parents=True)
    try:
        yield staged
    finally:
        shutil.rmtree(hidden, ignore_errors=True)


def put_in_place(staged: Path, folder: Path) -> None:
    """Rename `staged` to `folder`; what lay there unfinished goes with the staging folder."""
    if folder.exists():
        folder.rename(staged.with_name("replaced"))
    staged.rename(folder)
