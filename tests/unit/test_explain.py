"""Addresses explained in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from scripts.explain import main
from scripts.llm_batch.addresses import address, write_identity
from scripts.llm_batch.errors import WorkflowError


def stage(results: Path, kind: str, name: str, identity: dict[str, Any]) -> Path:
    folder = results / kind / f"{name}-{address(kind, identity)}"
    folder.mkdir(parents=True)
    write_identity(folder, kind, identity)
    return folder


def run(results: Path, **sampling: Any) -> Path:
    identity = {"engine": {"model": "0123456789ab"}, "prompts": {"data": "x"}, "sampling": sampling}
    return stage(results, "runs", "toy", identity)


def test_two_runs_differ_in_one_sampling_value(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    left, right = run(tmp_path, temperature=0.7, top_p=0.9), run(tmp_path, temperature=0.8)
    assert main([str(left), str(right)]) == 0
    output = capsys.readouterr().out.splitlines()
    assert output[0] == f"{left.name} and {right.name} differ in"
    assert output[1:] == ["  sampling.temperature: 0.7 | 0.8", "  sampling.top_p: 0.9 | absent"]


def test_the_files_behind_an_address_are_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = []
    for digest in ("aaa", "bbb"):
        model = stage(tmp_path, "models", "adder", {"files": {"config.json": digest}})
        identity = {"engine": {"model": model.name.rpartition("-")[2]}}
        runs.append(stage(tmp_path, "runs", "toy", identity))
    main([str(path) for path in runs])
    assert "  engine.model.files.config.json: aaa | bbb" in capsys.readouterr().out


def test_one_path_tells_what_it_is_made_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run(tmp_path, temperature=0.7)
    (folder / "completions.jsonl").write_text("")
    main([str(folder / "completions.jsonl")])
    output = capsys.readouterr().out
    assert output.startswith(f"{folder.name}: stage runs, version 1, made of\n")
    assert "  sampling.temperature: 0.7" in output


def test_equal_addresses_are_said_to_be_equal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run(tmp_path, temperature=0.7)
    main([str(folder), str(folder)])
    assert "same address" in capsys.readouterr().out


def test_a_path_outside_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WorkflowError, match="not in a stage folder"):
        main([str(tmp_path)])
