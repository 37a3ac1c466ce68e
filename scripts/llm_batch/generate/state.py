"""The folder with the state of a shard, which also tells afterwards what happened."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import platform
import time
from pathlib import Path
from typing import IO

from scripts.llm_batch.errors import WorkflowError

NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP})
"""What shared disks without locks say; there SLURM and Snakemake see to it that one job runs."""

log = logging.getLogger(__name__)

LOCK_WAIT_S = 30.0
"""So long a supervisor whose workflow was killed may need to notice and stop."""


class ShardFolder:
    """`shards/<name>/` beside the journals, for one supervisor at a time.

    The lock is the kernel's: it is gone when the process is, however that ended.
    """

    def __init__(self, journals: Path, name: str) -> None:
        self._folder = journals.parent / "shards" / name
        self._lock: IO[str] | None = None

    def __enter__(self) -> Path:
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / "lock"
        self._lock = path.open("a+")
        deadline = time.monotonic() + LOCK_WAIT_S
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if error.errno in NO_LOCKS:
                    log.info("%s: this disk has no locks; nothing stops a second process", path)
                    break
                if time.monotonic() > deadline:
                    raise self._taken(path) from None
            time.sleep(0.2)
        self._lock.truncate(0)
        self._lock.write(f"pid {os.getpid()} on {platform.node()}\n")
        self._lock.flush()
        return self._folder

    def _taken(self, path: Path) -> WorkflowError:
        owner = path.read_text().strip() or "unknown"
        return WorkflowError(
            f"{self._folder}: another process ({owner}) answers this shard; wait for it or stop it"
        )

    def __exit__(self, *_: object) -> None:
        for name in ("open.jsonl", "open.greedy.jsonl"):
            with contextlib.suppress(OSError):
                (self._folder / name).unlink()
        if self._lock is not None:
            self._lock.close()
