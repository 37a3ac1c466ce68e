"""`scripts.pin` writes commits into a config and changes no other character."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from scripts.llm_batch.errors import ConfigError
from scripts.llm_batch.hub.pins import find_pins, write_pins
from tests.hub.fetching import Fetching

CONFIG = """\
# An experiment of ours.
experiment:   spaced     # kept
models:
  # in one line
  flow: {repo: ann/adder}   # after it
  tag:  {repo: "ann/adder", revision: v1, pickled: false}
  block:
    repo: ann/adder   # the newest
    files: ['*.json', "*.safetensors"]
  empty:
    repo: ann/adder
    revision:
  pinned: {repo: ann/adder, revision: %(pinned)s}
  local: {path: /models/x}
  coded:
    path: /models/y
    code: {bob/code: main}
adapters:
  fr: {repo: ann/lora}
prompts:
  gsm8k: {dataset: ann/sums, template: "{{ q }}"}
runs: []
"""
PINNED = "b" * 40


@pytest.fixture
def config(fetching: Fetching) -> Path:
    """A config in a folder, and a hub that has all it names."""
    hub = fetching.hub
    first = hub.repo("ann/adder").commit({"config.json": b"1"})
    hub.repo("ann/adder").tags["v1"] = first
    hub.repo("ann/adder").commit({"config.json": b"2"})
    hub.repo("bob/code").commit({"x.py": b"1"})
    hub.repo("ann/lora").commit({"adapter_config.json": b"1"})
    hub.repo("ann/sums", "datasets").commit({"README.md": b"1"})
    path = fetching.folder / "mine.yaml"
    path.write_text(CONFIG % {"pinned": PINNED})
    return path


def test_commits_are_written_and_nothing_else_changes(fetching: Fetching, config: Path) -> None:
    said = fetching.program("scripts.pin", "mine.yaml")
    assert said.code == 0, said.text
    repo = fetching.hub.repo("ann/adder")
    main, tag = repo.branches["main"], repo.tags["v1"]
    code = fetching.hub.repo("bob/code").branches["main"]
    lora = fetching.hub.repo("ann/lora").branches["main"]
    sums = fetching.hub.repo("ann/sums", "datasets").branches["main"]
    expected = (
        (CONFIG % {"pinned": PINNED})
        .replace("flow: {repo: ann/adder}", f"flow: {{repo: ann/adder, revision: {main}}}")
        .replace("revision: v1", f"revision: {tag}")
        .replace("# the newest\n", f"# the newest\n    revision: {main}\n")
        .replace("    revision:\n", f"    revision: {main}\n")
        .replace("bob/code: main", f"bob/code: {code}")
        .replace("ann/lora}", f"ann/lora, revision: {lora}}}")
        .replace("ann/sums,", f"ann/sums, revision: {sums},")
    )
    assert config.read_text() == expected
    assert f"models.tag: ann/adder is at {tag}" in said.text
    assert "models.pinned" not in said.text
    again = fetching.program("scripts.pin", "mine.yaml")
    assert again.text.endswith("mine.yaml: nothing to pin: 8 revisions, each a commit\n")
    assert config.read_text() == expected


def test_update_moves_what_is_pinned_to_the_newest(fetching: Fetching, config: Path) -> None:
    fetching.program("scripts.pin", "mine.yaml")
    newest = fetching.hub.repo("ann/adder").commit({"config.json": b"3"})
    said = fetching.program("scripts.pin", "mine.yaml", "--update")
    assert said.code == 0, said.text
    models = yaml.safe_load(config.read_text())["models"]
    hub_models = ("flow", "tag", "block", "empty", "pinned")
    assert {models[name]["revision"] for name in hub_models} == {newest}


def test_nothing_is_written_if_one_cannot_be_resolved(fetching: Fetching, config: Path) -> None:
    text = config.read_text().replace("v1", "v9").replace("ann/lora", "ann/gone")
    config.write_text(text)
    said = fetching.program("scripts.pin", "mine.yaml")
    assert said.code == 1
    lines = said.text.splitlines()
    assert lines[0].startswith("error: models.tag: ann/adder@v9: no such commit in ann/adder; see ")
    assert lines[1].startswith("adapters.fr: ann/gone@main: the hub has no model of this name")
    assert lines[2] == "nothing was written"
    assert config.read_text() == text


def test_json_is_pinned_too(fetching: Fetching, config: Path) -> None:
    path = fetching.folder / "mine.json"
    path.write_text('{"models": {"a": {"repo": "ann/adder"},\n "b": {"repo": "ann/adder", ')
    with path.open("a") as stream:
        stream.write('"revision": "main"}}}\n')
    assert fetching.program("scripts.pin", "mine.json").code == 0
    main = fetching.hub.repo("ann/adder").branches["main"]
    assert path.read_text() == (
        f'{{"models": {{"a": {{"repo": "ann/adder", "revision": "{main}"}},\n '
        f'"b": {{"repo": "ann/adder", "revision": "{main}"}}}}}}\n'
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [("a: [", "not YAML: "), ("- a", "not a mapping of sections"), ("", "not a mapping")],
)
def test_what_is_no_config_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        find_pins(text)


def test_an_entry_that_is_shared_by_an_alias_is_written_once() -> None:
    text = "models:\n  a: &a {repo: x/y}\n  b: *a\n"
    (pin,) = find_pins(text)
    assert write_pins(text, {pin: PINNED}) == (
        f"models:\n  a: &a {{repo: x/y, revision: {PINNED}}}\n  b: *a\n"
    )


def test_line_ends_of_windows_stay() -> None:
    text = "models:\r\n  a:\r\n    repo: x/y\r\n    pickled: true\r\n"
    (pin,) = find_pins(text)
    new = write_pins(text, {pin: PINNED})
    assert yaml.safe_load(new)["models"]["a"] == {
        "repo": "x/y",
        "revision": PINNED,
        "pickled": True,
    }
    assert new.count("\n") == new.count("\r\n")


def test_a_model_is_named_with_its_commit_for_the_command_line(
    fetching: Fetching, config: Path
) -> None:
    repo = fetching.hub.repo("ann/adder")
    said = fetching.program("scripts.pin", "ann/adder")
    assert said.text == f"ann/adder@{repo.branches['main']}\n"
    assert fetching.program("scripts.pin", "ann/adder@v1").text == f"ann/adder@{repo.tags['v1']}\n"
    assert fetching.program("scripts.pin", "ann/gone").error.startswith("ann/gone@main: the hub")
    assert "cannot be read" in fetching.program("scripts.pin", "ann/gone.yaml").error
