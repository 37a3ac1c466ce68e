"""Code that models bring: what belongs to another repository is put beside the model, by commit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from scripts.generate import refuse_unpinned_code
from scripts.llm_batch.errors import WorkflowError
from scripts.llm_batch.models.remote_code import foreign_code, localise

AUTO_MAP = {
    "AutoConfig": "ann/code--configuration_x.XConfig",
    "AutoModelForCausalLM": "ann/code--modeling_x.XModel",
    "AutoTokenizer": ["tokenization_x.XTokenizer", None],
}


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    """A model folder of links, whose config names code of another repository."""
    original, folder = tmp_path / "original", tmp_path / "snapshot"
    original.mkdir()
    folder.mkdir()
    (original / "config.json").write_text(json.dumps({"auto_map": AUTO_MAP, "other": 1}))
    (folder / "config.json").symlink_to(original / "config.json")
    return folder


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """The code of the other repository."""
    folder = tmp_path / "code"
    folder.mkdir()
    for name in ("configuration_x", "modeling_x"):
        (folder / f"{name}.py").write_text(f"# {name}")
    return folder


def test_code_of_another_repository_is_put_beside_the_model(snapshot: Path, code: Path) -> None:
    assert foreign_code(snapshot) == ["ann/code"]
    asked: list[tuple[str, str]] = []

    def fetch(repo: str, revision: str) -> Path:
        asked.append((repo, revision))
        return code

    written = localise(snapshot, {"ann/code": "c" * 40}, fetch)
    assert asked == [("ann/code", "c" * 40)]
    assert written == ["config.json", "configuration_x.py", "modeling_x.py"]
    config = json.loads((snapshot / "config.json").read_text())
    assert config == {
        "other": 1,
        "auto_map": {
            "AutoConfig": "configuration_x.XConfig",
            "AutoModelForCausalLM": "modeling_x.XModel",
            "AutoTokenizer": ["tokenization_x.XTokenizer", None],
        },
    }
    assert foreign_code(snapshot) == []
    # The file that the link pointed to belongs to the cache, or to the user.
    original = json.loads((snapshot.parent / "original/config.json").read_text())
    assert original["auto_map"] == AUTO_MAP


def test_code_that_no_config_names_is_refused(snapshot: Path, code: Path) -> None:
    with pytest.raises(WorkflowError, match=r"bob/code is not named by the model's .*\(ann/code\)"):
        localise(snapshot, {"bob/code": "c" * 40}, lambda *_: code)


def test_two_modules_of_one_name_are_refused(snapshot: Path, code: Path) -> None:
    (snapshot / "modeling_x.py").write_text("# of the model itself")
    with pytest.raises(WorkflowError, match=r"modeling_x\.py of ann/code is another file"):
        localise(snapshot, {"ann/code": "c" * 40}, lambda *_: code)


@pytest.mark.parametrize(
    ("args", "description", "refused"),
    [
        ({"trust_remote_code": True}, {"foreign_code": ["ann/code"]}, True),
        ({"trust_remote_code": True}, {"foreign_code": []}, False),
        ({}, {"foreign_code": ["ann/code"]}, False),
    ],
)
def test_an_engine_runs_no_code_without_a_commit(
    tmp_path: Path, args: dict[str, Any], description: dict[str, Any], refused: bool
) -> None:
    model = tmp_path / "mine-0123456789ab"
    model.mkdir()
    (model / "model.json").write_text(json.dumps(description))
    if not refused:
        refuse_unpinned_code(model, args)
        return
    with pytest.raises(WorkflowError, match=r"^models\.mine: its config runs code of ann/code"):
        refuse_unpinned_code(model, args)
