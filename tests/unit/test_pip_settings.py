"""pip's settings are found where pip finds them, and told to uv."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from scripts.llm_batch.environments.pip_settings import (
    PipSettings,
    read_pip_settings,
    uv_arguments,
    uv_variables,
    without_passwords,
)
from scripts.llm_batch.environments.uv_calls import clean_environment, diagnosis


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home folder whose pip.conf has both sections."""
    config = tmp_path / ".config/pip/pip.conf"
    config.parent.mkdir(parents=True)
    config.write_text(
        "[global]\nindex-url = https://one.example/simple\nfind-links =\n  /a\n  /b\ntimeout = 7\n"
        "[install]\nextra-index-url = file:///x file:///y\ntrusted_host = one.example\n"
        "[freeze]\ntimeout = 1\n",
        encoding="utf-8",
    )
    return tmp_path


def settings(home: Path, **environ: str) -> PipSettings:
    """Read the settings of a user who lives in `home` and nothing of this machine."""
    return read_pip_settings(
        {"HOME": str(home), "XDG_CONFIG_DIRS": str(home / "none"), **environ}, home / "venv"
    )


def test_the_users_file_is_read_with_both_sections(home: Path) -> None:
    found = settings(home, PIP_CERT="/cert.pem")
    assert found.index_url == "https://one.example/simple"
    assert found.find_links == ("/a", "/b")
    assert found.extra_index_urls == ("file:///x", "file:///y")
    assert found.trusted_hosts == ("one.example",)
    assert (found.cert, found.timeout, found.no_index) == ("/cert.pem", "7", False)


def test_variables_win_over_files(home: Path) -> None:
    found = settings(
        home, PIP_INDEX_URL="https://two.example", PIP_FIND_LINKS="/c", PIP_NO_INDEX="1"
    )
    assert found.index_url == "https://two.example"
    assert found.find_links == ("/c",)
    assert found.no_index is True


def test_the_virtual_environments_file_wins_over_the_users(home: Path) -> None:
    (home / "venv").mkdir()
    (home / "venv/pip.conf").write_text("[global]\nindex-url = https://venv.example\n")
    assert settings(home).index_url == "https://venv.example"


def test_the_file_that_is_named_wins_over_all_and_none_switches_all_off(home: Path) -> None:
    named = home / "named.conf"
    named.write_text("[global]\nindex-url = https://named.example\n")
    assert settings(home, PIP_CONFIG_FILE=str(named)).index_url == "https://named.example"
    assert settings(home, PIP_CONFIG_FILE=os.devnull) == PipSettings()


def test_a_torn_file_counts_as_empty(home: Path) -> None:
    (home / ".config/pip/pip.conf").write_bytes(b"[global\nindex-url = \xff")
    assert settings(home).index_url is None


def test_uv_is_told_every_place(tmp_path: Path) -> None:
    found = PipSettings(
        index_url="https://i.example",
        extra_index_urls=("https://e.example", f"file://{tmp_path}", "file:///nonexistent"),
        find_links=(str(tmp_path), "/nonexistent", "https://f.example"),
        trusted_hosts=("h.example",),
        no_index=True,
    )
    assert uv_arguments(found, {}) == [
        *("--index-strategy", "unsafe-best-match", "--default-index", "https://i.example"),
        *("--index", "https://e.example", "--index", f"file://{tmp_path}"),
        *("--find-links", str(tmp_path), "--find-links", "https://f.example"),
        *("--allow-insecure-host", "h.example", "--no-index"),
    ]


def test_what_the_user_told_uv_is_not_overruled() -> None:
    found = PipSettings(index_url="https://i.example", find_links=("https://f",), timeout="5")
    mine = {
        "UV_INDEX_URL": "https://mine.example",
        "UV_FIND_LINKS": "/mine",
        "UV_HTTP_TIMEOUT": "9",
    }
    assert uv_arguments(found, mine) == ["--index-strategy", "unsafe-best-match"]
    assert "UV_HTTP_TIMEOUT" not in uv_variables(found, mine)


@pytest.mark.parametrize(
    ("found", "environ", "expected"),
    [
        (PipSettings(), {}, {}),
        (PipSettings(cert=__file__), {}, {"SSL_CERT_FILE": __file__}),
        (PipSettings(cert=__file__), {"SSL_CERT_FILE": "mine"}, {}),
        (PipSettings(), {"REQUESTS_CA_BUNDLE": __file__}, {"SSL_CERT_FILE": __file__}),
        (PipSettings(proxy="p:1"), {}, {"HTTP_PROXY": "p:1", "HTTPS_PROXY": "p:1"}),
        (PipSettings(proxy="p:1"), {"https_proxy": "q:2"}, {"HTTP_PROXY": "p:1"}),
        (
            PipSettings(timeout="9", retries="2"),
            {},
            {"UV_HTTP_TIMEOUT": "9", "UV_HTTP_RETRIES": "2"},
        ),
    ],
)
def test_uv_is_told_how_to_reach_them(
    found: PipSettings, environ: Mapping[str, str], expected: Mapping[str, str]
) -> None:
    assert uv_variables(found, environ) == {"UV_SYSTEM_CERTS": "true", **expected}


def test_passwords_are_hidden() -> None:
    text = "--index https://me:secret@host/simple --find-links file:///a@b"
    assert without_passwords(text) == "--index https://***@host/simple --find-links file:///a@b"


def test_only_ways_to_reach_packages_are_inherited() -> None:
    inherited = {
        "PATH": "/bin",
        "PYTHONPATH": "/src",
        "VIRTUAL_ENV": "/venv",
        "UV_INDEX_URL": "https://i",
        "UV_INDEX_MINE_PASSWORD": "s",
        "UV_CACHE_DIR": "/c",
        "UV_CONSTRAINT": "c.txt",
        "UV_EXCLUDE_NEWER": "2020-01-01",
        "UV_TORCH_BACKEND": "auto",
    }
    assert set(clean_environment(inherited, {"A": "b"})) == {
        *("PATH", "UV_INDEX_URL", "UV_INDEX_MINE_PASSWORD", "UV_CACHE_DIR", "A")
    }


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (
            "error: Failed to download `einops==0.8.2`\n  cause: Hash mismatch for `einops==0.8.2`",
            "einops==0.8.2: the file's sha256 is not the one in the lock",
        ),
        (
            "error: Request failed after 3 retries in 8.1s\n  cause: Failed to fetch: https://h/\n"
            "  cause: dns error",
            "the package index cannot be reached",
        ),
        (
            "error: No solution found when resolving dependencies\n  cause: Because einopz was not "
            "found in the package registry and you require einopz==0.8.2",
            "einopz: in none of the places",
        ),
        (
            "  cause: Because there is no version of einops==99.8.2 and you require einops==99.8.2",
            "einops==99.8.2: in none of the places",
        ),
        (
            "error: x\n  cause: failed to copy: No space left on device (os error 28)",
            "disk is full",
        ),
        ("error: Failed to fetch: `https://h/`\n  cause: HTTP status code: 401", "refuses access"),
        (
            "error: No interpreter found for Python 3.11 in managed installations or search path",
            "Python 3.11 is not on this machine",
        ),
        ("error: something else\n  cause: deep", "uv says: something else"),
    ],
)
def test_a_failure_of_uv_is_one_line_with_a_cure(said: str, expected: str) -> None:
    line = diagnosis(said.splitlines(), 2)
    assert expected in line
    assert "\n" not in line
