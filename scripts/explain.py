"""Say in words what an address is made of, or why two addresses differ.

    python -m scripts.explain results/runs/A                  what A is made of
    python -m scripts.explain results/runs/A results/runs/B   why A and B differ

A path may be a stage folder, a file in one, or a link such as results/experiments/E/runs/R.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from scripts.llm_batch.addresses import read_json
from scripts.llm_batch.errors import WorkflowError, run_cli

ADDRESSED_BY: Mapping[str, str] = {
    "model": "models",
    "adapter": "adapters",
    "environment": "environments",
    "run": "runs",
    "runs": "runs",
    "evaluation": "evaluations",
}
"""Keys of an identity whose values are addresses, and the stage they lie in."""


class Difference(NamedTuple):
    """One place where two identities differ; `None` where it is absent."""

    where: str
    left: Any
    right: Any


def build_parser() -> argparse.ArgumentParser:
    """Return the command line of this program."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("paths", type=Path, nargs="+", metavar="PATH", help="one or two paths")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Print the explanation; 0, also when the two differ."""
    paths: list[Path] = build_parser().parse_args(argv).paths
    if len(paths) > 2:
        raise WorkflowError(f"one or two paths are compared, not {len(paths)}")
    folders = [stage_folder(path) for path in paths]
    lines = describe(folders[0]) if len(folders) == 1 else compare(folders[0], folders[1])
    print("\n".join(lines))
    return 0


def stage_folder(path: Path) -> Path:
    """Return the stage folder that `path` is or lies in."""
    try:
        real = path.resolve(strict=True)
    except OSError:
        raise WorkflowError(f"{path}: no such file or folder") from None
    for folder in (real, *real.parents):
        if (folder / "identity.json").is_file():
            return folder
    raise WorkflowError(f"{path}: not in a stage folder (no identity.json there or above)")


def describe(folder: Path) -> Iterator[str]:
    """Yield lines that say what the address of `folder` is made of."""
    record = read_json(folder / "identity.json")
    yield f"{folder.name}: stage {record['stage']}, version {record['version']}, made of"
    yield from (f"  {where}: {_show(value)}" for where, value in _leaves(expand(folder)))


def compare(left: Path, right: Path) -> Iterator[str]:
    """Yield lines that say why two addresses differ."""
    stages = [read_json(folder / "identity.json") for folder in (left, right)]
    if left.name.rpartition("-")[2] == right.name.rpartition("-")[2]:
        yield f"{left.name} and {right.name} have the same address: they are the same question"
        return
    if stages[0]["stage"] != stages[1]["stage"]:
        yield f"{left.name} is of stage {stages[0]['stage']}, {right.name} of {stages[1]['stage']}"
        return
    yield f"{left.name} and {right.name} differ in"
    if stages[0]["version"] != stages[1]["version"]:
        yield f"  the version of the stage: {stages[0]['version']} | {stages[1]['version']}"
    for difference in differences(expand(left), expand(right)):
        yield f"  {_in_words(difference)}"


def expand(folder: Path) -> dict[str, Any]:
    """Return the identity in `folder`, with the identities behind its addresses where present."""
    identity = read_json(folder / "identity.json")["identity"]
    expanded = _expand(identity, folder.parent.parent)
    return expanded if isinstance(expanded, dict) else {}


def _expand(value: Any, results: Path) -> Any:
    if not isinstance(value, Mapping):
        return value
    return {key: _expand_item(key, item, results) for key, item in value.items()}


def _expand_item(key: str, item: Any, results: Path) -> Any:
    if key in ADDRESSED_BY and isinstance(item, str):
        found = list((results / ADDRESSED_BY[key]).glob(f"*-{item}/identity.json"))
        return {"address": item, **expand(found[0].parent)} if found else {"address": item}
    return _expand(item, results)


def differences(left: Any, right: Any, where: str = "") -> Iterator[Difference]:
    """Yield the places where two JSON values differ, deepest first named."""
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        for key in sorted({*left, *right}):
            inner = f"{where}.{key}" if where else key
            yield from differences(left.get(key), right.get(key), inner)
    elif left != right:
        yield Difference(where, left, right)


def _in_words(difference: Difference) -> str:
    where, left, right = difference
    if left is None:
        return f"{where}: absent | {_show(right)}"
    if right is None:
        return f"{where}: {_show(left)} | absent"
    return f"{where}: {_show(left)} | {_show(right)}"


def _leaves(value: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key in sorted(value):
            yield from _leaves(value[key], f"{where}.{key}" if where else key)
    else:
        yield where, value


def _show(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)


if __name__ == "__main__":
    run_cli(main)
