"""Environments: the locks in envs/, identities, and building one whole or not at all."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from scripts.llm_batch.environments.checks import check_glibc
from scripts.llm_batch.environments.identity import (
    environment_identity,
    environment_names,
    environment_python,
    load_spec,
    locked_packages,
    requirement_blocks,
)
from scripts.llm_batch.environments.lock_wheels import best_wheel_sha256, wheel_order
from scripts.llm_batch.errors import ConfigError, WorkflowError
from tests.unit.tiny_environments import ROOT, Tiny, make_tiny, make_wheel, pin

ENVS = ROOT / "envs"
LOCKS = sorted(ENVS.glob("*.requirements.txt"))


@pytest.fixture
def tiny(tmp_path: Path) -> Tiny:
    """A project with one tiny environment."""
    return make_tiny(tmp_path / "project")


# --- The locks that are in the repository -----------------------------------------------------


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_every_requirement_of_a_lock_has_an_exact_version_and_a_hash(lock: Path) -> None:
    assert len(locked_packages(lock)) > 40


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_a_lock_names_no_host(lock: Path) -> None:
    text = lock.read_text(encoding="utf-8")
    assert not re.search(r"://|--(extra-)?index|--find-links|\b[\w-]+\.(org|com|net|io)\b", text)


@pytest.mark.parametrize("name", ["workflow", "development", *environment_names(ENVS)])
def test_a_lock_holds_every_pin_of_its_source(name: str) -> None:
    locked = locked_packages(ENVS / f"{name}.requirements.txt")
    pins = [
        line.strip().split("==")
        for line in (ENVS / f"{name}.in").read_text(encoding="utf-8").splitlines()
        if line.strip() and not line.startswith(("#", "-"))
    ]
    assert pins
    for package, version in pins:
        plain = package.partition("[")[0]
        assert locked[re.sub(r"[-_.]+", "-", plain).lower()] == version


def test_development_agrees_with_workflow_wherever_both_lock_a_package() -> None:
    workflow = locked_packages(ENVS / "workflow.requirements.txt")
    development = locked_packages(ENVS / "development.requirements.txt")
    shared = workflow.keys() & development.keys()
    assert shared
    assert {n: workflow[n] for n in shared} == {n: development[n] for n in shared}


def test_the_conda_file_asks_for_what_the_workflow_lock_says() -> None:
    conda = yaml.safe_load((ENVS / "workflow.yaml").read_text(encoding="utf-8"))
    (pip,) = [entry["pip"] for entry in conda["dependencies"] if isinstance(entry, dict)]
    lock = (ENVS / "workflow.requirements.txt").read_text(encoding="utf-8")
    assert pip == requirement_blocks(lock)


def test_the_cpu_lock_has_one_wheel_for_each_of_its_64_packages() -> None:
    blocks = requirement_blocks((ENVS / "cpu.requirements.txt").read_text(encoding="utf-8"))
    assert len(blocks) == 64
    assert {block.count("--hash=") for block in blocks} == {1}


def test_cpu_describes_the_versions_that_its_lock_has() -> None:
    spec = load_spec("cpu", ENVS)
    locked = locked_packages(ENVS / "cpu.requirements.txt")
    assert spec.imports["torch"] == locked["torch"]
    assert spec.vllm["version"] == locked[spec.vllm["distribution"]] == spec.imports["vllm"]
    assert {name for names in spec.indexes.values() for name in names} <= locked.keys()


@pytest.mark.parametrize("name", environment_names(ENVS))
def test_a_description_agrees_with_its_lock(name: str) -> None:
    spec = load_spec(name, ENVS)
    locked = locked_packages(ENVS / f"{name}.requirements.txt")
    assert spec.name == name
    assert locked[spec.vllm["distribution"]] == spec.imports["vllm"] == spec.vllm["version"]
    assert locked["torch"].split("+")[0] == spec.imports["torch"].split("+")[0]


@pytest.mark.parametrize("name", [name for name in environment_names(ENVS) if name != "cpu"])
def test_a_variant_is_named_by_the_cuda_of_its_torch(name: str) -> None:
    raw = yaml.safe_load((ENVS / f"{name}.yaml").read_text(encoding="utf-8"))
    assert "cu" + raw["torch"]["cuda"].replace(".", "") == name
    assert raw["torch"]["version"].endswith(f"+{name}")
    locked = locked_packages(ENVS / f"{name}.requirements.txt")
    major = raw["torch"]["cuda"].split(".")[0]
    assert {f"nvidia-cudnn-cu{major}", f"nvidia-nccl-cu{major}"} <= locked.keys()
    assert sum(name.startswith(("nvidia-cudnn-cu", "nvidia-nccl-cu")) for name in locked) == 2


def test_of_several_wheels_the_one_made_for_the_platform_is_locked() -> None:
    wheels = {
        "p-1-py3-none-any.whl": "any",
        "p-1-cp311-cp311-musllinux_1_2_x86_64.whl": "musl",
        "p-1-cp311-cp311-manylinux_2_34_x86_64.whl": "too new",
        "p-1-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl": "old",
        "p-1-cp311-cp311-manylinux_2_28_x86_64.whl": "native",
        "p-1-cp39-abi3-manylinux_2_28_x86_64.whl": "abi3",
    }
    package = {
        "name": "p",
        "version": "1",
        "wheels": [{"name": n, "hashes": {"sha256": h}} for n, h in wheels.items()],
    }
    order = wheel_order(load_spec("cpu", ENVS))
    assert best_wheel_sha256(package, order) == "native"
    package["wheels"] = [{"name": "p-1-cp312-cp312-win32.whl", "hashes": {"sha256": "no"}}]
    with pytest.raises(WorkflowError, match="p 1: no wheel fits"):
        best_wheel_sha256(package, order)


# --- Identity ---------------------------------------------------------------------------------


def test_one_changed_byte_of_a_lock_is_another_identity(tiny: Tiny) -> None:
    before = environment_identity("tiny", tiny.envs)
    tiny.lock.write_bytes(tiny.lock.read_bytes() + b"\n")
    after = environment_identity("tiny", tiny.envs)
    assert before != after
    assert {k: v for k, v in before.items() if k != "lock_sha256"} == {
        k: v for k, v in after.items() if k != "lock_sha256"
    }


def test_a_description_in_other_words_is_the_same_identity(tiny: Tiny) -> None:
    before = environment_identity("tiny", tiny.envs)
    tiny.describe(description="other words", megabytes=11, notes="more", programs={"ls": "x"})
    assert environment_identity("tiny", tiny.envs) == before


@pytest.mark.parametrize("changes", [{"python": "3.99"}, {"platform": "osx-arm64"}])
def test_another_python_or_platform_is_another_identity(
    tiny: Tiny, changes: dict[str, str]
) -> None:
    before = environment_identity("tiny", tiny.envs)
    tiny.describe(**changes)
    assert environment_identity("tiny", tiny.envs) != before


def test_an_unknown_environment_is_refused_with_the_known_ones_and_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"no environment 'cpus'; there are: cpu.*mean 'cpu'\?"):
        environment_identity("cpus", ENVS)


@pytest.mark.parametrize("name", ["workflow", "development"])
def test_the_workflows_own_environment_is_no_engines(name: str) -> None:
    with pytest.raises(ConfigError, match="there is no environment"):
        environment_identity(name, ENVS)


@pytest.mark.parametrize("text", ["", "- a\n", "name: [", "name: tiny\nplatform: linux-64\n"])
def test_an_ill_description_is_one_line_with_its_path(tiny: Tiny, text: str) -> None:
    (tiny.envs / "tiny.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"tiny\.yaml: not a description") as caught:
        load_spec("tiny", tiny.envs)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("line", ["tinypkg", "tinypkg>=1 --hash=sha256:" + "0" * 64, "tinypkg==1"])
def test_a_lock_with_a_loose_requirement_is_refused(tiny: Tiny, line: str) -> None:
    tiny.lock.write_text(line + "\n", encoding="utf-8")
    with pytest.raises(WorkflowError, match="no exact version or no sha256"):
        locked_packages(tiny.lock)


# --- Building ---------------------------------------------------------------------------------


def wait_for(condition: Callable[[], bool], seconds: float = 600) -> None:
    """Wait until `condition` holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def imported(folder: Path) -> list[int]:
    """Return the processes that imported the tiny package."""
    record = folder / "imported"
    return [int(line) for line in record.read_text().split()] if record.exists() else []


def alive(pid: int) -> bool:
    """Whether a process runs; one that waits to be buried does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(") ")[2]
    except FileNotFoundError:
        return False
    return not state.startswith("Z")


def test_a_build_is_whole_and_a_second_one_has_nothing_to_do(tiny: Tiny) -> None:
    code, output = tiny.build()
    assert code == 0, output
    record = json.loads((tiny.built / "environment.json").read_text())
    assert record["packages"] == {"tinypkg": "1.0"}
    assert record["python"]["version"].startswith(load_spec("tiny", tiny.envs).python)
    assert record["bytes"] > 0
    assert json.loads((tiny.built / "identity.json").read_text())["identity"] == (
        environment_identity("tiny", tiny.envs)
    )
    assert (tiny.built / "manifest.json").exists()
    assert tiny.leftovers() == []
    first = (tiny.built / "environment.json").stat().st_mtime_ns
    code, output = tiny.build()
    assert code == 0
    assert "built already" in output
    assert (tiny.built / "environment.json").stat().st_mtime_ns == first


def test_a_built_environment_works_where_it_lies_and_when_its_project_is_moved(tiny: Tiny) -> None:
    tiny.lock.write_text(
        pin(make_wheel(tiny.wheels, "tinypkg", "__version__ = '1.0'\ndef main(): print(__file__)"))
    )
    assert tiny.build()[0] == 0
    moved = Tiny(tiny.folder.rename(tiny.folder.with_name("moved")))
    by_hand = [str(environment_python(moved.built)), "-c", "import tinypkg; tinypkg.main()"]
    for words in (by_hand, ["bin/tinypkg"]):
        result = subprocess.run(words, cwd=moved.built, capture_output=True, text=True, check=True)
        assert Path(result.stdout.strip()).is_relative_to(moved.built)


def test_nothing_is_left_where_a_hash_does_not_match(tiny: Tiny) -> None:
    tiny.lock.write_text(pin(tiny.wheels / "tinypkg-1.0-py3-none-any.whl", digest="0" * 64))
    code, output = tiny.build()
    assert code == 1
    assert (
        "error: environment tiny: tinypkg==1.0: the file's sha256 is not the one in the lock"
        in (output.splitlines()[-1])
    )
    assert not tiny.built.exists()
    assert tiny.leftovers() == []


def test_a_package_that_is_nowhere_is_named(tiny: Tiny) -> None:
    (tiny.wheels / "tinypkg-1.0-py3-none-any.whl").unlink()
    code, output = tiny.build()
    assert code == 1
    assert re.match(
        r"error: environment tiny: tinypkg.* in none of the places", output.splitlines()[-1]
    )
    assert not tiny.built.exists()


def test_a_package_with_an_index_of_its_own_is_taken_from_a_folder_first(tiny: Tiny) -> None:
    tiny.describe(indexes={"https://index.invalid/whl": ["tinypkg"]})
    code, output = tiny.build(PIP_NO_INDEX="0", UV_HTTP_RETRIES="0")
    assert code == 0, output
    assert "index.invalid" not in output


def test_an_index_that_cannot_be_reached_is_named_with_a_cure(tiny: Tiny) -> None:
    (tiny.wheels / "tinypkg-1.0-py3-none-any.whl").unlink()
    # Port 9 of this machine: refused at once, whatever network there is.
    tiny.describe(indexes={"http://127.0.0.1:9/whl": ["tinypkg"]})
    code, output = tiny.build(PIP_NO_INDEX="0", UV_HTTP_RETRIES="0", NO_PROXY="*")
    assert code == 1
    last = output.splitlines()[-1]
    assert "http://127.0.0.1:9/whl: the package index cannot be reached; check the network" in last


def test_a_module_that_cannot_be_imported_fails_the_build(tiny: Tiny) -> None:
    tiny.lock.write_text(pin(make_wheel(tiny.wheels, "tinypkg", "import not_there")))
    code, output = tiny.build()
    assert code == 1
    assert "`import tinypkg` fails (ModuleNotFoundError" in output.splitlines()[-1]
    assert not tiny.built.exists()


def test_a_module_of_another_version_fails_the_build(tiny: Tiny) -> None:
    tiny.lock.write_text(pin(make_wheel(tiny.wheels, "tinypkg", "__version__ = '1.0+cuda'")))
    code, output = tiny.build()
    assert code == 1
    assert "module tinypkg says 1.0+cuda, expected is 1.0" in output.splitlines()[-1]


def test_nvidias_packages_for_two_cuda_versions_are_refused_in_one_environment(
    tiny: Tiny,
) -> None:
    shared = "nvidia/cudnn/lib/libcudnn.so.9"
    for major in ("12", "13"):
        wheel = make_wheel(
            tiny.wheels, f"nvidia_cudnn_cu{major}", "", more={shared: f"for CUDA {major}"}
        )
        tiny.lock.write_text(tiny.lock.read_text() + pin(wheel))
    code, output = tiny.build()
    assert code == 1
    assert re.search(
        r"nvidia.cudnn.cu1\d and nvidia.cudnn.cu1\d overwrite each other's files",
        output.splitlines()[-1],
    )
    assert not tiny.built.exists()


def test_nvidias_packages_may_share_a_file_that_is_the_same(tiny: Tiny) -> None:
    for name in ("nvidia_one", "nvidia_two"):
        wheel = make_wheel(tiny.wheels, name, "", more={"nvidia/licence.txt": "the same"})
        tiny.lock.write_text(tiny.lock.read_text() + pin(wheel))
    code, output = tiny.build()
    assert code == 0, output


def test_a_torch_for_another_cuda_than_described_is_refused(tiny: Tiny) -> None:
    wheel = make_wheel(tiny.wheels, "torch", "class version: cuda = '12.4'\n__version__ = '1.0'\n")
    tiny.lock.write_text(tiny.lock.read_text() + pin(wheel))
    tiny.describe(imports={"torch": "1.0"}, torch={"version": "1.0", "cuda": "11.8"})
    code, output = tiny.build()
    assert code == 1
    assert "torch is built for CUDA 12.4, expected is 11.8" in output.splitlines()[-1]
    tiny.describe(imports={"torch": "1.0"}, torch={"version": "1.0", "cuda": "12.4"})
    assert tiny.build()[0] == 0


def test_wheels_are_those_of_the_lock_on_a_newer_machine_too(tiny: Tiny) -> None:
    older = tiny.wheels / "tinypkg-1.0-py3-none-manylinux_2_17_x86_64.whl"
    (tiny.wheels / "tinypkg-1.0-py3-none-any.whl").rename(older)
    newer = older.with_name("tinypkg-1.0-py3-none-manylinux_2_28_x86_64.whl")
    newer.write_bytes(older.read_bytes() + b"other")
    tiny.lock.write_text(pin(older))
    tiny.describe(glibc="2.17")
    code, output = tiny.build()
    assert code == 0, output


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"platform": "osx-arm64"}, "is for osx-arm64, this machine is linux"),
        ({"glibc": "9.9"}, "needs glibc 9.9 or newer"),
        (
            {"programs": {"no-such-thing": "some-package"}},
            "install the system package some-package",
        ),
        ({"megabytes": 10**9}, "needs 1000000.0 GB here"),
    ],
)
def test_a_machine_that_cannot_hold_it_is_told_why_before_anything_is_made(
    tiny: Tiny, changes: dict[str, object], message: str
) -> None:
    tiny.describe(**changes)
    code, output = tiny.build()
    assert code == 1
    assert message in output.splitlines()[-1]
    assert not tiny.built.exists()
    assert tiny.leftovers() == []


def test_a_lock_that_changed_after_planning_is_not_built(tiny: Tiny) -> None:
    identity = json.dumps({**environment_identity("tiny", tiny.envs), "python": "3.99"})
    from scripts.build_environment import main

    output = str(tiny.built / "manifest.json")
    with pytest.raises(WorkflowError, match="changed since the workflow was planned"):
        main(["--identity", identity, "--environments-dir", str(tiny.envs), "--output", output])


def test_a_builder_killed_halfway_leaves_nothing_finished_and_the_next_one_builds(
    tiny: Tiny,
) -> None:
    (tiny.folder / "wait").touch()
    builder = tiny.start(TINY_FOLDER=str(tiny.folder))
    wait_for(lambda: bool(imported(tiny.folder)))
    builder.send_signal(signal.SIGKILL)
    builder.wait()
    assert not tiny.built.exists()
    assert len(tiny.leftovers()) == 1
    (child,) = imported(tiny.folder)
    wait_for(lambda: not alive(child))
    (tiny.folder / "wait").unlink()
    code, output = tiny.build()
    assert code == 0, output
    assert (tiny.built / "manifest.json").exists()
    assert tiny.leftovers() == []


def test_a_builder_that_is_asked_to_stop_cleans_up(tiny: Tiny) -> None:
    (tiny.folder / "wait").touch()
    builder = tiny.start(TINY_FOLDER=str(tiny.folder))
    wait_for(lambda: bool(imported(tiny.folder)))
    builder.terminate()
    builder.communicate(timeout=600)
    assert builder.returncode == 128 + signal.SIGTERM
    assert not tiny.built.exists()
    assert tiny.leftovers() == []


def test_two_builders_at_once_build_once(tiny: Tiny) -> None:
    (tiny.folder / "wait").touch()
    builders = [tiny.start(TINY_FOLDER=str(tiny.folder)) for _ in range(2)]
    wait_for(lambda: bool(imported(tiny.folder)))
    time.sleep(0.3)
    (tiny.folder / "wait").unlink()
    outputs = [builder.communicate(timeout=600)[0] for builder in builders]
    assert [builder.returncode for builder in builders] == [0, 0], outputs
    assert len(imported(tiny.folder)) == 1
    assert sum("built already" in output for output in outputs) == 1
    assert tiny.leftovers() == []


def test_a_half_removed_environment_is_replaced(tiny: Tiny) -> None:
    assert tiny.build()[0] == 0
    # Snakemake removes the declared output before it runs a rule again.
    (tiny.built / "manifest.json").unlink()
    (tiny.built / "stray").touch()
    assert tiny.build()[0] == 0
    assert (tiny.built / "manifest.json").exists()
    assert not (tiny.built / "stray").exists()


def test_variables_of_the_user_do_not_change_what_is_installed(tiny: Tiny) -> None:
    code, output = tiny.build(
        UV_TORCH_BACKEND="cpu",
        UV_CONSTRAINT="/nonexistent",
        UV_PYTHON="2.7",
        PYTHONPATH=os.pathsep.join([str(tiny.folder), str(ROOT)]),
    )
    assert code == 0, output


def test_an_interpreter_that_is_gone_is_an_error_with_a_cure(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python").symlink_to("/nonexistent/python3.11")
    with pytest.raises(WorkflowError, match="has been removed; delete"):
        environment_python(tmp_path)


def test_the_c_library_that_counts_is_the_machines_and_not_the_interpreters(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec = load_spec("cpu", ENVS)
    running = os.confstr("CS_GNU_LIBC_VERSION")
    assert running is not None
    needed = replace(spec, glibc=running.partition(" ")[2])
    # A portable Python is linked for an older library than the one it runs with.
    monkeypatch.setattr(sys, "executable", "/proc/self/status")
    check_glibc(needed)
    with pytest.raises(WorkflowError, match=r"needs glibc 9\.9 or newer, this machine has glibc"):
        check_glibc(replace(spec, glibc="9.9"))
