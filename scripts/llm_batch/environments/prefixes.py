"""Conda packages hold the path of their environment; here it is written anew after a move.

Text is replaced. In machine code the path stands in a string that ends with a zero and has room for
the placeholder that the package was built with, so a shorter path is filled up with zeros.
Source: conda's recommendation "Making packages relocatable".
"""

from __future__ import annotations

import json
import logging
import os
import re
from pathlib import Path

from scripts.llm_batch.addresses import read_json, write_json_atomic
from scripts.llm_batch.environments.staging import building_lock
from scripts.llm_batch.errors import WorkflowError


def is_in_place(folder: Path) -> bool:
    """Whether a built environment lies where its files say; one without conda always does."""
    prefix = read_json(folder / "environment.json").get("prefix")
    if prefix is None or prefix == str(folder.absolute()):
        return True
    try:
        # The same folder by another way: a link, or a disk that is mounted twice.
        return Path(prefix).samefile(folder)
    except OSError:
        return False


def keep_in_place(folder: Path) -> None:
    """Let the files of a built environment say where it lies now, if it was moved or copied."""
    if is_in_place(folder):
        return
    try:
        with building_lock(folder):
            if not is_in_place(folder):
                write_prefix(folder)
    except OSError as error:
        raise WorkflowError(
            f"{folder}: was moved from where it was built, and its files cannot be changed "
            f"({error}); delete it and run again to build it anew"
        ) from None


def write_prefix(folder: Path, place: Path | None = None) -> None:
    """Write the path of `folder` into all files that hold the path it had; the caller locks it.

    `place` is another path to write, for an environment that goes there.
    A process that dies halfway leaves files that say either; the next one does the rest. Raises
    `WorkflowError` if the new path is too long for a file.
    """
    record = read_json(folder / "environment.json")
    old, new = str(record["prefix"]), str((place or folder).absolute())
    logging.info("%s: was moved from %s; its files are told", folder, old)
    for path, placeholder in files_with_prefix(folder):
        rewrite(path, old.encode(), new.encode(), placeholder)
    rewrite_scripts(folder / "bin", old, new)
    python = {**record["python"], "base": new}
    write_json_atomic(folder / "environment.json", {**record, "python": python, "prefix": new})


def files_with_prefix(folder: Path) -> list[tuple[Path, int]]:
    """Return the files of conda packages that hold their prefix, and the room for it in bytes.

    The room is 0 for text, which can grow.
    """
    found = []
    for meta in sorted((folder / "conda-meta").glob("*.json")):
        for entry in json.loads(meta.read_text(encoding="utf-8"))["paths_data"]["paths"]:
            placeholder = entry.get("prefix_placeholder")
            if placeholder:
                room = len(placeholder.encode()) if entry.get("file_mode") == "binary" else 0
                found.append((folder / entry["_path"], room))
    return found


def rewrite(path: Path, old: bytes, new: bytes, room: int) -> None:
    """Replace the prefix in one file, which is replaced as a whole or not at all."""
    if path.is_symlink() or not path.is_file():
        return
    before = path.read_bytes()
    after = replace_padded(before, old, new, room, path) if room else before.replace(old, new)
    if after != before:
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_bytes(after)
        temporary.chmod(path.stat().st_mode)
        temporary.replace(path)


def replace_padded(data: bytes, old: bytes, new: bytes, room: int, path: Path) -> bytes:
    """Return machine code with `old` replaced by `new` in strings, its length unchanged.

    Each `old` stands where `room` bytes were, so so many zeros follow at the string's end.
    """

    def replace(match: re.Match[bytes]) -> bytes:
        text, zeros = match[1], match[2]
        space = len(text) + text.count(old) * (room - len(old))
        changed = text.replace(old, new)
        if len(changed) > space or len(text) + len(zeros) < space:
            raise WorkflowError(
                f"{path}: no room for the path {os.fsdecode(new)}; put the project where its path "
                "is shorter"
            )
        # What follows the string's own room is not ours.
        rest = zeros[space - len(text) :]
        return changed + b"\0" * (space - len(changed)) + rest

    return re.sub(rb"(" + re.escape(old) + rb"[^\0]*)(\0+)", replace, data)


def rewrite_scripts(folder: Path, old: str, new: str) -> None:
    """Replace the prefix in the first lines of the programs that wheels brought."""
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as stream:
                is_script = stream.read(2) == b"#!"
            if is_script:
                rewrite(path, old.encode(), new.encode(), 0)
