"""The conda layer from end to end, against a channel on the disk made with py-rattler-build."""

from __future__ import annotations

import http.server
import json
import random
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts import generate
from scripts.llm_batch.addresses import read_json
from scripts.llm_batch.environments import prefixes
from scripts.llm_batch.environments.identity import environment_identity
from scripts.llm_batch.environments.prefixes import is_in_place, keep_in_place
from tests.environments.channel import NAME, PYTHON, Layered, explicit_line

NOWHERE = "http://127.0.0.1:9/conda-forge"
"""A channel that cannot be reached, whatever network there is."""

KILLS = 12


def last(output: str) -> str:
    """Return the last line of what a builder said: its error."""
    return output.strip().splitlines()[-1]


def runs(folder: Path, program: str) -> str:
    """Return what a program of the environment prints."""
    command = [str(folder / "bin" / program)]
    result = subprocess.run(command, capture_output=True, text=True, check=True, cwd="/")
    return result.stdout.strip()


def holders(folder: Path, text: str) -> list[str]:
    """Return the files below `folder` that hold `text`; Python mends that of bytecode itself."""
    files = (p for p in folder.rglob("*") if p.is_file() and not p.is_symlink())
    found = [p for p in files if p.suffix != ".pyc"]
    return [str(p.relative_to(folder)) for p in found if text.encode() in p.read_bytes()]


@pytest.fixture
def copied(finished: Layered, tmp_path: Path) -> Layered:
    """A built project that was moved: the place it was built at holds nothing."""
    shutil.copytree(finished.folder, tmp_path / "moved", symlinks=True)
    return Layered(tmp_path / "moved", finished.archives)


# --- Building ----------------------------------------------------------------------------------


def test_both_layers_are_built_and_every_path_in_them_is_the_final_one(finished: Layered) -> None:
    folder = finished.built
    record = read_json(folder / "environment.json")
    assert record["packages"] == {"tinypkg": "1.0"}
    assert record["conda"].keys() == {"python", "gcc_linux-64", "layertool"}
    assert record["prefix"] == record["python"]["base"] == str(folder)
    assert runs(folder, "layertool") == f"1.0 {folder}"
    assert f"{folder}/share/data:{folder}/lib".encode() in (folder / "lib/layer.bin").read_bytes()
    assert runs(folder, "tinypkg") == str(folder)
    assert runs(folder, "gcc") == f"gcc of {folder}"
    assert record["variables"]["CC"] == "{prefix}/bin/gcc"
    assert holders(folder, ".building-") == []
    assert read_json(folder / "identity.json")["identity"] == (
        environment_identity(NAME, finished.envs)
    )
    assert finished.leftovers() == []


def test_conda_reads_in_the_environment_where_its_packages_came_from(finished: Layered) -> None:
    archive = finished.archives["tool"]
    meta = read_json(finished.built / f"conda-meta/{archive.name.removesuffix('.conda')}.json")
    assert meta["url"] == explicit_line(archive).partition("#")[0]
    assert meta["sha256"] == explicit_line(archive).rpartition(":")[2]


def test_a_second_build_has_nothing_to_do(finished: Layered) -> None:
    before = (finished.built / "manifest.json").stat().st_mtime_ns
    code, output = finished.build()
    assert code == 0
    assert "built already" in output
    assert (finished.built / "manifest.json").stat().st_mtime_ns == before


def test_another_conda_lock_is_another_environment(layered: Layered) -> None:
    before = layered.built
    layered.write_pins(*(explicit_line(layered.archives[k]) for k in ("python", "newer")))
    assert layered.built != before
    assert layered.build()[0] == 0
    assert runs(layered.built, "layertool") == f"2.0 {layered.built}"


# --- What can be wrong with an archive ---------------------------------------------------------


def test_an_archive_of_another_hash_is_not_used_and_nothing_is_left(layered: Layered) -> None:
    good = [explicit_line(layered.archives[k]) for k in ("python", "compiler")]
    layered.write_pins(*good, explicit_line(layered.archives["tool"], sha256="0" * 64))
    code, output = layered.build()
    assert code == 1
    assert re.search(r"conda package layertool-1.0.*its sha256 is \w{12}….*locked", last(output))
    assert not layered.built.exists()
    assert layered.leftovers() == []


def test_a_missing_archive_is_named_with_its_cure(layered: Layered) -> None:
    line = explicit_line(layered.archives["tool"]).replace("layertool-1.0", "layertool-3.0")
    layered.write_pins(explicit_line(layered.archives["python"]), line)
    code, output = layered.build()
    assert code == 1
    assert "conda package layertool-3.0" in last(output)
    assert "not there" in last(output)
    assert "--download DIR" in last(output)
    assert not layered.built.exists()
    assert layered.leftovers() == []


def test_an_archive_that_is_cut_off_is_one_line(layered: Layered, tmp_path: Path) -> None:
    cut = tmp_path / "channel/linux-64" / layered.archives["tool"].name
    cut.parent.mkdir(parents=True)
    cut.write_bytes(layered.archives["tool"].read_bytes()[:500])
    layered.write_pins(explicit_line(layered.archives["python"]), explicit_line(cut))
    code, output = layered.build()
    assert code == 1
    assert last(output).startswith("error: ")
    assert not layered.built.exists()
    assert layered.leftovers() == []


def test_a_layer_without_python_is_refused(layered: Layered) -> None:
    layered.write_pins(explicit_line(layered.archives["tool"]))
    code, output = layered.build()
    assert code == 1
    assert "its conda layer has no Python" in last(output)
    assert layered.leftovers() == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("python=3.12", "expected the address of a conda package with #sha256"),
        ("https://h/c/linux-64/a-1-0.conda", "expected the address of a conda package"),
        ("https://h/c/linux-64/a-1-0.conda#" + "0" * 32, "expected the address of a conda package"),
    ],
)
def test_a_line_that_is_no_pin_is_refused_with_its_number(
    layered: Layered, line: str, message: str
) -> None:
    layered.write_pins(explicit_line(layered.archives["python"]), line)
    code, output = layered.build()
    assert code == 1
    assert f"{NAME}.linux-64.pin.txt:4: {message}" in last(output)


# --- Where archives come from ------------------------------------------------------------------


@pytest.fixture
def served(archives: dict[str, Path]) -> Iterator[tuple[str, list[str]]]:
    """A channel behind HTTP on this machine (a stand-in for a mirror), and what was asked of it."""
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object) -> None:
            folder = str(archives["tool"].parents[1])
            super().__init__(*arguments, directory=folder)  # type: ignore[arg-type]

        def translate_path(self, path: str) -> str:
            return super().translate_path(path.removeprefix("/mirror/conda-forge"))

        def log_message(self, format: str, *arguments: object) -> None:
            asked.append(str(arguments[0]))

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/mirror", asked
    server.shutdown()


def far_pins(layered: Layered) -> None:
    """Write a lock whose channel cannot be reached."""
    names = ("python", "compiler", "tool")
    layered.write_pins(*(explicit_line(layered.archives[k], base=NOWHERE) for k in names))


def test_a_mirror_of_condarc_is_asked_and_what_it_gave_is_kept(
    layered: Layered, served: tuple[str, list[str]]
) -> None:
    mirror, asked = served
    far_pins(layered)
    settings = f"mirrored_channels:\n  conda-forge: [{mirror}/conda-forge]\n"
    (layered.folder / "home/.condarc").write_text(settings)
    code, output = layered.build(NO_PROXY="*")
    assert code == 0, output
    assert len(asked) == 3
    shutil.rmtree(layered.built)
    code, output = layered.build(NO_PROXY="*")
    assert code == 0, output
    assert len(asked) == 3, "the second build takes what the first one loaded"


def test_a_channel_alias_of_the_environment_is_obeyed(
    layered: Layered, served: tuple[str, list[str]]
) -> None:
    far_pins(layered)
    code, output = layered.build(CONDA_CHANNEL_ALIAS=served[0], NO_PROXY="*")
    assert code == 0, output
    assert len(served[1]) == 3


def test_being_offline_is_said(layered: Layered) -> None:
    far_pins(layered)
    code, output = layered.build(CONDA_OFFLINE="true")
    assert code == 1
    assert "conda's setting `offline` forbids to look in the channel" in last(output)


def test_a_wheelhouse_is_all_that_a_build_needs(layered: Layered, tmp_path: Path) -> None:
    far_pins(layered)
    house = tmp_path / "house"
    house.mkdir()
    for file in [*layered.archives.values(), *(layered.folder / "wheels").iterdir()]:
        shutil.copy(file, house)
    nothing = {"PIP_FIND_LINKS": "", "PIP_INDEX_URL": "http://127.0.0.1:9/simple"}
    code, output = layered.build("--wheelhouse", str(house), **nothing)
    assert code == 0, output
    assert runs(layered.built, "layertool") == f"1.0 {layered.built}"


# --- Kills, and two at once --------------------------------------------------------------------


@pytest.mark.slow
def test_builders_killed_at_any_moment_leave_nothing_that_looks_finished(
    layered: Layered, finished: Layered
) -> None:
    seconds = read_json(finished.built / "environment.json")["seconds"]
    longest = sum(seconds.values()) + 1
    generator = random.Random(4)
    killed = 0
    while killed < KILLS:
        builder = layered.start()
        time.sleep(generator.uniform(0.1, longest))
        builder.send_signal(signal.SIGKILL)
        builder.communicate()
        killed += builder.returncode == -signal.SIGKILL
        if not (layered.built / "manifest.json").exists():
            assert not layered.built.exists()
            continue
        # It was done before it was killed: whole, then, to be made again, and nothing was shown.
        assert runs(layered.built, "layertool") == f"1.0 {layered.built}"
        shutil.rmtree(layered.built)
    code, output = layered.build()
    assert code == 0, output
    assert runs(layered.built, "tinypkg") == str(layered.built)
    assert layered.leftovers() == []


def test_two_builders_at_once_build_once(layered: Layered) -> None:
    builders = [layered.start(TINY_FOLDER=str(layered.folder)) for _ in range(2)]
    outputs = [builder.communicate(timeout=600)[0] for builder in builders]
    assert [builder.returncode for builder in builders] == [0, 0], outputs
    assert len((layered.folder / "imported").read_text().split()) == 1
    assert sum("built already" in output for output in outputs) == 1
    assert layered.leftovers() == []


# --- Moving ------------------------------------------------------------------------------------


def test_a_moved_environment_is_told_where_it_lies(copied: Layered, finished: Layered) -> None:
    folder, old = copied.built, str(finished.built)
    sizes = {p: p.stat().st_size for p in (folder / "lib").rglob("*.bin")}
    assert not is_in_place(folder)
    keep_in_place(folder)
    assert is_in_place(folder)
    assert runs(folder, "layertool") == f"1.0 {folder}"
    assert runs(folder, "tinypkg") == str(folder)
    assert runs(folder, "g++") == f"g++ of {folder}"
    assert f"{folder}/share/data:{folder}/lib\0".encode() in (folder / "lib/layer.bin").read_bytes()
    assert {p: p.stat().st_size for p in (folder / "lib").rglob("*.bin")} == sizes
    assert holders(folder, old) == []


def test_an_engine_starts_from_where_its_environment_was_moved_to(
    copied: Layered, tmp_path: Path
) -> None:
    snapshot = tmp_path / "model/snapshot"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    words = ["--requests", "r", "--journals", "j", "--journal-name", "n", "--engine", "{}"]
    words += ["--completions", "c", "--facts", "f", "--model", str(tmp_path / "model")]
    arguments = generate.build_parser().parse_args([*words, "--environment", str(copied.built)])
    spec = generate.engine_spec(arguments)
    assert is_in_place(copied.built)
    assert spec.variables["CC"] == f"{copied.built}/bin/gcc"
    assert (spec.interpreter, spec.device) == (copied.built / "bin/python", "cpu")


def test_an_environment_that_is_reached_through_a_link_stays_as_it_is(
    finished: Layered, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(finished.built)
    before = (finished.built / "environment.json").read_bytes()
    keep_in_place(tmp_path / "link")
    assert (finished.built / "environment.json").read_bytes() == before


def test_a_move_and_back_gives_the_same_bytes(copied: Layered, finished: Layered) -> None:
    names = ("lib/layer.bin", "bin/layertool", "bin/tinypkg")
    before = {name: (finished.built / name).read_bytes() for name in names}
    keep_in_place(copied.built)
    longer = copied.folder.with_name("a-name-that-is-much-longer-than-the-one-before")
    copied.folder.rename(longer)
    keep_in_place(Layered(longer, copied.archives).built)
    record = Layered(longer, copied.archives).built / "environment.json"
    # As if it had been built where the first one lies.
    prefixes.write_prefix(record.parent, finished.built)
    assert {name: (record.parent / name).read_bytes() for name in names} == before


def test_a_move_that_is_interrupted_is_finished_by_the_next_one(
    copied: Layered, monkeypatch: pytest.MonkeyPatch
) -> None:
    rewrite, calls = prefixes.rewrite, []

    def dying(*arguments: object) -> None:
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        rewrite(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(prefixes, "rewrite", dying)
    with pytest.raises(KeyboardInterrupt):
        keep_in_place(copied.built)
    assert not is_in_place(copied.built)
    monkeypatch.setattr(prefixes, "rewrite", rewrite)
    keep_in_place(copied.built)
    assert runs(copied.built, "layertool") == f"1.0 {copied.built}"
    assert runs(copied.built, "gcc") == f"gcc of {copied.built}"


def test_the_interpreter_is_the_layers_own(finished: Layered) -> None:
    code = "import json, sys; print(json.dumps([sys.prefix, sys.version_info[:2]]))"
    command = [str(finished.built / "bin/python"), "-c", code]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert json.loads(said) == [str(finished.built), [int(part) for part in PYTHON.split(".")]]
    assert not (finished.built / "bin" / f"python{PYTHON}").is_symlink()
