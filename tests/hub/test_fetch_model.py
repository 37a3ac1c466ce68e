"""Models from the hub: what is fetched, how it is checked, and what becomes of every fault."""

from __future__ import annotations

import hashlib
import json
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.hub.fetching import Fetching
from tests.hub.stand_in_hub import Fault, StandInHub

WEIGHTS = "model.safetensors"


def publish(hub: StandInHub, files: dict[str, bytes], **settings: Any) -> dict[str, Any]:
    """Put a model on the hub and return its identity."""
    commit = hub.repo("ann/adder", **settings).commit(files)
    return {"repo": "ann/adder", "revision": commit}


@pytest.fixture
def large() -> bytes:
    """Weights of 40 MB that do not repeat: the client writes ten of them at a time."""
    return random.Random(1).randbytes(40_000_000)


def test_only_what_an_engine_needs_is_fetched_and_every_file_is_checked(
    fetching: Fetching, model_bytes: dict[str, bytes]
) -> None:
    others = {
        "README.md": b"card",
        "pytorch_model.bin": b"x" * 20_000,
        "original/consolidated.00.pth": b"x" * 20_000,
        "onnx/model.onnx": b"x" * 20_000,
        "training_args.bin": b"x",
    }
    identity = publish(fetching.hub, model_bytes | others)
    said = fetching.fetch(identity)
    assert said.code == 0, said.text
    snapshot = fetching.stage(identity) / "snapshot"
    assert {path.name: path.read_bytes() for path in snapshot.iterdir()} == model_bytes
    files = {file["path"]: file for file in fetching.model(identity)["files"]}
    for name, data in model_bytes.items():
        assert files[name]["sha256"] == hashlib.sha256(data).hexdigest()
        assert files[name]["bytes"] == len(data)
    assert files[WEIGHTS]["checked"] == "sha256"
    assert files["config.json"]["checked"] == "git blob id"
    assert len(fetching.bodies()) == len(model_bytes) + 1  # And the header of the weights.
    assert "599,552 parameters" in said.text


def test_what_is_in_the_cache_is_not_fetched_again(
    fetching: Fetching, model_bytes: dict[str, bytes], tmp_path: Path
) -> None:
    identity = publish(fetching.hub, model_bytes)
    assert fetching.fetch(identity).code == 0
    fetching.hub.asked.clear()
    assert fetching.fetch(identity).code == 0
    assert fetching.bodies() == []


def test_files_that_xet_offers_too_are_fetched_by_ranges(
    fetching: Fetching, model_bytes: dict[str, bytes]
) -> None:
    identity = publish(fetching.hub, model_bytes, xet=True)
    fetching.hub.faults.append(Fault("X-Signature", method="GET"))  # The header, for the size.
    fetching.hub.faults.append(Fault("X-Signature", cut_after=1_000_000))
    said = fetching.fetch(identity)
    assert said.code == 0, said.text
    snapshot = fetching.stage(identity) / "snapshot"
    assert {path.name: path.read_bytes() for path in snapshot.iterdir()} == model_bytes
    assert not any("xet" in asked.path for asked in fetching.hub.asked)


@pytest.mark.parametrize("why", ["offline", "no network"])
def test_a_full_cache_is_enough_without_the_hub(
    fetching: Fetching, model_bytes: dict[str, bytes], why: str
) -> None:
    identity = publish(fetching.hub, model_bytes)
    assert fetching.fetch(identity).code == 0
    if why == "offline":
        fetching.variables["HF_HUB_OFFLINE"] = "1"
    else:
        fetching.variables["HF_ENDPOINT"] = "http://127.0.0.1:9"
    fetching.hub.asked.clear()
    before = fetching.model(identity)
    (fetching.stage(identity) / "model.json").unlink()
    said = fetching.fetch(identity)
    assert said.code == 0, said.text
    assert fetching.hub.asked == []
    assert fetching.model(identity) == before


def test_patterns_replace_the_choice_of_files(
    fetching: Fetching, model_bytes: dict[str, bytes]
) -> None:
    identity = publish(fetching.hub, model_bytes | {"extra/more.txt": b"more"})
    identity["files"] = ["*.json", WEIGHTS, "extra/"]
    assert fetching.fetch(identity).code == 0
    names = {file["path"] for file in fetching.model(identity)["files"]}
    assert names == {*model_bytes, "extra/more.txt"}
    identity["files"] = ["*.jsn"]
    assert fetching.fetch(identity).error.endswith("no file matches '*.jsn' of `files`")


def test_ten_kills_in_the_middle_of_a_file_lose_no_more_than_a_chunk_each(
    fetching: Fetching, model_bytes: dict[str, bytes], large: bytes
) -> None:
    identity = publish(fetching.hub, model_bytes | {WEIGHTS: large})
    digest = hashlib.sha256(large).hexdigest()
    fetching.hub.faults.append(Fault(digest, times=10**6, bytes_per_s=60_000_000))
    chance = random.Random(7)
    for _ in range(10):
        process = fetching.start(identity)
        before = fetching.hub.sent.get(digest, 0)
        enough = before + chance.randint(1_000_000, 14_000_000)
        while fetching.hub.sent.get(digest, 0) < enough and process.poll() is None:
            time.sleep(0.005)
        assert process.poll() is None, "killed too late: the file was complete"
        process.send_signal(signal.SIGKILL)
        process.communicate()
    fetching.hub.faults.clear()
    assert not (fetching.stage(identity) / "manifest.json").exists()
    said = fetching.fetch(identity)
    assert said.code == 0, said.text
    assert (fetching.stage(identity) / "snapshot" / WEIGHTS).read_bytes() == large
    starts = [
        int(asked.range.removeprefix("bytes=").rstrip("-"))
        for asked in fetching.hub.asked
        if asked.server == "store" and asked.range and asked.range.endswith("-")
    ]
    assert starts == sorted(starts)
    assert starts[-1] >= 10_000_000
    # Beyond the file: what a killed process had received and not yet written.
    assert fetching.hub.sent[digest] <= len(large) + 10 * 12_000_000 + 1_100_000
    blobs = fetching.home / "hub/models--ann--adder/blobs"
    assert [path.name for path in blobs.glob("*.incomplete")] == []


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (Fault("X-Signature", cut_after=100_000, times=3), None),
        (Fault("X-Signature", flip=1_000_000), "came damaged (sha256"),
        (Fault("resolve-cache.*tokenizer.json", method="GET", flip=7), None),
        (Fault("X-Signature", status=429, headers={"Retry-After": "1"}), None),
        (Fault("/tree/", status=429, headers={"Retry-After": "1"}), "Rate limited"),
        (Fault("/resolve/", method="HEAD", status=503, times=2), None),
        (Fault("X-Signature", status=500), None),
        (Fault("X-Signature", status=403), None),
        (Fault("X-Signature", bytes_per_s=2_000_000), None),
    ],
    ids=[
        "dropped",
        "corrupted",
        "corrupted small file",
        "rate limit of the store",
        "rate limit of the listing",
        "busy",
        "store fails",
        "signature ran out",
        "slow",
    ],
)
def test_a_fault_that_passes_only_takes_time(
    fetching: Fetching, model_bytes: dict[str, bytes], fault: Fault, told: str | None
) -> None:
    identity = publish(fetching.hub, model_bytes)
    # The header of the weights is read before, from the same address.
    fetching.variables["HF_HUB_DOWNLOAD_TIMEOUT"] = "5"
    if "Signature" in fault.path:
        fetching.hub.faults.append(Fault("X-Signature", method="GET", times=1))
    fetching.hub.faults.append(fault)
    said = fetching.fetch(identity)
    assert said.code == 0, said.text
    snapshot = fetching.stage(identity) / "snapshot"
    assert {path.name: path.read_bytes() for path in snapshot.iterdir()} == model_bytes
    assert fault.times == 0
    if told:
        assert told in said.text
    assert "X-Signature" not in said.text


def test_bytes_that_are_always_wrong_are_refused_and_not_kept(
    fetching: Fetching, model_bytes: dict[str, bytes]
) -> None:
    identity = publish(fetching.hub, model_bytes)
    fetching.hub.faults.append(Fault("X-Signature", times=100, flip=2_000_000))
    error = fetching.fetch(identity).error
    assert f"{WEIGHTS} comes damaged every time (sha256 " in error
    digest = hashlib.sha256(model_bytes[WEIGHTS]).hexdigest()
    assert list((fetching.home / "hub").rglob(f"{digest}*")) == [
        fetching.home / f"hub/.locks/models--ann--adder/{digest}.lock"
    ]


def test_a_branch_that_moves_changes_nothing(
    fetching: Fetching, model_bytes: dict[str, bytes]
) -> None:
    identity = publish(fetching.hub, model_bytes)
    publish(fetching.hub, model_bytes | {"config.json": b'{"moved": true}'})
    assert fetching.fetch(identity).code == 0
    config = fetching.stage(identity) / "snapshot/config.json"
    assert config.read_bytes() == model_bytes["config.json"]


def test_two_workflows_that_share_a_cache_fetch_a_file_once(
    fetching: Fetching, model_bytes: dict[str, bytes], tmp_path: Path
) -> None:
    identity = publish(fetching.hub, model_bytes)
    fetching.hub.faults.append(Fault("X-Signature", times=100, bytes_per_s=3_000_000))
    other = Fetching(fetching.hub, tmp_path / "other", {"HF_HOME": str(fetching.home)})
    other.folder.mkdir()
    processes = [each.start(identity) for each in (fetching, other)]
    texts = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], texts
    for each in (fetching, other):
        snapshot = each.stage(identity) / "snapshot"
        assert {path.name: path.read_bytes() for path in snapshot.iterdir()} == model_bytes
    whole = [a for a in fetching.hub.asked if a.server == "store" and a.range is None]
    assert len(whole) == 1


def test_a_flipped_bit_in_the_cache_is_found_and_fetched_again(
    fetching: Fetching, model_bytes: dict[str, bytes]
) -> None:
    identity = publish(fetching.hub, model_bytes)
    assert fetching.fetch(identity).code == 0
    snapshot = fetching.stage(identity) / "snapshot"
    for name in (WEIGHTS, "tokenizer.json"):
        data = bytearray(model_bytes[name])
        data[len(data) // 2] ^= 1
        (snapshot / name).resolve().write_bytes(data)
    said = fetching.fetch(identity)
    assert said.code == 0, said.text
    assert said.text.count("is damaged in the cache") == 2
    assert {path.name: path.read_bytes() for path in snapshot.iterdir()} == model_bytes


def test_code_of_another_repository_comes_by_its_commit_and_is_verified(
    fetching: Fetching, model_bytes: dict[str, bytes]
) -> None:
    config = json.loads(model_bytes["config.json"])
    config["auto_map"] = {"AutoModelForCausalLM": "bob/code--modeling_x.XModel"}
    files = model_bytes | {"config.json": json.dumps(config).encode()}
    code = fetching.hub.repo("bob/code").commit({"modeling_x.py": b"# first", "README.md": b"x"})
    fetching.hub.repo("bob/code").commit({"modeling_x.py": b"# moved"})
    identity = publish(fetching.hub, files)
    assert fetching.fetch(identity).code == 0
    assert fetching.model(identity)["foreign_code"] == ["bob/code"]
    pinned = {**identity, "code": {"bob/code": code}}
    said = fetching.fetch(pinned)
    assert said.code == 0, said.text
    snapshot = fetching.stage(pinned) / "snapshot"
    assert (snapshot / "modeling_x.py").read_bytes() == b"# first"
    described = fetching.model(pinned)
    assert described["foreign_code"] == []
    assert [file["path"] for file in described["written"]] == ["config.json", "modeling_x.py"]
    # The cache still has the file of the hub, and the other model is as it was.
    other = json.loads((fetching.stage(identity) / "snapshot/config.json").read_text())
    assert other["auto_map"] == config["auto_map"]
    assert fetching.program("scripts.verify").code == 0
    (snapshot / "modeling_x.py").write_text("# other")
    assert "modeling_x.py: damaged" in fetching.program("scripts.verify").text
