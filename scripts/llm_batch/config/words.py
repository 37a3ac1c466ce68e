"""Words for config messages: what a schema expects, what was found, and how to mend it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from scripts.llm_batch.config.errors import ConfigPath, nearest

MAX_TEXT = 60

_TYPE_WORDS = {
    "boolean": "true or false",
    "object": "a mapping",
}

ALIASES: Mapping[str, str] = {
    "adapters": "adapters (a section) and runs[].adapter",
    "batch_size": "engines.<name>.tuning.max_num_seqs",
    "context_length": "engines.<name>.args.max_model_len",
    "do_sample": "samplings.<name>.temperature (0 is greedy)",
    "eos_token_id": "samplings.<name>.stop_token_ids",
    "guided_choice": "samplings.<name>.structured_outputs.choice",
    "guided_decoding": "samplings.<name>.structured_outputs",
    "guided_grammar": "samplings.<name>.structured_outputs.grammar",
    "guided_json": "samplings.<name>.structured_outputs.json",
    "lora": "runs[].adapter",
    "lora_path": "adapters.<name>.path",
    "guided_regex": "samplings.<name>.structured_outputs.regex",
    "max_new_tokens": "samplings.<name>.max_tokens",
    "num_generations": "samplings.<name>.n",
    "num_return_sequences": "samplings.<name>.n",
    "num_samples": "samplings.<name>.n",
    "rope_scaling": "engines.<name>.args.hf_overrides",
    "rope_theta": "engines.<name>.args.hf_overrides",
    "stop_sequences": "samplings.<name>.stop",
    "temp": "samplings.<name>.temperature",
    "tp": "engines.<name>.args.tensor_parallel_size",
}


def show(value: Any) -> str:
    """Return a found value in a few words, always on one line."""
    if value is None:
        return "nothing (null)"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        # Python refuses to print integers of more than 4300 digits.
        return str(value) if value.bit_length() < 200 else "a whole number of over 60 digits"
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, str):
        short = value if len(value) <= MAX_TEXT else value[: MAX_TEXT - 1] + "…"
        return "empty text" if not value else f"the text {_quoted(short)}"
    if isinstance(value, Mapping):
        return "an empty mapping" if not value else "a mapping"
    if isinstance(value, (list, tuple)):
        return "an empty list" if not value else "a list"
    return _quoted(str(value)[:MAX_TEXT])


def _quoted(text: str) -> str:
    return f"'{text}'" if text.isprintable() and "'" not in text else json.dumps(text)


def expected(schema: Mapping[str, Any]) -> str:
    """Return what a value of `schema` may be, in words."""
    if "const" in schema:
        return str(schema["const"])
    if "enum" in schema:
        choices = [_choice(value) for value in schema["enum"]]
        return choices[0] if len(choices) == 1 else f"one of {', '.join(choices)}"
    types = schema.get("type", [])
    listed = [types] if isinstance(types, str) else list(types)
    words = [_expected_type(kind, schema) for kind in listed if kind != "null"]
    return " or ".join(words) + (", or null" if "null" in listed else "")


def _choice(value: Any) -> str:
    if value is None:
        return "null"
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


def _expected_type(kind: str, schema: Mapping[str, Any]) -> str:
    if kind in ("integer", "number"):
        return ("a whole number" if kind == "integer" else "a number") + _bounds(schema)
    if kind == "string" and schema.get("pattern") == AUTO_PATTERN:
        return "auto"
    if kind == "string":
        text = "text" if "minLength" not in schema else "text that is not empty"
        pattern = schema.get("pattern")
        return f"{text} ({PATTERN_WORDS.get(pattern, pattern)})" if pattern else text
    if kind == "array":
        items = schema.get("items")
        some = "a list with at least one entry" if schema.get("minItems") else "a list"
        if schema.get("minItems") == schema.get("maxItems") is not None:
            some = f"a list of exactly {schema['minItems']}"
        return f"{some}, each {expected(items)}" if items and "type" in items else some
    if kind == "object" and schema.get("maxProperties") == 1:
        return "a mapping with exactly one key"
    if kind == "object" and schema.get("minProperties"):
        return "a mapping with at least one entry"
    return _TYPE_WORDS[kind]


AUTO_PATTERN = "^auto$"
"""A number that can also be left to us."""

PATTERN_WORDS: Mapping[str, str] = {
    "^[0-9a-f]{40}$": "a commit, 40 hexadecimal digits",
    "^[A-Za-z0-9][A-Za-z0-9_+-]*$": "letters, digits, '_', '+' and '-'",
    "^[A-Za-z0-9][A-Za-z0-9_+.-]*$": "letters, digits, '_', '+', '-' and '.'",
    "\\.(jsonl|json|parquet|csv|tsv|txt)(\\.gz|\\.zst)?$": (
        "the name of a .jsonl, .json, .parquet, .csv, .tsv or .txt file, also with .gz or .zst"
    ),
    "^[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9][A-Za-z0-9_.-]*$": "owner/name",
    "^[0-9]{1,8}$": "a token id",
}


def _bounds(schema: Mapping[str, Any]) -> str:
    low, above, high = (schema.get(k) for k in ("minimum", "exclusiveMinimum", "maximum"))
    if above is not None:
        return f" above {above}" + (f" and at most {high}" if high is not None else "")
    if low is not None and high is not None:
        return f" from {low} to {high}"
    return f" of at least {low}" if low is not None else ""


def type_cure(schema: Mapping[str, Any], found: Any, path: ConfigPath) -> str | None:
    """Return how to mend a value of the wrong type, if the way is clear."""
    types = schema.get("type", [])
    listed = [types] if isinstance(types, str) else list(types)
    if found is None or (isinstance(found, str) and not found.strip() and "string" not in listed):
        default = schema.get("default", {})
        return f"fill it in, or remove the key to get {default}" if default != {} else "fill it in"
    if isinstance(found, str):
        return _text_cure(listed, found, schema, path)
    if schema.get("pattern") == AUTO_PATTERN:
        return "remove the quotes" if isinstance(found, str) and found.isdigit() else None
    if isinstance(found, bool) and "string" in listed:
        return "YAML reads yes, no, on and off as true and false; put it in quotes"
    if isinstance(found, (int, float)) and "string" in listed:
        return "put ./ before it" if path in (("model",), ("prompts",)) else "put it in quotes"
    if listed == ["array"] and "sweep" in path and not isinstance(found, (list, Mapping)):
        return "put it in square brackets"
    if isinstance(found, Mapping) and "array" in listed:
        return "begin each entry with '- '"
    if isinstance(found, list) and listed == ["object"]:
        return "give each entry a name (name: …) instead of '- '"
    if isinstance(found, list) and path[:1] == ("samplings",) and "array" not in listed:
        return f"list its values in a run, sweep: {{{path[-1]}: […]}}"
    return None


def _text_cure(
    listed: list[str], found: str, schema: Mapping[str, Any], path: ConfigPath
) -> str | None:
    if "enum" in schema:
        close = nearest(found, [str(choice) for choice in schema["enum"]])
        return f"did you mean '{close}'?" if close else None
    if "boolean" in listed:
        return "write true or false without quotes"
    if {"integer", "number"} & set(listed):
        return _number_cure(found.strip())
    if len(path) == 2 and path[0] in _FIRST_KEYS:
        return f"write {path[1]}: {{{_FIRST_KEYS[str(path[0])]}: {found}}}"
    return None


_FIRST_KEYS = {
    **dict.fromkeys(("models", "adapters", "prompts"), "path"),
    "engines": "model",
    "metrics": "type",
}


def _number_cure(found: str) -> str | None:
    if found.endswith("%") and _is_number(found[:-1]):
        return f"write {float(found[:-1]) / 100:g}"
    if _is_number(found.replace(",", ".")) and "," in found:
        return f"write {found.replace(',', '.')}"
    if not _is_number(found):
        return None
    if "e" in found.lower():
        plain = f"{float(found):.12f}".rstrip("0").rstrip(".")
        return f"YAML reads {found} as text; write {plain}"
    return "remove the quotes"


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def foreign_key(schema: Mapping[str, Any], path: ConfigPath, key: str) -> str | None:
    """Return where an unknown key belongs, if another section or another tool has it."""
    if key in ALIASES:
        return f"that is {ALIASES[key]} here;"
    if key in _IN_MANY_SECTIONS:
        return None
    homes = [home for home in _homes(schema, key) if home != _home_of(path)]
    if not homes:
        return None
    return f"it belongs to {' or '.join(f'{home}.{key}' for home in homes)};"


# Common words, which say nothing about the section that was meant.
_IN_MANY_SECTIONS = frozenset(
    ("config", "engine", "files", "id", "model", "name", "path", "prompts", "revision", "sampling")
)


def _home_of(path: ConfigPath) -> str:
    return ".".join("<name>" if i == 1 else str(part) for i, part in enumerate(path))


def _homes(schema: Mapping[str, Any], key: str) -> list[str]:
    top = schema["properties"]
    engine = top["engines"]["additionalProperties"]["properties"]
    sections = {
        "engines.<name>.args": engine["args"]["properties"],
        "engines.<name>.tuning": engine["tuning"]["properties"],
        "engines.<name>.dummy": engine["dummy"]["properties"],
        "engines.<name>": engine,
        "samplings.<name>": top["samplings"]["additionalProperties"]["properties"],
        "prompts.<name>": top["prompts"]["additionalProperties"]["properties"],
        "runs[]": top["runs"]["items"]["properties"],
    }
    return [home for home, properties in sections.items() if key in properties]
