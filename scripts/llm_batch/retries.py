"""Errors that are asked again: which errors in which journals no longer count as answers.

Journals are never changed. `retried.json` beside their folder names those that were there when
errors were given up, with the types of error that no longer count in them; what a later journal
says counts again. So a retry survives being killed, and cannot go on for ever.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from scripts.llm_batch.addresses import read_json, write_json_atomic

RETRYABLE = ("engine_killed", "output_corrupted")
"""Errors that another try could answer. All others are decided by the prompt and the engine."""

NO_ERRORS: frozenset[str] = frozenset()

Marks = Mapping[Path, frozenset[str]]
"""For the path of a journal the types of error that no longer count in it."""


def read_marks(journals: Iterable[Path]) -> Marks:
    """Return which errors no longer count in which of `journals`."""
    paths = list(journals)
    marked = {folder: _read(folder) for folder in {path.parent for path in paths}}
    return {path: frozenset(marked[path.parent].get(path.name, ())) for path in paths}


def write_marks(folder: Path, marks: Marks) -> None:
    """Have the errors of `marks` count no longer, besides those that do not already.

    `folder` is the folder of the journals.
    """
    record = {name: set(kinds) for name, kinds in _read(folder).items()}
    for path, kinds in marks.items():
        record.setdefault(path.name, set()).update(kinds)
    write_json_atomic(_file(folder), {name: sorted(kinds) for name, kinds in record.items()})


def _file(folder: Path) -> Path:
    return folder.parent / "retried.json"


def _read(folder: Path) -> Mapping[str, list[str]]:
    path = _file(folder)
    record: Mapping[str, list[str]] = read_json(path) if path.is_file() else {}
    return record
