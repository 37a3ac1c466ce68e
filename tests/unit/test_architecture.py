"""The map of the project names what is there: every rule, and no file that has moved."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MAP = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
FOLDERS = (ROOT / "scripts/llm_batch", ROOT / "tests", ROOT / "scripts/worker", ROOT)


def test_every_path_of_the_map_is_there() -> None:
    names = set(re.findall(r"`([\w./*-]*(?:/[\w.*-]*|\.py))`", MAP))
    assert len(names) > 60
    lost = [name for name in names if not any(list(folder.glob(name)) for folder in FOLDERS)]
    assert lost == []


def test_every_rule_with_a_program_is_on_the_map() -> None:
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "rules").glob("*.smk")]
    programs = {name for text in texts for name in re.findall(r"python -m scripts\.(\w+)", text)}
    assert "generate" in programs
    assert {name for name in programs if f"`{name}`" not in MAP} == set()
