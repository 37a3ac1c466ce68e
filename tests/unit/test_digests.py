"""Digests of files are remembered by size, time and inode."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from scripts.llm_batch import addresses, digests
from scripts.llm_batch.digests import DigestMemo
from scripts.llm_batch.errors import WorkflowError
from scripts.llm_batch.models.local import local_model_identity, model_files


def aged(path: Path, text: str, seconds: float = 100) -> Path:
    """Write a file that was last changed some time ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    then = path.stat().st_mtime - seconds
    os.utime(path, (then, then))
    return path


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were really hashed."""
    hashed: list[Path] = []
    real = addresses.file_sha256

    def count(path: Path) -> str:
        hashed.append(path)
        return real(path)

    monkeypatch.setattr(digests, "file_sha256", count)
    return hashed


def test_a_file_is_hashed_once(tmp_path: Path, counted: list[Path]) -> None:
    data = aged(tmp_path / "data", "x")
    memo = DigestMemo(tmp_path / "memo.json")
    first = memo.sha256(data)
    memo.save()
    assert DigestMemo(tmp_path / "memo.json").sha256(data) == first
    assert len(counted) == 1


def test_a_changed_file_is_hashed_again(tmp_path: Path, counted: list[Path]) -> None:
    data = aged(tmp_path / "data", "x")
    memo = DigestMemo(tmp_path / "memo.json")
    first = memo.sha256(data)
    aged(data, "y", seconds=50)
    assert memo.sha256(data) != first
    assert len(counted) == 2


def test_a_file_changed_just_now_is_not_remembered(tmp_path: Path, counted: list[Path]) -> None:
    data = tmp_path / "data"
    data.write_text("x")
    memo = DigestMemo(tmp_path / "memo.json")
    memo.sha256(data)
    memo.sha256(data)
    assert len(counted) == 2


def test_a_broken_memo_is_only_slower(tmp_path: Path) -> None:
    (tmp_path / "memo.json").write_text("[")
    assert len(DigestMemo(tmp_path / "memo.json").sha256(aged(tmp_path / "data", "x"))) == 64


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(WorkflowError, match="nowhere: cannot be read: No such file"):
        DigestMemo(tmp_path / "memo.json").sha256(tmp_path / "nowhere")


def make_model(folder: Path) -> Path:
    for name in ("config.json", "tokenizer.json", "model.safetensors", "README.md", ".git/config"):
        aged(folder / name, name)
    return folder


def test_a_model_card_is_not_part_of_a_model(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model")
    memo = DigestMemo(tmp_path / "memo.json")
    before = local_model_identity(folder, memo)
    aged(folder / "README.md", "rewritten")
    assert local_model_identity(folder, memo) == before
    assert sorted(before["files"]) == ["config.json", "model.safetensors", "tokenizer.json"]


def test_a_changed_tokenizer_is_another_model(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model")
    memo = DigestMemo(tmp_path / "memo.json")
    before = local_model_identity(folder, memo)
    aged(folder / "tokenizer.json", "rewritten", seconds=50)
    assert local_model_identity(folder, memo) != before


def test_pickled_weights_beside_safetensors_do_not_count(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model")
    aged(folder / "pytorch_model.bin", "twin")
    assert Path("pytorch_model.bin") not in model_files(folder)


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    aged(tmp_path / "model/config.json", "{}")
    with pytest.raises(WorkflowError, match="no weights"):
        model_files(tmp_path / "model")


def test_what_another_process_remembered_meanwhile_is_kept(tmp_path: Path) -> None:
    first, second = (DigestMemo(tmp_path / "memo.json") for _ in range(2))
    paths = [aged(tmp_path / name, name) for name in ("a", "b")]
    digests_ = [first.sha256(paths[0]), second.sha256(paths[1])]
    second.save()
    first.save()
    assert DigestMemo(tmp_path / "memo.json").sha256_all(paths) == digests_
    saved = (tmp_path / "memo.json").read_text()
    assert all(digest in saved for digest in digests_)


def test_hashing_a_large_file_says_how_far_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "LARGE_BYTES", 1000)
    monkeypatch.setattr(digests, "BLOCK_BYTES", 400)
    monkeypatch.setattr(digests, "LINE_INTERVAL_S", 0.0)
    large, small = aged(tmp_path / "large", "x" * 1000), aged(tmp_path / "small", "x")
    told: list[str] = []
    memo = DigestMemo(tmp_path / "memo.json", told.append)
    assert memo.sha256(large) == addresses.file_sha256(large)
    memo.sha256(small)
    assert told[0] == f"hashing {large} (0.0 GB), once"
    assert len(told) == 4
    memo.sha256(large)
    assert len(told) == 4
