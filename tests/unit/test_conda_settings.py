"""conda's settings: which of them decide where archives come from; and the pieces of a move."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.llm_batch.environments.conda_pins import CondaPin, read_pins
from scripts.llm_batch.environments.conda_settings import addresses, read_conda_settings
from scripts.llm_batch.environments.prefixes import replace_padded
from scripts.llm_batch.environments.variables import engine_variables, resolved
from scripts.llm_batch.errors import WorkflowError
from tests.unit.tiny_environments import ROOT

PIN = CondaPin("https://conda.anaconda.org/conda-forge", "linux-64", "a-b-1.0-h1_0.conda", "0" * 64)
END = "linux-64/a-b-1.0-h1_0.conda"


@pytest.mark.parametrize(
    ("condarc", "variables", "expected"),
    [
        ("", {}, [PIN.base]),
        ("channel_alias: https://m/", {}, ["https://m/conda-forge", PIN.base]),
        (
            "custom_channels: {conda-forge: https://own/api}",
            {},
            ["https://own/api/conda-forge", PIN.base],
        ),
        ("mirrored_channels: {conda-forge: [https://a/x]}", {}, ["https://a/x", PIN.base]),
        ("mirrored_channels: {bioconda: [https://a/x]}", {}, [PIN.base]),
        (
            "channel_alias: https://file",
            {"CONDA_CHANNEL_ALIAS": "https://variable"},
            ["https://variable/conda-forge", PIN.base],
        ),
        ("offline: true", {}, []),
        ("", {"CONDA_OFFLINE": "1"}, []),
        ("channel_alias: file:///m", {"CONDA_OFFLINE": "1"}, ["file:///m/conda-forge"]),
        ("- not a mapping", {}, [PIN.base]),
        ("broken: [", {}, [PIN.base]),
    ],
)
def test_archives_are_looked_for_where_conda_would(
    tmp_path: Path, condarc: str, variables: dict[str, str], expected: list[str]
) -> None:
    (tmp_path / ".condarc").write_text(condarc)
    settings = read_conda_settings({"HOME": str(tmp_path), **variables})
    assert addresses(PIN, settings) == [f"{base}/{END}" for base in expected]


def test_a_nearer_file_wins_and_mappings_are_joined(tmp_path: Path) -> None:
    (tmp_path / ".conda").mkdir()
    (tmp_path / ".conda/.condarc").write_text(
        "proxy_servers: {http: http://one, https: http://one}\nssl_verify: /etc/ca.pem\n"
    )
    (tmp_path / "mine").write_text("proxy_servers: {https: http://two}\nssl_verify: false\n")
    environ = {"HOME": str(tmp_path), "CONDARC": str(tmp_path / "mine")}
    settings = read_conda_settings(environ)
    assert settings.proxies == {"http": "http://one", "https": "http://two"}
    assert settings.verify is False
    assert read_conda_settings({"HOME": str(tmp_path)}).verify == "/etc/ca.pem"


def test_package_caches_come_from_the_variable_or_the_file(tmp_path: Path) -> None:
    (tmp_path / ".condarc").write_text("pkgs_dirs: [/cache/one, ~/two]\n")
    home = {"HOME": str(tmp_path)}
    assert read_conda_settings(home).pkgs_dirs[0] == Path("/cache/one")
    variable = read_conda_settings({**home, "CONDA_PKGS_DIRS": "/a,/b"})
    assert variable.pkgs_dirs == (Path("/a"), Path("/b"))


def test_every_pin_file_is_read_and_names_python_and_a_compiler() -> None:
    files = sorted((ROOT / "envs").glob("*.linux-64.pin.txt"))
    assert len(files) == 7
    for path in files:
        names = {pin.distribution[0]: pin.distribution[1] for pin in read_pins(path)}
        assert {"python", "gcc_linux-64", "gxx_linux-64"} <= names.keys()
        described = (path.parent / f"{path.name.split('.')[0]}.yaml").read_text(encoding="utf-8")
        assert f'python: "{".".join(names["python"].split(".")[:2])}"' in described


def test_a_package_that_is_pinned_twice_is_refused(tmp_path: Path) -> None:
    lines = [f"{PIN.url}#sha256:{'0' * 64}", f"{PIN.base}/noarch/a-b-2.0-0.conda#sha256:{'1' * 64}"]
    (tmp_path / "x.pin.txt").write_text("\n".join(["@EXPLICIT", *lines]))
    with pytest.raises(WorkflowError, match="a-b is there twice"):
        read_pins(tmp_path / "x.pin.txt")


@pytest.mark.parametrize(
    ("data", "old", "new", "expected"),
    [
        # A placeholder of ten bytes held /old: six zeros follow the string, and its own.
        (b"A\0/old/x" + b"\0" * 7 + b"B", b"/old", b"/new", b"A\0/new/x" + b"\0" * 7 + b"B"),
        (b"A\0/old/x" + b"\0" * 7 + b"B", b"/old", b"/longer", b"A\0/longer/x" + b"\0" * 4 + b"B"),
        (b"/old:/old" + b"\0" * 13 + b"B", b"/old", b"/o", b"/o:/o" + b"\0" * 17 + b"B"),
        # Zeros that follow the string's own room are data.
        (b"/old" + b"\0" * 9 + b"\1", b"/old", b"/longername"[:10], b"/longernam\0\0\0\1"),
        (b"nothing here\0", b"/old", b"/new", b"nothing here\0"),
    ],
)
def test_a_path_in_machine_code_is_replaced_and_filled_up(
    data: bytes, old: bytes, new: bytes, expected: bytes
) -> None:
    assert replace_padded(data, old, new, 10, Path("f")) == expected
    assert len(expected) == len(data)


def test_a_path_without_room_is_refused() -> None:
    with pytest.raises(WorkflowError, match="no room for the path"):
        replace_padded(b"/old\0\0\0\0\0\0\0", b"/old", b"/" + b"x" * 10, 10, Path("f"))


def test_an_engine_is_told_of_compiler_and_toolkit_or_spared_what_needs_them(
    tmp_path: Path,
) -> None:
    flashinfer = {"flashinfer-python": "1"}
    assert engine_variables(tmp_path, {}) == {}
    assert engine_variables(tmp_path, flashinfer) == {"VLLM_USE_FLASHINFER_SAMPLER": "0"}
    toolkit = tmp_path / "lib/python3.12/site-packages/nvidia/cu13/bin"
    toolkit.mkdir(parents=True)
    (toolkit / "nvcc").touch()
    variables = engine_variables(tmp_path, flashinfer)
    assert variables == {"CUDA_HOME": "{prefix}/lib/python3.12/site-packages/nvidia/cu13"}
    assert resolved(variables, Path("/moved"))["CUDA_HOME"] == (
        "/moved/lib/python3.12/site-packages/nvidia/cu13"
    )
