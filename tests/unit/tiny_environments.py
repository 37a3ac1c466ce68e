"""Tiny environments for tests: a wheel made on the spot, its lock, and a builder to call."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from scripts.llm_batch.addresses import address
from scripts.llm_batch.environments.identity import environment_identity

ROOT = Path(__file__).resolve().parents[2]
PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"
VERSION = "1.0"

# Imported when the builder checks the environment: it says so, and waits while a file is there.
BLOCKING_MODULE = """
import os, pathlib, time
__version__ = "1.0"
folder = os.environ.get("TINY_FOLDER")
if folder:
    with open(os.path.join(folder, "imported"), "a") as stream:
        stream.write(f"{os.getpid()}\\n")
    while pathlib.Path(folder, "wait").exists():
        time.sleep(0.01)
"""


def make_wheel(
    folder: Path,
    name: str,
    source: str,
    version: str = VERSION,
    more: Mapping[str, str] | None = None,
) -> Path:
    """Write a pure wheel with one module of the same name and one command; `more`: other files."""
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": source,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[console_scripts]\n{name} = {name}:main\n",
    }
    files |= more or {}
    lines = [f"{path},sha256={_digest(text)},{len(text)}\n" for path, text in files.items()]
    record = "".join([*lines, f"{info}/RECORD,,\n"])
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in {**files, f"{info}/RECORD": record}.items():
            archive.writestr(path, text)
    return wheel


def _digest(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def pin(wheel: Path, digest: str | None = None) -> str:
    """Return the line of a lock for `wheel`, by default with its real hash."""
    name, version = wheel.name.split("-")[:2]
    sha256 = digest or hashlib.sha256(wheel.read_bytes()).hexdigest()
    return f"{name}=={version} \\\n    --hash=sha256:{sha256}\n"


@dataclass(frozen=True)
class Tiny:
    """A project with one environment, `tiny`, whose wheels lie in a folder."""

    folder: Path

    @property
    def envs(self) -> Path:
        """The folder of descriptions and locks."""
        return self.folder / "envs"

    @property
    def wheels(self) -> Path:
        """The only place where packages are looked for."""
        return self.folder / "wheels"

    @property
    def lock(self) -> Path:
        """The lock of the environment."""
        return self.envs / "tiny.requirements.txt"

    @property
    def built(self) -> Path:
        """The stage folder of the environment."""
        identity = environment_identity("tiny", self.envs)
        name = f"tiny-{address('environments', identity)}"
        return self.folder / "results/environments" / name

    def describe(self, **changes: object) -> None:
        """Write the environment's description, with some keys changed."""
        spec: dict[str, object] = {
            "name": "tiny",
            "python": PYTHON,
            "platform": "linux-64",
            "imports": {"tinypkg": VERSION},
            "megabytes": 10,
        }
        text = yaml.safe_dump({**spec, **changes}, sort_keys=False)
        (self.envs / "tiny.yaml").write_text(text, encoding="utf-8")

    def start(self, **variables: str) -> subprocess.Popen[str]:
        """Start a builder, as the rule does."""
        identity = json.dumps(environment_identity("tiny", self.envs))
        command = [sys.executable, "-m", "scripts.build_environment", "--identity", identity]
        output = str(self.built / "manifest.json")
        return subprocess.Popen(
            [*command, "--environments-dir", str(self.envs), "--output", output],
            cwd=ROOT,
            env={
                **os.environ,
                "PIP_CONFIG_FILE": os.devnull,
                "PIP_NO_INDEX": "1",
                "PIP_FIND_LINKS": str(self.wheels),
                "UV_CACHE_DIR": str(self.folder / "cache"),
                **variables,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def build(self, **variables: str) -> tuple[int, str]:
        """Run a builder to its end; return its exit code and all it said."""
        process = self.start(**variables)
        output, _ = process.communicate(timeout=120)
        return process.returncode, output

    def leftovers(self) -> list[str]:
        """Return what lies beside the stage folder, lock files apart."""
        parent = self.folder / "results/environments"
        names = {path.name for path in parent.iterdir()} if parent.exists() else set()
        return sorted(n for n in names if n != self.built.name and not n.endswith(".lock"))


def install_fakes(venv: Path, cuda: str | None, vllm: str = "0.28.0") -> Path:
    """Make a virtual environment in `venv` with made-up torch and vllm; call again to upgrade."""
    if not venv.exists():
        command = [sys.executable, "-m", "venv", "--without-pip", str(venv)]
        subprocess.run(command, check=True)
    (packages,) = venv.glob("lib/*/site-packages")
    for old in packages.glob("vllm-*.dist-info"):
        shutil.rmtree(old)
    for name, version in (("torch", "2.13.0"), ("vllm", vllm)):
        (packages / name).mkdir(exist_ok=True)
        (packages / name / "__init__.py").write_text(f"__version__ = '{version}'\n")
        info = packages / f"{name}-{version}.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    text = f"__version__ = '2.13.0+made-up'\ncuda = {cuda!r}\n"
    (packages / "torch/version.py").write_text(text)
    (packages / "torch/__init__.py").write_text(
        "from torch import version\n__version__ = '2.13.0'\n"
    )
    return venv


def make_tiny(folder: Path) -> Tiny:
    """Make the project: one wheel, its lock and a description."""
    tiny = Tiny(folder)
    tiny.envs.mkdir(parents=True)
    tiny.wheels.mkdir()
    wheel = make_wheel(tiny.wheels, "tinypkg", BLOCKING_MODULE)
    tiny.lock.write_text(pin(wheel), encoding="utf-8")
    tiny.describe()
    return tiny
