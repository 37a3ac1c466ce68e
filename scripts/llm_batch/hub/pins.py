"""Commits for a config: which of its repositories have none, and the text with them written in.

Only the characters of a revision are changed or added: comments, order and spacing stay.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import yaml

from scripts.llm_batch.errors import ConfigError
from scripts.llm_batch.hub.source import COMMIT, Kind, Source


class Pin(NamedTuple):
    """A revision in a config: where it is, what it is of, and how its text is replaced.

    `revision` is what is written now, None if nothing is. The commit replaces the text from `start`
    to `end`, between `before` and `after`.
    """

    where: str
    source: Source
    revision: str | None
    start: int
    end: int
    before: str
    after: str

    @property
    def pinned(self) -> bool:
        """Whether it is a commit already."""
        return self.revision is not None and COMMIT.fullmatch(self.revision) is not None


_SECTIONS: Mapping[str, tuple[str, Kind]] = {
    "models": ("repo", "model"),
    "adapters": ("repo", "model"),
    "prompts": ("dataset", "dataset"),
}
"""Sections with repositories, the key that names one, and its kind."""


def find_pins(text: str, quoted: bool = False) -> list[Pin]:
    """Return the revisions of a config's text, in its order; `quoted`: the text is JSON.

    Raises `ConfigError` if it is no YAML mapping.
    """
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise ConfigError(f"not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(root, yaml.MappingNode):
        raise ConfigError("not a mapping of sections; begin with config/config.yaml as a model")
    found: dict[int, Pin] = {}
    for section, entries in _pairs(root):
        if section.value not in _SECTIONS or not isinstance(entries, yaml.MappingNode):
            continue
        for name, entry in _pairs(entries):
            if isinstance(entry, yaml.MappingNode):
                where = f"{section.value}.{name.value}"
                for pin in _entry_pins(where, section.value, entry, text, quoted):
                    # An entry that several names share by an alias is written once.
                    found.setdefault(pin.start, pin)
    return [found[start] for start in sorted(found)]


def write_pins(text: str, commits: Mapping[Pin, str]) -> str:
    """Return the text with each pin's commit in place.

    Raises `ConfigError` if anything else would change: then the file has a form not foreseen.
    """
    new = text
    for pin in sorted(commits, key=lambda pin: -pin.start):
        new = new[: pin.start] + pin.before + commits[pin] + pin.after + new[pin.end :]
    expected = _with_commits(yaml.safe_load(text), commits)
    if json.loads(json.dumps(yaml.safe_load(new), default=str)) != expected:
        where = ", ".join(pin.where for pin in commits)
        written = ", ".join(f"{pin.where}: {commit}" for pin, commit in commits.items())
        raise ConfigError(f"{where}: cannot be edited safely; write by hand {written}")
    return new


def _entry_pins(
    where: str, section: str, entry: yaml.MappingNode, text: str, quoted: bool
) -> Iterator[Pin]:
    key, kind = _SECTIONS[section]
    named = {pair[0].value: pair for pair in _pairs(entry)}
    if key in named and isinstance(named[key][1], yaml.ScalarNode):
        repo = named[key][1].value
        if "revision" in named and isinstance(named["revision"][1], yaml.ScalarNode):
            yield _replacement(where, repo, kind, named["revision"][1], quoted)
        else:
            yield _insertion(where, repo, kind, entry, named[key], text, quoted)
    code = named.get("code")
    if section == "models" and code is not None and isinstance(code[1], yaml.MappingNode):
        for repo_node, revision in _pairs(code[1]):
            if isinstance(revision, yaml.ScalarNode):
                place = f"{where}.code.{repo_node.value}"
                yield _replacement(place, repo_node.value, "model", revision, quoted)


def _replacement(where: str, repo: str, kind: Kind, node: yaml.ScalarNode, quoted: bool) -> Pin:
    empty = node.tag == "tag:yaml.org,2002:null"
    revision = None if empty else str(node.value)
    start, end = node.start_mark.index, node.end_mark.index
    mark = '"' if quoted else ""
    before = f" {mark}" if start == end else mark
    return Pin(where, Source(repo, revision or "main", kind), revision, start, end, before, mark)


def _insertion(
    where: str,
    repo: str,
    kind: Kind,
    entry: yaml.MappingNode,
    pair: tuple[yaml.Node, yaml.Node],
    text: str,
    quoted: bool,
) -> Pin:
    source = Source(repo, "main", kind)
    if entry.flow_style:
        at = pair[1].end_mark.index
        before, after = (', "revision": "', '"') if quoted else (", revision: ", "")
        return Pin(where, source, None, at, at, before, after)
    line_end = text.find("\n", pair[1].end_mark.index)
    at = len(text) if line_end < 0 else line_end
    line_break = "\n"
    if text[at - 1 : at] == "\r":
        at, line_break = at - 1, "\r\n"
    indent = " " * pair[0].start_mark.column
    return Pin(where, source, None, at, at, f"{line_break}{indent}revision: ", "")


def _pairs(node: yaml.MappingNode) -> list[tuple[yaml.Node, yaml.Node]]:
    return [pair for pair in node.value if isinstance(pair[0], yaml.ScalarNode)]


def _with_commits(config: Any, commits: Mapping[Pin, str]) -> Any:
    """Return the loaded config as it is to be; entries shared by an alias are one object."""
    for pin, commit in commits.items():
        section, name, *rest = pin.where.split(".", 3)
        entry = config[section][name]
        if rest[:1] == ["code"]:
            entry["code"][rest[1]] = commit
        else:
            entry["revision"] = commit
    return json.loads(json.dumps(config, default=str))
