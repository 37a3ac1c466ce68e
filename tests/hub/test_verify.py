"""`scripts.verify` reads every byte again: it names what is wrong, and fetches it on request."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.hub.fetching import Fetching

WEIGHTS = "model.safetensors"


@pytest.fixture
def identity(fetching: Fetching, model_bytes: dict[str, bytes]) -> dict[str, Any]:
    """The identity of a model that has been fetched."""
    commit = fetching.hub.repo("ann/adder").commit(model_bytes)
    identity = {"repo": "ann/adder", "revision": commit}
    assert fetching.fetch(identity).code == 0
    return identity


def flip(path: Path) -> None:
    """Turn one bit of a file and keep its size and times, as a bad disk does."""
    stat = path.stat()
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 4
    path.write_bytes(data)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_a_flipped_bit_is_named_and_fetched_again_on_request(
    fetching: Fetching, identity: dict[str, Any], model_bytes: dict[str, bytes]
) -> None:
    stage = fetching.stage(identity)
    snapshot = stage / "snapshot"
    name = f"results/models/{stage.name}"
    said = fetching.program("scripts.verify")
    assert (said.code, said.text.splitlines()[-1]) == (0, f"{name}: ok")
    flip((snapshot / WEIGHTS).resolve())
    (snapshot / "config.json").resolve().unlink()
    said = fetching.program("scripts.verify")
    assert said.code == 1
    assert f"{name}/snapshot/{WEIGHTS}: damaged: sha256 " in said.text
    assert f"{name}/snapshot/config.json: missing" in said.text
    assert f"{name}: 2 files wrong" in said.text
    said = fetching.program("scripts.verify", "--refetch")
    assert said.code == 0, said.text
    assert said.text.splitlines()[-1] == f"{name}: ok"
    assert {path.name: path.read_bytes() for path in snapshot.iterdir()} == model_bytes


def test_a_cache_that_was_emptied_is_filled_again(
    fetching: Fetching, identity: dict[str, Any], model_bytes: dict[str, bytes]
) -> None:
    shutil.rmtree(fetching.home)
    assert fetching.program("scripts.verify").text.count(": missing") == len(model_bytes)
    said = fetching.program("scripts.verify", "--refetch")
    assert said.code == 0, said.text
    snapshot = fetching.stage(identity) / "snapshot"
    assert {path.name: path.read_bytes() for path in snapshot.iterdir()} == model_bytes


def test_manifests_are_checked_on_request(fetching: Fetching, identity: dict[str, Any]) -> None:
    stage = fetching.stage(identity)
    listing = stage / "model.json"
    listing.write_text(listing.read_text() + "\n")
    assert fetching.program("scripts.verify").code == 0
    said = fetching.program("scripts.verify", "--manifests")
    assert said.code == 1
    assert f"results/models/{stage.name}/model.json: " in said.text


def test_a_local_folder_is_checked_and_cannot_be_fetched(
    fetching: Fetching, model_bytes: dict[str, bytes]
) -> None:
    folder = fetching.folder / "shared"
    folder.mkdir()
    for name, data in model_bytes.items():
        (folder / name).write_bytes(data)
    # As on a cluster: the path of the config is a link.
    (fetching.folder / "mine").symlink_to(folder)
    identity = {
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in model_bytes.items()}
    }
    assert fetching.fetch(identity, "--path", "mine").code == 0
    assert fetching.program("scripts.verify").code == 0
    flip(folder / WEIGHTS)
    said = fetching.program("scripts.verify", "--refetch")
    assert said.code == 1
    assert "from a local folder, so nothing can be fetched; mend the files there" in said.text


def test_there_must_be_results(fetching: Fetching) -> None:
    said = fetching.program("scripts.verify")
    assert said.error == "results: no such folder; call this where snakemake was called"
