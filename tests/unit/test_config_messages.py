"""Every way to spoil a config is refused with its place, its key and the cure, in one line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from scripts.llm_batch.config.load import load_config
from scripts.llm_batch.errors import ConfigError
from tests.unit.config_cases import BASE, EDITS, RUN, make_project

EXPECTED = Path(__file__).with_name("config_messages.txt")
"""One line an edit: `<name of the edit> => <message>`; several lines of one are joined by ⏎."""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    make_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refusal(folder: Path, text: str) -> str:
    """Return the message with which a config file of this text is refused."""
    (folder / "config.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_config(yaml.safe_load(text), [Path("config.yaml")])
    return str(caught.value).replace(str(folder), "<here>").replace("\n", " ⏎ ")


def _expected() -> dict[str, str]:
    lines = EXPECTED.read_text(encoding="utf-8").splitlines()
    return dict(line.split(" => ", 1) for line in lines)


@pytest.mark.parametrize(("name", "old", "new"), EDITS, ids=[edit[0] for edit in EDITS])
def test_a_spoilt_config_is_refused_with_place_key_and_cure(
    project: Path, name: str, old: str, new: str
) -> None:
    assert BASE.count(old) > 0, "the edit must change something"
    message = refusal(project, BASE.replace(old, new, 1))
    assert message == _expected()[name]
    assert re.match(r"config\.yaml:\d+: \S", message)


def test_every_expected_message_belongs_to_an_edit() -> None:
    names = [name for name, _, _ in EDITS]
    assert len(set(names)) == len(names)
    assert list(_expected()) == names


def test_there_are_plenty_of_ways_to_spoil_a_config() -> None:
    assert len(EDITS) >= 120


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({}, "config.yaml: the config is empty; begin with config/config.yaml as a model"),
        (None, "config.yaml: the config is empty; begin with config/config.yaml as a model"),
        (
            ["a"],
            "config.yaml: the config is a list, not a mapping; "
            "begin with config/config.yaml as a model",
        ),
    ],
)
def test_an_empty_config_is_refused(project: Path, raw: object, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(raw, [Path("config.yaml")])  # type: ignore[arg-type]
    assert str(caught.value) == message


def test_several_problems_are_listed_and_counted(project: Path) -> None:
    keys = "".join(f"    key{number}: 1\n" for number in range(13))
    lines = refusal(project, BASE.replace("    n: 4\n", keys, 1)).split(" ⏎ ")
    assert len(lines) == 11
    assert lines[0].startswith("config.yaml:26: samplings.warm.key0: unknown key;")
    assert lines[9].startswith("config.yaml:35: samplings.warm.key9: unknown key;")
    assert lines[10] == "… and 3 more"


def test_strict_on_a_cpu_needs_float32(project: Path) -> None:
    text = BASE.replace("float32", "bfloat16").replace(RUN, RUN + "    determinism: strict\n")
    assert refusal(project, text) == (
        "config.yaml:34: runs[0].determinism: strict on a CPU needs float32, and engine 'cpu' has "
        "bfloat16: other formats differ from CPU to CPU; set engines.cpu.args.dtype, or write fast"
    )


def test_an_engine_needs_an_environment_that_exists(project: Path) -> None:
    line = "    environment: cpu\n"
    assert refusal(project, BASE.replace(line, "    environment: cpux\n")).startswith(
        "config.yaml:7: engines.cpu.environment: 'cpux' is not in envs/; did you mean 'cpu'? ("
    )
    assert refusal(project, BASE.replace(line, "")).startswith(
        "config.yaml:5: engines.cpu: the key 'environment' is missing; add it: auto, or one of "
    )


def test_an_environment_of_the_command_line_must_exist(project: Path) -> None:
    raw = {**yaml.safe_load(BASE), "environment": "cpux"}
    with pytest.raises(ConfigError) as caught:
        load_config(raw, [Path("config.yaml")])
    assert str(caught.value).startswith(
        "--config: environment: 'cpux' is not in envs/; did you mean 'cpu'? ("
    )


def test_a_model_of_the_command_line_needs_an_environment(project: Path) -> None:
    raw = {"model": "models/tiny", "prompts": "data/asked.jsonl"}
    with pytest.raises(ConfigError) as caught:
        load_config(raw, [])
    message = str(caught.value)
    assert message.startswith(
        "--config: model: the key 'environment' is missing; add it: auto, or one of "
    )
    assert message.endswith(", as environment=NAME")


def test_a_problem_is_placed_in_the_file_that_won(project: Path) -> None:
    Path("more.yaml").write_text("# settings of one machine\nsamplings: {warm: {n: 0}}\n")
    raw = yaml.safe_load(BASE)
    raw["samplings"]["warm"]["n"] = 0
    with pytest.raises(ConfigError, match=r"^more\.yaml:2: samplings\.warm\.n: expected"):
        load_config(raw, [Path("config.yaml"), Path("more.yaml")])


def test_a_problem_below_the_winning_file_is_placed_in_the_file_that_has_it(project: Path) -> None:
    Path("more.yaml").write_text("samplings: {warm: {seed: 3}}\n")
    spoilt = BASE.replace("    n: 4\n", "    n: 0\n")
    Path("config.yaml").write_text(spoilt)
    raw = yaml.safe_load(spoilt)
    raw["samplings"]["warm"]["seed"] = 3
    with pytest.raises(ConfigError, match=r"^config\.yaml:26: samplings\.warm\.n: expected"):
        load_config(raw, [Path("config.yaml"), Path("more.yaml")])


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("experiment", 7, "--config: experiment: expected text"),
        ("smaplings", {}, "--config: smaplings: unknown key; did you mean 'samplings'?"),
        ("samplings", {"warm": {"n": 0}}, "--config: samplings.warm.n: expected a whole number"),
        ("shards", 0, "--config: shards: expected a whole number from 1 to 10000 or auto, found 0"),
        ("model", 7, "--config: model: expected text that is not empty, found 7; put ./ before it"),
        ("model", "modls/tiny", "--config: model: no such folder: 'modls/tiny'; did you mean"),
        (
            "model",
            "google/gemma@main",
            "--config: model: 'main' can come to mean other files, a commit (40 hexadecimal "
            "digits) cannot; `python -m scripts.pin google/gemma@main` prints it",
        ),
        ("prompts", "data/row.jsonl", "--config: prompts: no such file: 'data/row.jsonl'; did you"),
        ("prompts", "rows.xls", "--config: prompts: expected a .jsonl, .json, .parquet, .csv"),
        (
            "prompts",
            "data/rows.jsonl",
            "--config: prompts: the first row has neither 'prompt' (text) nor 'messages' (chat) "
            "but 'id', 'question', 'reference', 'answer'; rename a field, or write a template in "
            "a config file",
        ),
        ("sampling", "greedy", "--config: sampling: only with model= or prompts=; add one of them"),
        ("backend", "dumy", "--config: backend: expected one of vllm, dummy, found the text"),
        ("environment", "a b", "--config: environment: expected text (letters, digits,"),
    ],
)
def test_a_problem_of_the_command_line_is_named_so(
    project: Path, key: str, value: object, message: str
) -> None:
    raw = yaml.safe_load(BASE)
    if isinstance(value, dict) and key in raw:
        raw[key]["warm"].update(value["warm"])
    else:
        raw[key] = value
    with pytest.raises(ConfigError) as caught:
        load_config(raw, [Path("config.yaml")])
    assert str(caught.value).startswith(message)


def test_a_sampling_named_on_the_command_line_must_exist(project: Path) -> None:
    raw = {**yaml.safe_load(BASE), "model": "models/tiny", "sampling": "greedy, wrm"}
    with pytest.raises(ConfigError) as caught:
        load_config(raw, [Path("config.yaml")])
    assert str(caught.value) == (
        "--config: sampling: 'wrm' is not in samplings; did you mean 'warm'? (greedy, warm)"
    )


def test_without_any_file_everything_is_from_the_command_line(project: Path) -> None:
    raw = {**yaml.safe_load(BASE), "report": 3}
    with pytest.raises(ConfigError, match=r"^--config: report: expected a mapping, found 3$"):
        load_config(raw, [])


def test_a_value_that_came_by_an_alias_is_placed_where_it_is_written(project: Path) -> None:
    text = BASE.replace("  warm:\n", "  base: &base\n    top_p: 2\n  warm:\n    <<: *base\n", 1)
    message = refusal(project, text)
    assert message == (
        "config.yaml:25: samplings.base.top_p: expected a number above 0 and at most 1, found 2 ⏎ "
        "config.yaml:25: samplings.warm.top_p: expected a number above 0 and at most 1, found 2"
    )


def test_a_key_that_replaces_a_merged_one_is_not_written_twice(project: Path) -> None:
    text = BASE.replace(
        "  warm:\n", "  base: &base\n    temperature: 1.0\n  warm:\n    <<: *base\n", 1
    )
    Path("config.yaml").write_text(text)
    config = load_config(yaml.safe_load(text), [Path("config.yaml")])
    assert config.samplings["warm"].params["temperature"] == 0.7


def test_json_is_placed_too(project: Path) -> None:
    Path("config.json").write_text('{\n  "experiment": "demo",\n  "modles": {}\n}\n')
    raw = {"experiment": "demo", "modles": {}}
    with pytest.raises(ConfigError, match=r"^config\.json:3: modles: unknown key; did you mean"):
        load_config(raw, [Path("config.json")])


def test_a_file_that_cannot_be_read_again_does_not_hide_the_problem(project: Path) -> None:
    raw = {**yaml.safe_load(BASE), "report": 3}
    with pytest.raises(ConfigError, match=r"^gone\.yaml: report: expected a mapping, found 3$"):
        load_config(raw, [Path("gone.yaml")])
