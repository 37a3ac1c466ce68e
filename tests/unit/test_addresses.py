"""Canonical JSON and addresses."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from scripts.llm_batch.addresses import (
    CanonicalError,
    address,
    atomic_path,
    canonical_json,
    read_json,
    write_identity,
    write_manifest,
    write_text_atomic,
)
from scripts.llm_batch.errors import WorkflowError


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ({"t": 0}, {"t": 0.0}),
        ({"t": 0.0}, {"t": -0.0}),
        ([1, 2], (1, 2)),
        ({"x": 1e3}, {"x": 1000}),
        ({"deep": [{"y": 2.0, "x": 1}]}, {"deep": [{"x": 1, "y": 2}]}),
    ],
)
def test_equal_values_have_one_canonical_form(left: Any, right: Any) -> None:
    assert canonical_json(left) == canonical_json(right)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ([1, 2], [2, 1]),
        ({"a": 1}, {"a": "1"}),
        ({"a": True}, {"a": 1}),
        ({"a": None}, {}),
        ({"temperature": 0.7, "top_p": 0.9}, {"temperature": 0.9, "top_p": 0.7}),
        ("é", "e\u0301"),
    ],
)
def test_different_values_have_different_forms(left: Any, right: Any) -> None:
    assert canonical_json(left) != canonical_json(right)


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), {1: 2}, {"a": {1, 2}}, Path("x"), b"x", {"a": [object()]}]
)
def test_values_without_a_json_form_are_refused(value: Any) -> None:
    with pytest.raises(CanonicalError):
        canonical_json(value)


def test_the_address_of_a_fixed_identity_never_changes() -> None:
    identity = {"engine": {"model": "0123456789ab", "args": {"dtype": "float32"}}, "n": 4.0}
    assert address("runs", identity) == "44ff68470fb2"


def test_an_address_depends_on_the_stage() -> None:
    assert address("runs", {}) != address("models", {})


def test_identity_is_only_written_to_its_own_address(tmp_path: Path) -> None:
    folder = tmp_path / f"name-{address('runs', {'a': 1})}"
    folder.mkdir()
    write_identity(folder, "runs", {"a": 1})
    record = read_json(folder / "identity.json")
    assert address(record["stage"], record["identity"]) == folder.name.rpartition("-")[2]
    with pytest.raises(WorkflowError, match="do not belong together"):
        write_identity(folder, "runs", {"a": 2})


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    target = tmp_path / "file.txt"
    write_text_atomic(target, "old")
    with pytest.raises(RuntimeError), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError("killed")
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_written_files_can_be_read_by_others(tmp_path: Path) -> None:
    mask = os.umask(0o022)
    try:
        write_text_atomic(tmp_path / "file.txt", "shared")
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "file.txt").stat().st_mode) == 0o644


def test_the_manifest_lists_size_and_digest_of_each_output(tmp_path: Path) -> None:
    write_text_atomic(tmp_path / "out.txt", "hello")
    write_manifest(tmp_path, [tmp_path / "out.txt"], {"rows": 1})
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["files"]["out.txt"] == {
        "bytes": 5,
        "sha256": "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
    }
    assert manifest["facts"] == {"rows": 1}


def test_a_torn_json_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"a": ')
    with pytest.raises(WorkflowError, match=r"x\.json: not valid JSON"):
        read_json(tmp_path / "x.json")
