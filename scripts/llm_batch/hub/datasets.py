"""Data sets on the hub: which files hold a split, from the README's `configs` or the usual names.

Only files are read, never a data set's own code. Conventions of names: the hub's documentation,
"Data files Configuration" and "File names and splits".
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any

from scripts.llm_batch.data.formats import FORMATS, data_format
from scripts.llm_batch.errors import WorkflowError

CARD = "README.md"
ALL = "all"
"""Names the files of a data set that were not chosen by a split."""

_SYNONYMS: Mapping[str, str] = {
    "training": "train",
    "testing": "test",
    "eval": "test",
    "evaluation": "test",
    "dev": "validation",
    "val": "validation",
    "valid": "validation",
}
_WORD = re.compile(r"[a-z]+")


def split_patterns(card: Mapping[str, Any], config: str | None) -> dict[str, list[str]] | None:
    """Return the patterns of each split by a card's `configs`, None if it has none.

    Raises `WorkflowError` if the config is not one of several there.
    """
    configs = [one for one in card.get("configs") or () if isinstance(one, Mapping)]
    configs = [one for one in configs if one.get("data_files") or one.get("data_dir")]
    if not configs:
        return None
    by_name = {str(one.get("config_name", "default")): one for one in configs}
    if config is None and len(by_name) > 1:
        raise WorkflowError(f"has several configs; add config: one of {_listed(by_name)}")
    chosen = by_name.get(config or next(iter(by_name)))
    if chosen is None:
        raise WorkflowError(f"has no config '{config}'; take one of {_listed(by_name)}")
    folder = str(chosen.get("data_dir") or "").strip("/")
    if not chosen.get("data_files"):
        return None if not folder else {ALL: [f"{folder}/*"]}
    return {
        split: [f"{folder}/{pattern}" if folder else pattern for pattern in patterns]
        for split, patterns in _patterns(chosen["data_files"]).items()
    }


def _patterns(value: Any) -> dict[str, list[str]]:
    """Return patterns by split; without names they are the split `train`, as on the hub."""
    if isinstance(value, str):
        return {"train": [value]}
    if isinstance(value, Mapping):
        return {str(split): _texts(patterns) for split, patterns in value.items()}
    found: dict[str, list[str]] = {}
    for item in value:
        if isinstance(item, Mapping):
            found.setdefault(str(item.get("split", "train")), []).extend(_texts(item.get("path")))
        else:
            found.setdefault("train", []).append(str(item))
    return found


def _texts(value: Any) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else [str(value)]


def choose_splits(
    paths: Collection[str],
    card: Mapping[str, Any],
    config: str | None,
    splits: Sequence[str] | None,
    patterns: Sequence[str] | None = None,
) -> dict[str, list[str]]:
    """Return the files of each wanted split, sorted; `all` has them if no split is named.

    `patterns` choose files by name instead. Raises `WorkflowError` with what there is to choose.
    """
    data = sorted(path for path in paths if is_data(path))
    if patterns is not None:
        chosen = {ALL: [p for p in data if any(fnmatchcase(p, pattern) for pattern in patterns)]}
        if not chosen[ALL]:
            raise WorkflowError(f"no data file matches {_listed(patterns)} of `files`")
        return _of_one_format(chosen)
    if not data:
        raise WorkflowError(
            "has no data files that can be read (Parquet, CSV, JSON, text), maybe only a script; "
            "the hub makes Parquet of many: write revision: refs/convert/parquet and pin it"
        )
    by_card = split_patterns(card, config)
    if by_card is not None:
        known = {
            split: [p for p in data if any(_matches(p, pattern) for pattern in wanted)]
            for split, wanted in by_card.items()
        }
    else:
        known = _by_name(data, config)
    return _of_one_format(_wanted(known, splits))


def _wanted(known: Mapping[str, list[str]], splits: Sequence[str] | None) -> dict[str, list[str]]:
    if splits is None:
        if len(known) > 1:
            raise WorkflowError(f"has several splits; add split: one of {_listed(known)}")
        return {ALL: next(iter(known.values()))}
    missing = [split for split in splits if not known.get(split)]
    if missing:
        raise WorkflowError(f"has no split '{missing[0]}'; take one of {_listed(known)}")
    return {split: known[split] for split in splits}


def _by_name(data: Sequence[str], config: str | None) -> dict[str, list[str]]:
    """Return files by the split that their folder or name says; `train` for those that say none."""
    if config is not None:
        folders = sorted({path.split("/")[0] for path in data if "/" in path})
        data = [path for path in data if path.startswith(f"{config}/")]
        if not data:
            raise WorkflowError(f"has no config '{config}'; folders there are {_listed(folders)}")
    known: dict[str, list[str]] = {}
    for path in data:
        words = _WORD.findall(path.lower())
        names = [_SYNONYMS.get(word, word) for word in words]
        split = next((n for n in reversed(names) if n in ("train", "test", "validation")), "train")
        known.setdefault(split, []).append(path)
    return known


def _matches(path: str, pattern: str) -> bool:
    plain = pattern.removeprefix("./").replace("**/", "*")
    return fnmatchcase(path, plain) or fnmatchcase(path, f"{plain.rstrip('/')}/*")


def _of_one_format(chosen: dict[str, list[str]]) -> dict[str, list[str]]:
    for split, paths in chosen.items():
        formats = sorted({data_format(Path(path)) for path in paths})
        if len(formats) > 1:
            raise WorkflowError(
                f"has {' and '.join(formats)} files for '{split}', maybe the same data twice; "
                f"choose by `files`, for example files: ['*{formats[-1]}']"
            )
    return chosen


def is_data(path: str) -> bool:
    """Tell whether a file of a repository is one of rows, by its name."""
    name = PurePosixPath(path).name
    about = name.startswith(".") or name.lower() in ("dataset_infos.json", "requirements.txt")
    return not about and data_format(Path(path)) in {*FORMATS, ".jsonl"}


def _listed(names: Collection[str]) -> str:
    shown = [f"'{name}'" for name in list(names)[:20]]
    return ", ".join(shown) + (", …" if len(names) > 20 else "") or "none"
