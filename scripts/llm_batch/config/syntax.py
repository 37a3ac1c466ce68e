"""Config files that cannot be read at all: which one, in which line, and what to do.

Snakemake reads the files of `--configfile` before any line of the workflow, and of a slip in them
it names neither file nor line. The default profile has them looked at first, see there.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import yaml

from scripts.llm_batch.config.errors import display_path
from scripts.llm_batch.errors import ConfigError

DEFAULT_CONFIG = Path("config/config.yaml")

MODEL = "begin with config/config.yaml as a model"

_MARKS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}

_CURES = (
    (r"'\\t'", "a line begins with a tab; indent with blanks"),
    ("mapping values are not allowed", "put a text with ': ' in it in quotes, or mend the indent"),
    ("expected ',' or '[]}]'", "close the bracket"),
    ("quoted scalar", "close the quotation mark"),
    ("expected <block end>|expected the node content", "mend the indent: keys of one level align"),
    ("could not find expected ':'", "write `key: value`, with a blank after the colon"),
    ("single document", "remove the line ---: a config is one document"),
    ("undefined alias", "name an anchor that stands before it, or put a text with * in quotes"),
    ("cannot start any token", "put the text in quotes"),
    ("constructor for the tag", "remove the tag: a config holds plain values"),
)
"""What YAML's reader says, as a pattern, and what helps."""


def refuse_broken(words: Sequence[str]) -> None:
    """End the program, with a line for each, if config files cannot be read.

    `words` are the arguments of snakemake.
    """
    try:
        check_readable(named_configs(words))
    except ConfigError as error:
        sys.exit("\n".join(f"error: {line}" for line in str(error).splitlines()))


def named_configs(words: Sequence[str]) -> list[Path]:
    """Return the config files that a command line of snakemake names, else the default one."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--configfile", "--configfiles", nargs="+", action="extend", type=Path)
    try:
        named = parser.parse_known_args(words)[0].configfile
    except argparse.ArgumentError:
        # Snakemake says it.
        return []
    if named:
        return list(named)
    return [DEFAULT_CONFIG] if DEFAULT_CONFIG.exists() else []


def check_readable(paths: Iterable[Path]) -> None:
    """Raise `ConfigError`, a line a file, if config files cannot be read."""
    problems = [problem for path in paths if (problem := syntax_problem(path))]
    if problems:
        raise ConfigError("\n".join(problems))


def syntax_problem(path: Path) -> str | None:
    """Return what keeps a config file from being read as a mapping, None if nothing does."""
    name = display_path(path)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return f"{name}: no such file; name one with --configfile"
    except OSError as error:
        return f"{name}: cannot be read: {error.strerror}; name a file with --configfile"
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        mark = _MARKS.get(data[:2]) or f"byte 0x{data[error.start]:02x}"
        return f"{name}:{line}: expected UTF-8, found {mark}; save the file as UTF-8"
    found = _not_yaml(text)
    if found is not None and path.suffix == ".json":
        found = _not_json(text) or found
    return found and f"{name}:{found}"


def _not_json(text: str) -> str | None:
    """Return what is wrong with JSON: what a reader of YAML says of it misleads."""
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        return f"{error.lineno}: not JSON: {error.msg} (column {error.colno}); mend it there"
    return None


def _not_yaml(text: str) -> str | None:
    """Return `<line>: <what>; <cure>`, as the loader has it that Snakemake uses."""
    try:
        value = _load(text)
    except yaml.MarkedYAMLError as error:
        return _marked(error, text)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        return f"{line}: expected text, found the character #x{error.character:04x}; remove it"
    except RecursionError:
        return "1: nested too deeply; write it flatter"
    except ValueError as error:
        return _impossible(error, text)
    if isinstance(value, dict):
        return None
    if value is None:
        return f"1: the config is empty; {MODEL}"
    found = "a list" if isinstance(value, list) else f"one value ({str(value)[:40]!r})"
    return f"1: expected `key: value` lines, found {found}; {MODEL}"


def _load(text: str) -> object:
    """Return what is in a file: JSON first, as for Snakemake, which allows tabs in it."""
    try:
        return json.loads(text)
    except ValueError:
        return yaml.load(text, Loader=yaml.FullLoader)


def _marked(error: yaml.MarkedYAMLError, text: str) -> str:
    said = str(error.problem)
    begun = error.context_mark
    # What was begun and never ended is told by where it began: the reader noticed lines later.
    early = re.search("quoted scalar|flow|simple key", str(error.context))
    mark = begun if early and begun is not None else error.problem_mark or begun
    line = mark.line + 1 if mark is not None else 1
    what = f"{error.context}, {said}" if error.context else said
    cure = next((cure for pattern, cure in _CURES if re.search(pattern, what)), "mend it there")
    shown = "".join(text.splitlines()[line - 1 : line]).strip()[:60]
    found = f" in `{shown}`" if shown else ""
    return f"{line}: not YAML: {what}{found}; {cure}"


def _impossible(error: ValueError, text: str) -> str:
    """Return which value looks like one of YAML's kinds, a date for instance, and is none."""
    for number, line in enumerate(text.splitlines(), start=1):
        if re.search(r"\b\d{4}-\d\d?-\d\d?\b", line):
            try:
                yaml.safe_load(line.strip().removeprefix("- "))
            except ValueError:
                return f"{number}: not a date: {error}; put it in quotes"
            except yaml.YAMLError:
                continue
    return f"1: a value cannot be read: {error}; put it in quotes"
