"""Locks made again, their files loaded into a folder, and built from that without a network."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from rattler_build import assemble_package

from scripts.llm_batch.environments.apart import apart
from scripts.llm_batch.environments.conda_pins import read_pins
from scripts.llm_batch.environments.identity import locked_packages
from tests.environments.channel import NAME, PYTHON, Layered
from tests.unit.tiny_environments import ROOT, Tiny, make_tiny, make_wheel, pin


def make_index(channel: Path) -> None:
    """Make the index of a channel."""
    import rattler

    asyncio.run(rattler.index.index_fs(channel))


OFFLINE = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1"}


def lock(*words: str, **variables: str) -> tuple[int, str]:
    """Call the program that locks; return its exit code and all it said."""
    result = subprocess.run(
        [sys.executable, "-m", "scripts.lock_environment", *words],
        cwd=ROOT,
        env={**os.environ, **OFFLINE, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    return result.returncode, result.stdout


@pytest.fixture(scope="module")
def dated(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A channel with three releases of a tool, one a year, and what they need."""
    folder = tmp_path_factory.mktemp("dated")
    files = tmp_path_factory.mktemp("files")
    (files / "note.txt").write_text("made for a test")
    for name, version, year, needs in (
        ("tool", "1.0", 2023, ["base >=1"]),
        ("tool", "2.0", 2024, ["base >=1"]),
        ("tool", "3.0", 2025, ["base >=1", "__glibc >=2.99"]),
        ("base", "1.0", 2022, []),
    ):
        assemble_package(
            name,
            version,
            "linux-64",
            "h0_0",
            output_dir=folder / "linux-64",
            files_dir=files,
            depends=needs,
            timestamp=datetime(year, 1, 1, tzinfo=UTC),
            compression_level=1,
        )
    (folder / "noarch").mkdir()
    apart(make_index, folder)
    for made in folder.glob("*/*.zst"):
        made.unlink()
    index = json.loads((folder / "linux-64/repodata.json").read_text())
    for record in index["packages.conda"].values():
        # Today, when the index was made; what counts here is when the packages were.
        record.pop("indexed_timestamp", None)
    (folder / "linux-64/repodata.json").write_text(json.dumps(index))
    return folder.as_uri()


@pytest.fixture
def solved(tmp_path: Path, dated: str) -> Tiny:
    """A tiny environment whose conda layer is described, not locked yet."""
    tiny = make_tiny(tmp_path / "project")
    (tiny.envs / "tiny.in").write_text("tinypkg==1.0\n")
    tiny.describe(
        glibc="2.31",
        conda={"channels": [dated], "specs": ["tool"], "newest": "2025-06-01T00:00:00Z"},
    )
    return tiny


def lock_tiny(tiny: Tiny, *words: str) -> tuple[int, str]:
    """Lock the tiny environment of a project."""
    places = {"PIP_FIND_LINKS": str(tiny.wheels), "XDG_CACHE_HOME": str(tiny.folder / "cache")}
    return lock("--environments-dir", str(tiny.envs), "tiny", *words, **places)


# --- Conda -------------------------------------------------------------------------------------


def conda_versions(tiny: Tiny) -> dict[str, str]:
    """Return the versions that the conda lock of a project holds."""
    pins = read_pins(tiny.envs / "tiny.linux-64.pin.txt")
    return {pin.distribution[0]: pin.distribution[1] for pin in pins}


def test_a_conda_layer_is_solved_for_the_described_machine_and_day(solved: Tiny) -> None:
    code, output = lock_tiny(solved)
    assert code == 0, output
    # 3.0 needs a C library that the description does not promise, whatever this machine has.
    assert conda_versions(solved) == {"base": "1.0", "tool": "2.0"}
    text = (solved.envs / "tiny.linux-64.pin.txt").read_text()
    assert "@EXPLICIT\n" in text
    assert len(re.findall(r"#sha256:[0-9a-f]{64}\n", text)) == 2
    assert lock_tiny(solved, "--fresh")[0] == 0
    assert (solved.envs / "tiny.linux-64.pin.txt").read_text() == text


def test_nothing_younger_than_the_day_is_taken(solved: Tiny, dated: str) -> None:
    conda = {"channels": [dated], "specs": ["tool"], "newest": "2023-06-01T00:00:00Z"}
    solved.describe(glibc="2.31", conda=conda)
    assert lock_tiny(solved)[0] == 0
    assert conda_versions(solved) == {"base": "1.0", "tool": "1.0"}


def test_a_layer_that_cannot_be_solved_is_one_line_and_changes_no_lock(
    solved: Tiny, dated: str
) -> None:
    assert lock_tiny(solved)[0] == 0
    before = (solved.envs / "tiny.linux-64.pin.txt").read_bytes()
    solved.describe(glibc="2.31", conda={"channels": [dated], "specs": ["tool >=9"]})
    code, output = lock_tiny(solved)
    assert code == 1
    assert "error: tiny.yaml: conda: " in output.strip().splitlines()[-1]
    assert (solved.envs / "tiny.linux-64.pin.txt").read_bytes() == before


# --- Wheels ------------------------------------------------------------------------------------


def needing(folder: Path, name: str, needs: list[str]) -> None:
    """Write a wheel whose metadata asks for other packages."""
    wheel = make_wheel(folder, name, "")
    other = wheel.with_suffix(".tmp")
    lines = "".join(f"Requires-Dist: {need}\n" for need in needs)
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(other, "w") as new:
        for entry in old.namelist():
            data = old.read(entry).decode()
            new.writestr(entry, data + lines if entry.endswith("METADATA") else data)
    other.replace(wheel)


def test_dependencies_are_locked_but_not_those_that_are_excluded(solved: Tiny) -> None:
    needing(solved.wheels, "outer", ["inner", "impostor"])
    needing(solved.wheels, "inner", [])
    needing(solved.wheels, "impostor", [])
    (solved.envs / "tiny.in").write_text("# by hand\ntinypkg==1.0\nouter\n")
    solved.describe(lock={"excludes": ["impostor"]})
    code, output = lock_tiny(solved)
    assert code == 0, output
    assert locked_packages(solved.lock) == {"inner": "1.0", "outer": "1.0", "tinypkg": "1.0"}
    solved.describe(lock={"dependencies": False})
    assert lock_tiny(solved)[0] == 0
    assert locked_packages(solved.lock) == {"outer": "1.0", "tinypkg": "1.0"}


def test_a_wheel_that_no_index_has_is_locked_and_built_by_its_address(tmp_path: Path) -> None:
    tiny = make_tiny(tmp_path / "project")
    elsewhere = tmp_path / "release"
    elsewhere.mkdir()
    wheel = shutil.move(tiny.wheels / "tinypkg-1.0-py3-none-any.whl", elsewhere)
    (tiny.envs / "tiny.in").write_text("tinypkg==1.0\n")
    before = tiny.lock.read_text()
    tiny.lock.write_text("")
    tiny.describe(files={"tinypkg": Path(wheel).as_uri()})
    code, output = lock_tiny(tiny)
    assert code == 0, output
    assert before.split() == tiny.lock.read_text().split("\n", 2)[2].split()
    code, output = tiny.build(PIP_NO_INDEX="0", PIP_INDEX_URL="http://127.0.0.1:9", NO_PROXY="*")
    assert code == 0, output


def test_a_wheel_of_another_hash_at_that_address_is_refused(tmp_path: Path) -> None:
    tiny = make_tiny(tmp_path / "project")
    elsewhere = tmp_path / "release"
    elsewhere.mkdir()
    wheel = shutil.move(tiny.wheels / "tinypkg-1.0-py3-none-any.whl", elsewhere)
    tiny.describe(files={"tinypkg": Path(wheel).as_uri()})
    tiny.lock.write_text(pin(Path(wheel), digest="0" * 64))
    code, output = tiny.build(PIP_NO_INDEX="0")
    assert code == 1
    assert "sha256 is not the one in the lock" in output.strip().splitlines()[-1]
    assert not tiny.built.exists()


def put_on_index(root: Path, *wheels: Path) -> str:
    """Make a package index of files; return its address."""
    folder = root / "tinypkg"
    folder.mkdir(parents=True)
    links = []
    for wheel in wheels:
        shutil.copy(wheel, folder)
        sha256 = hashlib.sha256(wheel.read_bytes()).hexdigest()
        links.append(f'<a href="{wheel.name}#sha256={sha256}">{wheel.name}</a>')
    (folder / "index.html").write_text("\n".join(links))
    return root.as_uri()


def test_a_lock_for_every_platform_has_all_files_though_an_extra_index_has_one(
    tmp_path: Path,
) -> None:
    """As where one package was installable with Python 3.11 only: the extra index hid the rest."""
    envs = tmp_path / "envs"
    envs.mkdir()
    (envs / "development.in").write_text("tinypkg==1.0\n")
    wheels = []
    for python in ("cp311", "cp312", "cp313"):
        made = make_wheel(tmp_path, "tinypkg", f"built_for = '{python}'\n")
        wheels.append(made.rename(tmp_path / f"tinypkg-1.0-{python}-none-any.whl"))
    (envs / "development.requirements.txt").write_text(pin(wheels[0]))
    places = {
        "PIP_NO_INDEX": "",
        "PIP_INDEX_URL": put_on_index(tmp_path / "whole", *wheels),
        "PIP_EXTRA_INDEX_URL": put_on_index(tmp_path / "part", wheels[0]),
    }
    code, output = lock("--environments-dir", str(envs), "development", **places)
    assert code == 0, output
    hashes = re.findall("sha256:[0-9a-f]{64}", (envs / "development.requirements.txt").read_text())
    assert len(hashes) == 3


# --- A folder with everything ------------------------------------------------------------------


def test_what_was_downloaded_builds_without_a_network(layered: Layered, tmp_path: Path) -> None:
    house = tmp_path / "house"
    words = ["--environments-dir", str(layered.envs), NAME, "--download", str(house)]
    places = {"PIP_FIND_LINKS": str(layered.folder / "wheels")}
    code, output = lock(*words, **places)
    assert code == 0, output
    names = {path.name for path in house.iterdir()}
    assert {f"python-{PYTHON}.99-h0_0.conda", "tinypkg-1.0-py3-none-any.whl"} < names
    assert len(names) == 4
    lines = layered.pins.read_text()
    gone = re.sub(r"file://\S+?/linux-64", "http://127.0.0.1:9/conda-forge/linux-64", lines)
    layered.pins.write_text(gone)
    nowhere = {"PIP_FIND_LINKS": "", "PIP_INDEX_URL": "http://127.0.0.1:9/simple"}
    code, output = layered.build("--wheelhouse", str(house), **nowhere)
    assert code == 0, output
    # Again: what is there already is not loaded, so the channel that is gone is not missed.
    code, output = lock(*words, PIP_FIND_LINKS=str(house))
    assert code == 0, output


def test_a_file_that_a_wheelhouse_lacks_is_named(layered: Layered, tmp_path: Path) -> None:
    house = tmp_path / "house"
    house.mkdir()
    for name in ("python", "compiler", "tool"):
        shutil.copy(layered.archives[name], house)
    code, output = layered.build("--wheelhouse", str(house))
    assert code == 1
    assert "tinypkg" in output.strip().splitlines()[-1]
    assert not layered.built.exists()


def test_what_to_download_must_be_said() -> None:
    code, output = lock("--download", "/nowhere")
    assert code == 1
    assert "error: --download: say which environment" in output


@pytest.mark.parametrize("path", sorted((ROOT / "envs").glob("cu*.yaml")), ids=lambda p: p.stem)
def test_every_variant_says_how_its_locks_are_made(path: Path) -> None:
    raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert raw["lock"]["newest"] and raw["conda"]["newest"]
    assert any(spec.startswith(f"python {raw['python']}.") for spec in raw["conda"]["specs"])


def test_the_index_is_asked_for_every_wheel_of_a_lock(tmp_path: Path) -> None:
    tiny = make_tiny(tmp_path / "project")
    make_wheel(tiny.wheels, "other", "")
    tiny.lock.write_text(tiny.lock.read_text() + f"other==1.0 \\\n    --hash=sha256:{'0' * 64}\n")
    result = subprocess.run(
        [sys.executable, "-m", "scripts.check_locks", "--environments-dir", str(tiny.envs)],
        cwd=ROOT,
        env={**os.environ, **OFFLINE, "PIP_FIND_LINKS": str(tiny.wheels)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1, result.stderr
    assert result.stdout.splitlines()[1].split() == ["tiny", "1", "0", "1", "other==1.0"]
