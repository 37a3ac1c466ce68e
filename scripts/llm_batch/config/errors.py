"""Problems of a config: where in the files each one is, and how to say it in one line."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from scripts.llm_batch.errors import ConfigError

ConfigPath = tuple[str | int, ...]
"""Keys and list positions from the top of a config to one of its values."""

MAX_SHOWN = 10
_PLAIN_KEY = re.compile(r"[\w+-]+")
COMMAND_LINE = "--config"

CONFIG_FILE = "{CONFIG}"
"""Stands in a problem's text for the config file's name, which the check does not know."""

# The loader written in C is ten times faster; PyYAML can be built without it.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong; `source` is a place found already, else `path` is looked up."""

    path: ConfigPath
    text: str
    source: str | None = None
    line_offset: int = 0


@dataclass(frozen=True)
class SourceFile:
    """A config file as YAML nodes, which know their lines; `root` is None if unreadable."""

    name: str
    root: yaml.Node | None
    loader: Any = field(repr=False)


def load_sources(paths: Sequence[Path]) -> list[SourceFile]:
    """Parse config files into nodes with line numbers; unreadable ones have none."""
    return [_load_source(path) for path in paths]


def _load_source(path: Path) -> SourceFile:
    # What the fast loader refuses, the other one, which Snakemake uses, may accept.
    for kind in (_Loader, yaml.SafeLoader):
        try:
            loader = kind(path.read_text(encoding="utf-8-sig"))
            return SourceFile(display_path(path), loader.get_single_node(), loader)
        except (OSError, ValueError, yaml.YAMLError, RecursionError):
            continue
    return SourceFile(display_path(path), None, None)


def display_path(path: Path) -> str:
    """Return `path` relative to the working directory if it lies in it."""
    try:
        return path.resolve().relative_to(Path.cwd()).as_posix()
    except (ValueError, OSError):
        return str(path)


def path_text(path: ConfigPath) -> str:
    """Return `('runs', 0, 'engine')` as `runs[0].engine`."""
    parts: list[str] = []
    for part in path:
        if isinstance(part, int):
            parts.append(f"[{part}]")
        else:
            parts.append(f".{show_key(part)}" if parts else show_key(part))
    return "".join(parts)


def show_key(key: str) -> str:
    """Return a key on one line, with quotes only when it is not plain."""
    return key if _PLAIN_KEY.fullmatch(key) else repr(key)


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """Return the choice that is most like `word`, if any is."""
    known = list(choices)
    by_lower = {choice.lower(): choice for choice in known}
    if word.lower() in by_lower:
        return by_lower[word.lower()]
    matches = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return matches[0] if matches else None


def raise_problems(problems: Sequence[Problem], raw: Any, sources: Sequence[SourceFile]) -> None:
    """Raise `ConfigError` with one line a problem (at most ten), or return if there are none."""
    if not problems:
        return
    lines = list(dict.fromkeys(_line(problem, raw, sources) for problem in problems))
    if len(lines) > MAX_SHOWN:
        lines = [*lines[:MAX_SHOWN], f"… and {len(lines) - MAX_SHOWN} more"]
    raise ConfigError("\n".join(lines))


def _line(problem: Problem, raw: Any, sources: Sequence[SourceFile]) -> str:
    place = problem.source or locate(problem.path, raw, sources, problem.line_offset)
    where = path_text(problem.path)
    text = problem.text.replace(CONFIG_FILE, sources[-1].name if sources else "CONFIG")
    return f"{place}: {where}: {text}" if where else f"{place}: {text}"


def locate(path: ConfigPath, raw: Any, sources: Sequence[SourceFile], line_offset: int = 0) -> str:
    """Return `file:line` of the value at `path`, or `--config` if no file says what `raw` does.

    The last file that has the value is taken, as it won when the files were merged. A path that
    is not in `raw` either (a missing key) is found at the nearest mapping above it.
    """
    present = _present(path, raw)
    value = _value_at(raw, present)
    for source in reversed(sources):
        found = _find(source.root, present) if source.root is not None else None
        if found is not None and not _overridden(source, found[1], value):
            return f"{source.name}:{_line_number(*found, line_offset)}"
    unreadable = [source.name for source in sources if source.root is None]
    if unreadable:
        return unreadable[-1]
    return f"{sources[-1].name}:1" if sources and not present else COMMAND_LINE


def _line_number(line_node: yaml.Node, value_node: yaml.Node, offset: int) -> int:
    if offset and getattr(value_node, "style", None) in ("|", ">"):
        return int(value_node.start_mark.line) + 1 + offset
    return int(line_node.start_mark.line) + 1


def _present(path: ConfigPath, raw: Any) -> ConfigPath:
    for length in range(len(path) + 1):
        try:
            _value_at(raw, path[:length])
        except (KeyError, IndexError, TypeError):
            return path[: length - 1]
    return path


def value_at(raw: Any, path: ConfigPath) -> Any:
    """Return the value at `path`, None if there is none."""
    try:
        return _value_at(raw, path)
    except (KeyError, IndexError, TypeError):
        return None


def _value_at(raw: Any, path: ConfigPath) -> Any:
    value = raw
    for part in path:
        if isinstance(value, str):
            raise TypeError("text has no parts")
        value = value[part]
    return value


def replaced(raw: Any, path: ConfigPath, value: Any) -> Any:
    """Return a copy of `raw` with another value at `path`."""
    if not path:
        return value
    if isinstance(raw, Mapping):
        return {**raw, path[0]: replaced(raw[path[0]], path[1:], value)}
    return [
        replaced(item, path[1:], value) if position == path[0] else item
        for position, item in enumerate(raw)
    ]


def yaml_value(text: str) -> Any:
    """Return what YAML reads in `text` if it is one plain value, else `text`."""
    try:
        value = yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError, RecursionError):
        return text
    return value if isinstance(value, (bool, int, float)) or value is None else text


def _overridden(source: SourceFile, node: yaml.Node, value: Any) -> bool:
    """Tell whether the command line replaced this value; only plain values can be compared."""
    if not isinstance(node, yaml.ScalarNode):
        return value is None or isinstance(value, (str, bool, int, float))
    try:
        written = source.loader.construct_object(node, deep=True)
    except (yaml.YAMLError, ValueError, OverflowError):
        return False
    if isinstance(written, float) and isinstance(value, float) and math.isnan(written):
        return not math.isnan(value)
    return type(written) is not type(value) or bool(written != value)


def _find(node: yaml.Node, path: ConfigPath) -> tuple[yaml.Node, yaml.Node] | None:
    """Return the node whose line names `path`, and the value's node."""
    line_node = node
    for part in path:
        if isinstance(node, yaml.MappingNode):
            pair = next((p for p in _pairs(node) if p[0].value == str(part)), None)
            if pair is None:
                return None
            line_node, node = pair
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            if part >= len(node.value):
                return None
            line_node = node = node.value[part]
        else:
            return None
    return line_node, node


def _pairs(node: yaml.MappingNode, depth: int = 0) -> Iterator[tuple[yaml.Node, yaml.Node]]:
    """Yield a mapping's own pairs (the last of duplicates first), then those merged with <<."""
    own = [pair for pair in reversed(node.value) if pair[0].tag != "tag:yaml.org,2002:merge"]
    yield from own
    for key, value in node.value:
        if key.tag == "tag:yaml.org,2002:merge" and depth < MAX_SHOWN:
            merged = value.value if isinstance(value, yaml.SequenceNode) else [value]
            for item in merged:
                if isinstance(item, yaml.MappingNode):
                    yield from _pairs(item, depth + 1)


def duplicate_keys(source: SourceFile) -> list[Problem]:
    """Return a problem for each key that a mapping of the file has twice."""
    problems: list[Problem] = []
    seen: set[int] = set()

    def visit(node: yaml.Node | None, path: ConfigPath) -> None:
        if node is None or id(node) in seen:
            return
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            for position, item in enumerate(node.value):
                visit(item, (*path, position))
        elif isinstance(node, yaml.MappingNode):
            problems.extend(_repeated(source, node, path))
            for key, value in node.value:
                visit(value, (*path, str(key.value)))

    visit(source.root, ())
    return problems


def _repeated(source: SourceFile, node: yaml.MappingNode, path: ConfigPath) -> Iterator[Problem]:
    first: dict[str, int] = {}
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            continue
        line = int(key.start_mark.line) + 1
        if key.value in first:
            yield Problem(
                (*path, key.value),
                f"written twice, first in line {first[key.value]}, and only the last would count; "
                "remove one",
                source=f"{source.name}:{line}",
            )
        first.setdefault(key.value, line)
