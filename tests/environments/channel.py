"""A conda channel on the disk, made with py-rattler-build, and a project that builds from it.

Its Python is the one that runs the tests, with the standard library cut down to what pip and the
builder need; the compiler and the tool are small scripts. All hold the prefix as real packages do:
in text and in a string of a binary file.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from rattler_build import Stage0Recipe, assemble_package

from scripts.llm_batch.addresses import address
from scripts.llm_batch.environments.identity import environment_identity
from tests.unit.tiny_environments import BLOCKING_MODULE, ROOT, make_wheel, pin

PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"
NAME = "layered"

# What a small interpreter does without: most of the bytes of a standard library.
_LEFT_OUT = (
    "test",
    "tests",
    "idlelib",
    "lib2to3",
    "tkinter",
    "turtledemo",
    "ensurepip",
    "site-packages",
    "pydoc_data",
    "__pycache__",
    "config-*",
)


def pack_python(folder: Path) -> Path:
    """Pack the interpreter of these tests into the channel `folder`, with little compression."""
    base, version = Path(sys.base_prefix), f"python{PYTHON}"
    files = folder / "python"
    (files / "bin").mkdir(parents=True)
    shutil.copy(base / "bin" / version, files / "bin" / version)
    (files / "bin/python").symlink_to(version)
    ignore = shutil.ignore_patterns(*_LEFT_OUT)
    shutil.copytree(base / "lib" / version, files / "lib" / version, ignore=ignore)
    (files / "lib" / version / "site-packages").mkdir()
    for library in base.glob(f"lib/libpython{PYTHON}.so*"):
        shutil.copy(library, files / "lib")
    if shutil.which("strip"):
        for path in [files / "bin" / version, *files.rglob("*.so*")]:
            subprocess.run(["strip", path], check=True)
    package = assemble_package(
        "python",
        f"{PYTHON}.99",
        "linux-64",
        "h0_0",
        output_dir=folder / "linux-64",
        files_dir=files,
        compression_level=1,
    )
    return package.path


def tool_script(version: str) -> list[str]:
    """Return the lines that pack a program which holds its prefix, as text and in binary."""
    return [
        "mkdir -p $PREFIX/bin $PREFIX/lib",
        f"printf '#!/bin/sh\\necho {version} %s\\n' $PREFIX > $PREFIX/bin/layertool",
        "chmod +x $PREFIX/bin/layertool",
        "printf 'begin\\0%s/share/data:%s/lib\\0end' $PREFIX $PREFIX > $PREFIX/lib/layer.bin",
    ]


def compiler_script() -> list[str]:
    """Return the lines that pack what is called like conda's compilers."""
    names = ("gcc", "g++")
    lines = ["mkdir -p $PREFIX/bin"]
    for name in names:
        path = f"$PREFIX/bin/x86_64-conda-linux-gnu-{name}"
        lines += [f"printf '#!/bin/sh\\necho {name} of %s\\n' $PREFIX > {path}", f"chmod +x {path}"]
    return lines


def make_channel(folder: Path) -> dict[str, Path]:
    """Build the packages into the channel `folder`; return each archive by its name."""
    recipes = {
        "compiler": ("gcc_linux-64", "14.0", compiler_script()),
        "tool": ("layertool", "1.0", tool_script("1.0")),
        "newer": ("layertool", "2.0", tool_script("2.0")),
    }
    archives = {"python": pack_python(folder)}
    for key, (name, version, lines) in recipes.items():
        recipe = Stage0Recipe.from_dict(
            {"package": {"name": name, "version": version}, "build": {"script": lines}}
        )
        (result,) = recipe.run_build(output_dir=folder, channels=[])
        (archives[key],) = result.packages
    return archives


def explicit_line(archive: Path, base: str | None = None, sha256: str | None = None) -> str:
    """Return a line of conda's explicit format for an archive, at its place or under `base`."""
    digest = sha256 or hashlib.sha256(archive.read_bytes()).hexdigest()
    channel = base or archive.parents[1].as_uri()
    return f"{channel}/{archive.parent.name}/{archive.name}#sha256:{digest}"


@dataclass(frozen=True)
class Layered:
    """A project with one environment of two layers: `envs/`, `wheels/`, `results/`."""

    folder: Path
    archives: dict[str, Path]
    environ: dict[str, str] = field(default_factory=dict)

    @property
    def envs(self) -> Path:
        """The folder of locks and description."""
        return self.folder / "envs"

    @property
    def pins(self) -> Path:
        """The lock of the conda layer."""
        return self.envs / f"{NAME}.linux-64.pin.txt"

    @property
    def built(self) -> Path:
        """The stage folder that the builder makes."""
        identity = environment_identity(NAME, self.envs)
        folder = f"{NAME}-{address('environments', identity)}"
        return self.folder / "results/environments" / folder

    def write_pins(self, *lines: str) -> None:
        """Write the lock of the conda layer; without lines that of Python, compiler and tool."""
        given = lines or [explicit_line(self.archives[k]) for k in ("python", "compiler", "tool")]
        text = "\n".join(["# made for a test", "@EXPLICIT", *given, ""])
        self.pins.write_text(text, encoding="utf-8")

    def start(self, *words: str, **variables: str) -> subprocess.Popen[str]:
        """Start a builder, as the rule does."""
        identity = json.dumps(environment_identity(NAME, self.envs))
        command = [sys.executable, "-m", "scripts.build_environment", "--identity", identity]
        output = str(self.built / "manifest.json")
        return subprocess.Popen(
            [*command, "--environments-dir", str(self.envs), "--output", output, *words],
            cwd=ROOT,
            env={
                **{k: v for k, v in os.environ.items() if not k.startswith("CONDA")},
                "HOME": str(self.folder / "home"),
                "XDG_CACHE_HOME": str(self.folder / "home/.cache"),
                "PIP_CONFIG_FILE": os.devnull,
                "PIP_NO_INDEX": "1",
                "PIP_FIND_LINKS": str(self.folder / "wheels"),
                "UV_CACHE_DIR": str(self.folder / "cache"),
                **self.environ,
                **variables,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def build(self, *words: str, **variables: str) -> tuple[int, str]:
        """Run a builder to its end; return its exit code and all it said."""
        process = self.start(*words, **variables)
        output, _ = process.communicate(timeout=120)
        return process.returncode, output

    def leftovers(self) -> list[str]:
        """Return what lies beside the stage folder, lock files apart."""
        parent = self.folder / "results/environments"
        names = {path.name for path in parent.iterdir()} if parent.exists() else set()
        return sorted(n for n in names if n != self.built.name and not n.endswith(".lock"))


def make_layered(folder: Path, archives: dict[str, Path]) -> Layered:
    """Make the project: a wheel with a program, both locks and a description."""
    project = Layered(folder, archives)
    project.envs.mkdir(parents=True)
    (folder / "wheels").mkdir()
    (folder / "home").mkdir()
    module = f"{BLOCKING_MODULE}\ndef main():\n    import sys\n    print(sys.prefix)\n"
    lock = pin(make_wheel(folder / "wheels", "tinypkg", module))
    (project.envs / f"{NAME}.requirements.txt").write_text(lock, encoding="utf-8")
    spec = {
        "name": NAME,
        "python": PYTHON,
        "platform": "linux-64",
        "imports": {"tinypkg": "1.0"},
        "megabytes": 10,
    }
    (project.envs / f"{NAME}.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
    project.write_pins()
    return project
