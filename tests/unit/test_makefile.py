"""make and scripts/setup.sh: .venv is whole or made again; what is missing is one line."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from scripts.show_experiment import main as show_experiment
from tests.unit.tiny_environments import ROOT, make_wheel, pin

TOOLS = ("awk", "cat", "df", "dirname", "find", "flock", "grep", "head", "ls", "mv", "rm", "sed",
         "sh", "tail", "tr")  # fmt: skip


@dataclass(frozen=True)
class Setup:
    """A copy of what setup.sh needs, whose lock holds one tiny package; nothing is downloaded."""

    folder: Path

    @property
    def tools(self) -> Path:
        """A folder of programs that is the whole PATH."""
        return self.folder.with_name("tools")

    @property
    def wheels(self) -> Path:
        """The only place where pip looks."""
        return self.folder.with_name("wheels")

    def program(self, name: str, text: str) -> Path:
        """Put a shell script on PATH."""
        path = self.tools / name
        path.unlink(missing_ok=True)
        path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
        path.chmod(0o755)
        return path

    def lock(self, *lines: str) -> None:
        """Write both locks."""
        for name in ("workflow", "development"):
            lock = self.folder / f"envs/{name}.requirements.txt"
            lock.write_text("".join(lines), encoding="utf-8")

    def run(self, part: str = "workflow", **variables: str) -> tuple[int, str]:
        """Run setup.sh; return its exit code and all it said."""
        result = subprocess.run(
            [self.folder / "scripts/setup.sh", part],
            env={
                "PATH": str(self.tools),
                "HOME": str(self.folder),
                "PIP_CONFIG_FILE": os.devnull,
                "PIP_NO_INDEX": "1",
                "PIP_FIND_LINKS": str(self.wheels),
                **variables,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
        return result.returncode, result.stdout


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    """A project in which nothing has been set up, on a machine with Python."""
    made = Setup(tmp_path / "a project")
    for folder in (made.folder / "scripts", made.folder / "envs", made.tools, made.wheels):
        folder.mkdir(parents=True)
    shutil.copy(ROOT / "scripts/setup.sh", made.folder / "scripts")
    for name in TOOLS:
        found = shutil.which(name)
        assert found, name
        (made.tools / name).symlink_to(found)
    base = Path(sys.base_prefix) / f"bin/python{sys.version_info[0]}.{sys.version_info[1]}"
    made.program("python3", f'exec "{base}" "$@"')
    made.lock(pin(make_wheel(made.wheels, "tinypkg", "")))
    return made


def has_tiny(setup: Setup) -> bool:
    """Whether the tiny package is in .venv."""
    return bool(list(setup.folder.glob(".venv/lib/*/site-packages/tinypkg.py")))


@pytest.mark.slow
def test_venv_is_set_up_once_and_again_when_the_lock_or_the_place_changes(setup: Setup) -> None:
    code, output = setup.run("development")
    assert code == 0, output
    assert has_tiny(setup)
    assert setup.run("development") == (0, "")
    assert setup.run("workflow") == (0, "")
    other = pin(make_wheel(setup.wheels, "otherpkg", ""))
    setup.lock(pin(setup.wheels / "tinypkg-1.0-py3-none-any.whl"), other)
    code, output = setup.run()
    assert code == 0, output
    assert "installing envs/workflow.requirements.txt" in output
    assert "making .venv" not in output
    assert list(setup.folder.glob(".venv/lib/*/site-packages/otherpkg.py"))
    moved = Setup(setup.folder.rename(setup.folder.with_name("moved")))
    code, output = moved.run()
    assert code == 0, output
    assert "making .venv" in output
    assert str(moved.folder) in (moved.folder / ".venv/bin/tinypkg").read_text()


def test_an_installation_that_failed_is_not_taken_for_finished(setup: Setup) -> None:
    wheel = setup.wheels / "tinypkg-1.0-py3-none-any.whl"
    setup.lock(pin(wheel, digest="0" * 64))
    code, output = setup.run()
    assert code == 1
    last = output.splitlines()[-1]
    assert last.startswith("error: a package is not the one in the lock")
    assert "PIP_NO_CACHE_DIR=1" in last
    assert not list(setup.folder.glob(".venv/.*.stamp"))
    setup.lock(pin(wheel))
    code, output = setup.run()
    assert code == 0, output
    assert has_tiny(setup)


def test_a_venv_whose_making_was_interrupted_is_made_again(setup: Setup) -> None:
    (setup.folder / ".venv/bin").mkdir(parents=True)
    (setup.folder / ".venv/pyvenv.cfg").write_text("home = /nonexistent\n")
    (setup.folder / ".venv/bin/python").symlink_to("/nonexistent/python3")
    code, output = setup.run()
    assert code == 0, output
    assert has_tiny(setup)


def test_a_folder_that_is_no_virtual_environment_is_left_alone(setup: Setup) -> None:
    (setup.folder / ".venv").mkdir()
    (setup.folder / ".venv/thesis.tex").write_text("years of work")
    code, output = setup.run()
    assert code == 1
    assert ".venv is there and is not a virtual environment; move it away" in output
    assert (setup.folder / ".venv/thesis.tex").exists()


def test_an_index_that_cannot_be_reached_is_one_line_with_a_cure(setup: Setup) -> None:
    (setup.wheels / "tinypkg-1.0-py3-none-any.whl").unlink()
    # Port 9 of this machine: refused at once, whatever network there is.
    index = "http://127.0.0.1:9/simple"
    code, output = setup.run(PIP_NO_INDEX="0", PIP_INDEX_URL=index, PIP_RETRIES="0", NO_PROXY="*")
    assert code == 1
    last = output.splitlines()[-1]
    assert last.startswith("error: the package index cannot be reached, or lacks a package")
    assert "HTTPS_PROXY" in last


@pytest.mark.parametrize(
    ("python3", "expected"),
    [
        (None, "python3 is missing; install one"),
        ("case $* in *platform*) echo 3.9.2;; *) exit 1;; esac", "python3 is 3.9.2; install one"),
        ("echo 'pyenv: python3: command not found' >&2; exit 127", "python3 is missing; install"),
    ],
)
def test_without_a_suitable_python_the_cure_is_named(
    setup: Setup, python3: str | None, expected: str
) -> None:
    (setup.tools / "python3").unlink()
    if python3:
        setup.program("python3", python3)
    code, output = setup.run()
    assert code == 1
    assert output.splitlines()[-1].startswith("error: Python 3.11, 3.12 or 3.13 is needed")
    assert expected in output
    assert "PYTHON=/path/to/python3.11" in output
    assert not (setup.folder / ".venv").exists()


def test_an_unsuitable_python_that_is_asked_for_is_refused(setup: Setup) -> None:
    old = setup.program("old", "case $* in *platform*) echo 2.7.18;; *) exit 1;; esac")
    code, output = setup.run(PYTHON=str(old))
    assert code == 1
    assert "is not Python 3.11, 3.12 or 3.13 (it says: 2.7.18)" in output


def test_a_python_without_venv_says_which_package_has_it(setup: Setup) -> None:
    real = (setup.tools / "python3").read_text().splitlines()[-1]
    setup.program("python3", f"case $* in *ensurepip*) exit 1;; esac\n{real}")
    code, output = setup.run()
    assert code == 1
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert "has no module venv or ensurepip, which make .venv; install them" in output
    assert f"apt-get install python{version}-venv" in output


def test_a_full_disk_is_seen_before_anything_is_made(setup: Setup) -> None:
    setup.program("df", "echo head; echo disk 1 1 1024 100% /")
    code, output = setup.run()
    assert code == 1
    assert re.search(r"error: .*: \d{4} MB are needed .*, 1 MB are free; free some", output)
    assert not (setup.folder / ".venv").exists()


def test_setup_says_what_it_can_set_up(setup: Setup) -> None:
    assert setup.run("everything") == (1, "error: say what to set up: workflow or development\n")


def test_make_help_lists_every_target_that_is_for_people() -> None:
    result = subprocess.run(
        ["make", "--no-print-directory", "help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    named = [line.split()[1] for line in result.stdout.splitlines()]
    assert named == ["help", "quickstart", "study", "test", "lint", "lock"]


def test_the_headline_is_shown_with_intervals_and_the_next_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables/headline.csv").write_text(
        "run,sampling,completions,errors,number.accuracy,number.accuracy.low,"
        "number.accuracy.high,number.pass@k,length.mean_score,length.mean_score.low,"
        "length.mean_score.high\n"
        "cpu.chat.greedy,greedy,1000,8,0.9712,0.9581,0.9804,,3.25,3,3.5\n"
        "cpu.plain.hot,hot,4000,0,,,,,,,\n",
        encoding="utf-8",
    )
    assert show_experiment([str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:4] == [
        "run              completions  errors  number accuracy, %  length mean_score",
        "cpu.chat.greedy         1000       8   97.1 [95.8, 98.0]     3.2 [3.0, 3.5]",
        "cpu.plain.hot           4000       0                   –                  –",
    ]
    assert lines[5] == f"Report: {tmp_path}/report.html"
    assert "snakemake --cores all --config model=PATH prompts=FILE.jsonl" in lines[-1]
