"""Locks of this machine that its users share; the kernel ends them with the process that has them.

They are `flock`s on small files that are never deleted. The folder is sticky and open to all, so
two users share it, and neither can take the other's locks away. Whoever puts a link, a pipe or a
second name where a lock belongs gets an error, not another file of ours.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scripts.llm_batch.errors import WorkflowError

VARIABLE = "LLM_BATCH_LOCK_FOLDER"
NAME = "llm-batch-inference"
PARENTS = (Path("/run/lock"), Path("/tmp"))
"""Not TMPDIR: users whose folders differ would not see each other."""

OPEN_TO_ALL = 0o1777
LARGEST_NOTE = 4096


def lock_folder(environ: Mapping[str, str]) -> LockFolder:
    """Return the folder that all users of this machine agree on, or that of the variable."""
    if own := environ.get(VARIABLE):
        return LockFolder(Path(own))
    for parent in PARENTS:
        with contextlib.suppress(OSError):
            if stat.S_IMODE(parent.stat().st_mode) & OPEN_TO_ALL == OPEN_TO_ALL:
                return LockFolder(parent / NAME)
    raise WorkflowError(
        f"no folder for the locks of GPUs: neither of {', '.join(map(str, PARENTS))} is open to "
        f"all users; name one that is by {VARIABLE}"
    )


class Lock:
    """A lock that is held. What the holder says about itself lies in the file, for messages."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def note(self, about: Mapping[str, Any]) -> None:
        """Say who holds the lock."""
        text = json.dumps(about).encode()[:LARGEST_NOTE]
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, text, 0)

    def read(self) -> dict[str, Any]:
        """Return what the last holder said, empty if nothing that can be read."""
        return _read_note(self._descriptor)

    def release(self) -> None:
        """Give the lock back."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class LockFolder:
    """A folder of locks; made when it is first used."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def opened(self) -> Iterator[int]:
        """Yield a descriptor of the folder; raises `WorkflowError` for what is no such folder."""
        try:
            with _open_permissions():
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with contextlib.suppress(FileExistsError):
                    self.path.mkdir(OPEN_TO_ALL)
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            folder = os.open(self.path, flags)
        except OSError as error:
            raise self._unusable(error) from None
        try:
            yield folder
        except OSError as error:
            raise self._unusable(error) from None
        finally:
            os.close(folder)

    def take(self, name: str, wait: bool = False) -> Lock | None:
        """Return the lock `name`; None if another process holds it and `wait` is false."""
        with self.opened() as folder:
            return take(folder, name, wait)

    def _unusable(self, error: OSError) -> WorkflowError:
        return WorkflowError(
            f"{self.path}: locks cannot be kept there ({error.strerror or error}); remove it, or "
            f"name another folder by {VARIABLE}"
        )


@contextmanager
def _open_permissions() -> Iterator[None]:
    """Let what is made inside be open to all from its first moment on."""
    before = os.umask(0)
    try:
        yield
    finally:
        os.umask(before)


def take(folder: int, name: str, wait: bool = False, make: bool = True) -> Lock | None:
    """Return the lock `name` in the folder with descriptor `folder`.

    None if another process holds it and `wait` is false, or if it is not there and `make` is false.
    """
    while True:
        descriptor = _open(folder, name, make)
        if descriptor is None:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError:
            os.close(descriptor)
            raise
        if _is_current(folder, name, descriptor):
            return Lock(descriptor)
        # Somebody cleaned the folder up between our opening and our locking.
        os.close(descriptor)
        if not make:
            return None


def note_of(folder: int, name: str) -> dict[str, Any]:
    """Return what the holder of the lock `name` said about itself."""
    descriptor = _open(folder, name, make=False)
    if descriptor is None:
        return {}
    try:
        return _read_note(descriptor)
    finally:
        os.close(descriptor)


def _open(folder: int, name: str, make: bool) -> int | None:
    """Open the file of a lock.

    Existing ones are opened without O_CREAT: the kernel refuses that for files of another user in
    a sticky folder (fs.protected_regular).
    """
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    while True:
        try:
            descriptor = os.open(name, flags, dir_fd=folder)
            break
        except FileNotFoundError:
            if not make:
                return None
        try:
            with _open_permissions():
                descriptor = os.open(name, flags | os.O_CREAT | os.O_EXCL, 0o666, dir_fd=folder)
            break
        except FileExistsError:
            continue
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        os.close(descriptor)
        raise OSError(errno.EPERM, f"{name} is not a file of its own")
    return descriptor


def _is_current(folder: int, name: str, descriptor: int) -> bool:
    try:
        there = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    held = os.fstat(descriptor)
    return (there.st_dev, there.st_ino) == (held.st_dev, held.st_ino)


def _read_note(descriptor: int) -> dict[str, Any]:
    try:
        note = json.loads(os.pread(descriptor, LARGEST_NOTE, 0))
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}
