"""Config files that are no YAML, no text or no mapping: one line with file, line and cure."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.llm_batch.config.syntax import (
    check_readable,
    named_configs,
    refuse_broken,
    syntax_problem,
)
from scripts.llm_batch.errors import ConfigError

BROKEN: list[tuple[bytes, str]] = [
    (b"runs:\n\t- engine: a\n", "2: not YAML: .*a line begins with a tab; indent with blanks"),
    (b"a:\n  b: 1\n   c: 2\n", "3: not YAML: mapping values are not allowed.*`c: 2`"),
    (b"a: 1\n b: 2\n", "2: not YAML: mapping values.*mend the indent"),
    (b"a: 1\nb\nc: 2\n", "2: not YAML: .*could not find expected ':'.*`b`; write `key: value`"),
    (b"a: b: c\n", "1: not YAML: mapping values.*in quotes"),
    (b"a: 1\nruns: [b, c\nd: 1\n", "2: not YAML: .*flow sequence.*close the bracket"),
    (b"a: 1\nb: {c: 1\n", "2: not YAML: .*flow mapping.*close the bracket"),
    (b"a: 1\nb: 'c\n\nd: 2\n", "2: not YAML: .*quoted scalar.*close the quotation mark"),
    (b"a:\n- b\nx\n", "3: not YAML: .*could not find"),
    (b"a: *b\n", "1: not YAML: found undefined alias.*name an anchor"),
    (b"a: @b\n", "1: not YAML: .*cannot start any token.*put the text in quotes"),
    (b"a: 1\n---\nb: 1\n", "2: not YAML: .*remove the line ---"),
    (b"a: !!python/object:os.system {}\n", "1: not YAML: .*remove the tag"),
    (b"a: 1\nb: [2024-13-45]\n", "2: not a date: month must be.*in quotes"),
    (b"a: caf\xe9\n", "1: expected UTF-8, found byte 0xe9; save the file as UTF-8"),
    ("a: 1\n".encode("utf-16"), "1: expected UTF-8, found UTF-16"),
    (b"a: 1\nb: \0\n", "2: expected text, found the character #x0000; remove it"),
    (b"", "1: the config is empty; begin with config/config.yaml as a model"),
    (b"# nothing\n", "1: the config is empty"),
    (b"- a\n- b\n", "1: expected `key: value` lines, found a list"),
    (b"hello\n", "1: expected `key: value` lines, found one value \\('hello'\\)"),
    (b"a: " + b"[" * 5000, "1: n"),
]


@pytest.mark.parametrize(("data", "message"), BROKEN)
def test_a_file_that_cannot_be_read_is_told_with_line_and_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_bytes(data)
    with pytest.raises(ConfigError, match=f"^mine\\.yaml:{message}") as caught:
        check_readable([Path("mine.yaml")])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("plain.yaml", "a: 1\n"),
        ("windows.yaml", "\ufeffa: 1\r\nb: [1]\r\n"),
        ("tabs.json", '{\n\t"a": 1\n}'),
        ("relaxed.json", '{"a": 1,}'),
        ("anchors.yaml", "a: &x {b: 1}\nc: *x\nd: {<<: *x}\n"),
    ],
)
def test_what_snakemake_reads_is_left_alone(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    assert syntax_problem(path) is None


def test_json_is_told_in_words_of_json(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text('{\n\t"a": 1\n\t"b": 2\n}')
    assert "mine.json:3: not JSON: Expecting ',' delimiter" in str(syntax_problem(path))


def test_what_is_not_there_or_no_file_is_told(tmp_path: Path) -> None:
    assert str(syntax_problem(tmp_path / "x")).endswith(
        ": no such file; name one with --configfile"
    )
    assert "cannot be read: Is a directory" in str(syntax_problem(tmp_path))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--configfile a.yaml b.yaml --cores 2", ["a.yaml", "b.yaml"]),
        ("runs --configfile=a.yaml -n", ["a.yaml"]),
        ("--configfiles a.yaml --configfile b.yaml", ["a.yaml", "b.yaml"]),
        ("--configfile", []),
        ("--config a=b -n", ["config/config.yaml"]),
    ],
)
def test_the_config_files_of_a_command_are_found(words: str, expected: list[str]) -> None:
    assert named_configs(words.split()) == [Path(name) for name in expected]


def test_each_broken_file_of_a_command_has_a_line(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).write_text("[")
    with pytest.raises(SystemExit) as caught:
        refuse_broken(["--configfile", str(tmp_path / "a"), str(tmp_path / "b")])
    lines = str(caught.value).splitlines()
    assert [line.split(": not YAML")[0] for line in lines] == [
        f"error: {tmp_path}/a:1",
        f"error: {tmp_path}/b:1",
    ]
