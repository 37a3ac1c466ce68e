"""Who may read what: each refusal is one line with the page or the command, and no token leaks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import httpx2
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from scripts.llm_batch.hub.problems import explain, is_temporary
from scripts.llm_batch.hub.source import Source
from tests.hub.fetching import Fetching
from tests.hub.stand_in_hub import StandInHub

TOKEN = "hf_StandInTokenOfAnn0123456789abcdef"
OTHER = "hf_StandInTokenOfBob0123456789abcdef"


def publish(hub: StandInHub, files: dict[str, bytes], **settings: Any) -> dict[str, Any]:
    """Put a model on the hub that Ann may read, and return its identity."""
    hub.users = {TOKEN: "ann", OTHER: "bob"}
    commit = hub.repo("ann/adder", readers={"ann"}, **settings).commit(files)
    return {"repo": "ann/adder", "revision": commit}


REFUSALS = [
    (
        "gated without a token",
        {"gated": True},
        None,
        "gated; accept its terms at <hub>/ann/adder, then log in with `hf auth login` (or set "
        "HF_TOKEN)",
    ),
    (
        "gated without access",
        {"gated": True},
        OTHER,
        "gated, and this account (from HF_TOKEN) may not read it; ask for access at "
        "<hub>/ann/adder",
    ),
    (
        "private without a token",
        {"private": True},
        None,
        "the hub has no model of this name, or it is private; check <hub>/ann/adder, and for a "
        "private one log in with `hf auth login` (or set HF_TOKEN)",
    ),
    (
        "private without access",
        {"private": True},
        OTHER,
        "the hub has no model of this name, or it is private and this account (from HF_TOKEN) may "
        "not see it; check <hub>/ann/adder",
    ),
    (
        "bad token",
        {},
        "hf_nonsense",
        "the hub does not know this token (from HF_TOKEN); make one at <hub>/settings/tokens and "
        "log in with `hf auth login` (or set HF_TOKEN)",
    ),
]


@pytest.mark.parametrize(
    ("settings", "token", "message"),
    [refusal[1:] for refusal in REFUSALS],
    ids=[refusal[0] for refusal in REFUSALS],
)
def test_a_refusal_is_one_line_with_its_cure(
    fetching: Fetching,
    model_bytes: dict[str, bytes],
    settings: dict[str, Any],
    token: str | None,
    message: str,
) -> None:
    identity = publish(fetching.hub, model_bytes, **settings)
    if token is not None:
        fetching.variables["HF_TOKEN"] = token
    said = fetching.fetch(identity)
    name = f"ann/adder@{identity['revision'][:12]}: "
    assert said.error.replace(fetching.hub.url, "<hub>") == name + message
    assert said.code == 1


def test_a_missing_repository_and_a_missing_commit_are_told_apart(
    fetching: Fetching, model_bytes: dict[str, bytes]
) -> None:
    identity = publish(fetching.hub, model_bytes)
    error = fetching.fetch({**identity, "repo": "ann/ader"}).error
    assert "the hub has no model of this name, or it is private; check " in error
    error = fetching.fetch({**identity, "revision": "0" * 40}).error
    assert error == (
        f"ann/adder@000000000000: no such commit in ann/adder; see {fetching.hub.url}/ann/adder/"
        "commits/main, or let `python -m scripts.pin CONFIG` write the newest"
    )


def test_without_a_network_the_line_names_the_hub_and_the_way_round() -> None:
    # The program itself takes 23 s to give up, as its client tries five times.
    error = LocalEntryNotFoundError("no network")
    error.__cause__ = httpx2.ConnectError("[Errno 111] Connection refused")
    text = explain(error, Source("ann/adder", "0" * 40))
    assert " cannot be reached: [Errno 111] Connection refused; check the network" in text
    assert text.endswith("run `snakemake --cores all models` where there is a network")
    assert is_temporary(error)


def test_offline_with_an_empty_cache_names_the_variable(
    fetching: Fetching, model_bytes: dict[str, bytes]
) -> None:
    identity = publish(fetching.hub, model_bytes)
    fetching.variables["HF_HUB_OFFLINE"] = "1"
    error = fetching.fetch(identity).error
    assert "and HF_HUB_OFFLINE forbids to ask the hub; unset it, or run" in error
    assert fetching.hub.asked == []


def test_a_renamed_repository_is_fetched_and_its_new_name_told(
    fetching: Fetching, model_bytes: dict[str, bytes]
) -> None:
    identity = publish(fetching.hub, model_bytes)
    fetching.hub.repos["models", "ann/sums"] = fetching.hub.repos.pop(("models", "ann/adder"))
    fetching.hub.repos["models", "ann/sums"].name = "ann/sums"
    fetching.hub.renamed["ann/adder"] = "ann/sums"
    said = fetching.fetch(identity)
    assert said.code == 0, said.text
    assert "ann/adder is called ann/sums on the hub now" in said.text
    assert "write `repo: ann/sums`" in said.text


@pytest.mark.parametrize("where", ["HF_TOKEN", "token file"])
def test_a_token_reaches_the_hub_only_and_is_written_nowhere(
    fetching: Fetching, model_bytes: dict[str, bytes], where: str
) -> None:
    identity = publish(fetching.hub, model_bytes, gated=True)
    if where == "HF_TOKEN":
        fetching.variables["HF_TOKEN"] = TOKEN
    else:
        fetching.log_in(TOKEN)
    fetching.variables |= {"HF_DEBUG": "1", "HF_HUB_VERBOSITY": "debug"}
    said = fetching.fetch(identity)
    assert said.code == 0, said.text
    assert TOKEN not in said.text
    assert {asked.token for asked in fetching.hub.asked if asked.server == "store"} == {None}
    assert TOKEN in {asked.token for asked in fetching.hub.asked if asked.server == "hub"}
    assert files_with(fetching.folder, TOKEN) == [fetching.home / "token"] * (where != "HF_TOKEN")


def files_with(folder: Path, text: str) -> list[Path]:
    """Return the files below a folder that hold a text."""
    found = []
    for base, _, names in os.walk(folder):
        for name in names:
            path = Path(base, name)
            if path.is_file() and text.encode() in path.read_bytes():
                found.append(path)
    return found


@pytest.mark.parametrize("why", ["pickled", "no model", "two kinds of GGUF"])
def test_what_is_no_safe_model_is_refused(
    fetching: Fetching, model_bytes: dict[str, bytes], why: str
) -> None:
    files = {name: data for name, data in model_bytes.items() if name != "model.safetensors"}
    expected = {
        "pickled": "its weights are pickled (pytorch_model.bin), and reading them can run code",
        "no model": "no config.json: not a model in Hugging Face format",
        "two kinds of GGUF": "2 GGUF files, each a model of its own; name one under `files`",
    }
    extra: dict[str, dict[str, bytes]] = {
        "pickled": {"pytorch_model.bin": b"x" * 20_000},
        "no model": {"model.safetensors": b"x"},
        "two kinds of GGUF": {"a.Q4_K_M.gguf": b"x", "a.Q8_0.gguf": b"x"},
    }
    if why == "no model":
        del files["config.json"]
    identity = publish(fetching.hub, files | extra[why])
    assert expected[why] in fetching.fetch(identity).error
    if why == "pickled":
        said = fetching.fetch(identity, "--pickled")
        assert said.code == 0, said.text
        assert (fetching.stage(identity) / "snapshot/pytorch_model.bin").stat().st_size == 20_000


def test_a_full_disk_is_told_before_anything_is_fetched(
    fetching: Fetching, model_bytes: dict[str, bytes]
) -> None:
    identity = publish(fetching.hub, model_bytes)
    repo = fetching.hub.repo("ann/adder")
    weights = repo.commits[identity["revision"]]["model.safetensors"]
    listing = weights.listing
    huge = 10**15

    def claim(path: str, xet: bool = False) -> dict[str, Any]:
        entry = listing(path, xet)
        return {**entry, "size": huge, "lfs": {**entry["lfs"], "size": huge}}

    weights.listing = claim  # type: ignore[method-assign]
    error = fetching.fetch(identity).error
    assert "1000000.00 GB are to be fetched and " in error
    assert error.endswith("make room there or set HF_HOME to a folder on another disk")


def test_a_cache_that_cannot_be_written_is_named(
    fetching: Fetching, model_bytes: dict[str, bytes]
) -> None:
    identity = publish(fetching.hub, model_bytes)
    fetching.folder.joinpath("file").write_text("not a folder")
    fetching.variables["HF_HOME"] = str(fetching.folder / "file")
    error = fetching.fetch(identity).error
    assert f"{fetching.folder}/file" in error
    assert error.endswith(": Not a directory; set HF_HOME to a folder of yours")
