"""Keep config/README.md and the schema true: their tables are made, never written by hand.

    python -m scripts.config_manual           say whether both are up to date
    python -m scripts.config_manual --write   bring both up to date

The manual's table is made from the schema, the schema's metric types from
scripts/llm_batch/metric_types.py.
"""

from __future__ import annotations

import argparse
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from scripts.llm_batch.addresses import write_text_atomic
from scripts.llm_batch.config.checks import REQUIRED
from scripts.llm_batch.config.schema import SCHEMA_PATH
from scripts.llm_batch.config.words import expected
from scripts.llm_batch.errors import WorkflowError, run_cli
from scripts.llm_batch.evaluation.metric_types import METRIC_TYPES

MANUAL_PATH = SCHEMA_PATH.parents[1] / "README.md"
MANUAL_MARKERS = ("<!-- keys: begin -->", "<!-- keys: end -->")
SCHEMA_MARKERS = ("# metric types: begin", "# metric types: end")

_INDENT = " " * 8


class _Dumper(yaml.SafeDumper):
    """Indents lists below their key, and repeats instead of making aliases."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: object) -> bool:
        return True


def build_parser() -> argparse.ArgumentParser:
    """Return the command line of this program."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="bring both files up to date")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Write both files, or raise `WorkflowError` for one that is out of date."""
    write: bool = build_parser().parse_args(argv).write
    for path, make in ((SCHEMA_PATH, updated_schema), (MANUAL_PATH, updated_manual)):
        text = path.read_text(encoding="utf-8")
        new = make(text)
        if text == new:
            print(f"{path}: up to date")
        elif write:
            write_text_atomic(path, new)
            print(f"{path}: written")
        else:
            raise WorkflowError(
                f"{path}: out of date; run `python -m scripts.config_manual --write`"
            )
    return 0


def updated_schema(text: str) -> str:
    """Return the schema with the metric types as they are in the code."""
    branches = yaml.dump(
        [_metric_schema(name) for name in METRIC_TYPES],
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        width=88,
    )
    return _between(text, SCHEMA_MARKERS, textwrap.indent(branches, _INDENT) + _INDENT)


def _metric_schema(name: str) -> dict[str, Any]:
    kind = METRIC_TYPES[name]
    settings = {key: setting.schema() for key, setting in kind.settings.items()}
    required = [key for key, setting in kind.settings.items() if setting.required]
    return {
        "type": "object",
        "additionalProperties": False,
        "required": ["type", *required],
        "properties": {"type": {"const": name, "description": kind.summary}, **settings},
    }


def updated_manual(text: str) -> str:
    """Return the manual with the table of all keys as they are in the schema."""
    schema = yaml.safe_load(SCHEMA_PATH.read_text(encoding="utf-8"))
    return _between(text, MANUAL_MARKERS, "\n" + "\n".join(tables(schema)) + "\n")


def _between(text: str, markers: tuple[str, str], content: str) -> str:
    """Replace what lies between the line of the first marker and the second marker."""
    begin, end = map(re.escape, markers)
    pattern = re.compile(rf"(?<={begin}\n).*?(?={end})", re.DOTALL)
    if not pattern.search(text):
        raise WorkflowError(f"the markers '{markers[0]}' and '{markers[1]}' are missing; add them")
    return pattern.sub(lambda _: content, text, count=1)


def tables(schema: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of one table for the top of the config and one for each section."""
    top = schema["properties"]
    yield from _table("Top of the file, and command line", top, REQUIRED, "")
    for section, entry in top.items():
        for title, properties, required, part in _mappings(section, entry, ""):
            yield ""
            yield from _table(title, properties, required, part)


def _mappings(
    path: str, schema: Mapping[str, Any], part: str
) -> Iterator[tuple[str, Mapping[str, Any], Sequence[str], str]]:
    """Yield every mapping at or below `schema`: its path, keys, required keys and part."""
    part = schema.get("x-part-of", part)
    if "properties" in schema:
        yield f"`{path}`", schema["properties"], schema.get("required", []), part
        for key, inner in schema["properties"].items():
            yield from _mappings(f"{path}.{key}", inner, part)
    extra = schema.get("additionalProperties")
    if isinstance(extra, dict):
        yield from _mappings(f"{path}.<name>", extra, part)
    if isinstance(schema.get("items"), dict):
        yield from _mappings(f"{path}[]", schema["items"], part)
    for branch in schema.get("oneOf", []):
        kind = branch["properties"]["type"]["const"]
        settings = {key: value for key, value in branch["properties"].items() if key != "type"}
        title = f"`{path}` with `type: {kind}` – {branch['properties']['type']['description']}"
        yield title, settings, branch["required"], part


def _table(
    title: str, properties: Mapping[str, Any], required: Sequence[str], part: str
) -> Iterator[str]:
    yield f"### {title}"
    yield ""
    yield "| key | value | default | part of | what it is |"
    yield "|---|---|---|---|---|"
    for key, schema in properties.items():
        cells = [
            f"`{key}`",
            expected(schema),
            _default(schema, key in required),
            schema.get("x-part-of", part),
            schema.get("description", ""),
        ]
        yield "| " + " | ".join(_cell(cell) for cell in cells) + " |"


def _default(schema: Mapping[str, Any], required: bool) -> str:
    if required:
        return "required"
    if "default" not in schema:
        return "–"
    default = schema["default"]
    if default is None or isinstance(default, bool):
        return f"`{str(default).lower()}`".replace("none", "null")
    return f"`{default}`"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").replace("<", "\\<").split())


if __name__ == "__main__":
    run_cli(main)
