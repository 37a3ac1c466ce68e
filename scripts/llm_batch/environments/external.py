"""An interpreter that is there already: a container, a cluster's module, a virtual environment.

It is recorded package by package, and that record is its identity: the same packages somewhere
else are the same environment, and one that was upgraded is another.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.llm_batch.addresses import write_json_atomic
from scripts.llm_batch.errors import ConfigError, WorkflowError

SECONDS = 120
"""How long an interpreter may take to say what it has: containers start slowly."""

# Run by the interpreter. Nothing of vLLM or torch is imported: torch's version is read from the
# one small file that holds it, so the answer takes as long as Python needs to start.
_PROBE = """
import importlib.metadata, importlib.util, json, os, platform, re, sys
packages, sources = {}, {}
for found in importlib.metadata.distributions():
    name = re.sub(r"[-_.]+", "-", found.metadata["Name"] or "").lower()
    # The first one on the path is the one that is imported.
    if not name or name in packages:
        continue
    packages[name] = found.version
    direct = found.read_text("direct_url.json")
    if direct:
        about = json.loads(direct)
        origin = {key: about[key] for key in ("vcs_info", "dir_info") if about.get(key)}
        archive = about.get("archive_info", {}).get("hashes")
        if archive:
            origin["hashes"] = archive
        if origin:
            sources[name] = origin
def place(name):
    spec = importlib.util.find_spec(name)
    return os.path.dirname(spec.origin) if spec and spec.origin else None
torch, vllm = place("torch"), place("vllm")
version = {}
if torch:
    with open(os.path.join(torch, "version.py")) as stream:
        exec(compile(stream.read(), "version.py", "exec"), {}, version)
print("RECORD " + json.dumps({
    "python": platform.python_version(),
    "implementation": platform.python_implementation(),
    "machine": sys.platform + "-" + platform.machine(),
    "packages": dict(sorted(packages.items())),
    "sources": sources,
    "vllm": vllm is not None,
    "torch": version.get("__version__") if torch else None,
    "cuda": version.get("cuda"),
    "folders": [os.path.abspath(part) for part in sys.path if os.path.isdir(part)],
}))
"""


@dataclass(frozen=True)
class External:
    """An interpreter's record: `identity` is what it has, `device` `cpu` or `cuda`."""

    identity: Mapping[str, Any]
    device: str


class ExternalRecords:
    """Records of interpreters, kept in one JSON file between calls (`path`; None keeps nothing).

    A record is asked for anew when the interpreter or a folder that it imports from has another
    modification time, and every time if such a folder cannot be seen from here (a container).
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._entries: dict[str, Any] = _load(path)

    def record(self, python: Path) -> External:
        """Return the record of `python`; raise `ConfigError` if it cannot be an engine's."""
        place = str(find_program(python))
        entry = self._entries.get(place)
        if entry is None or entry["stamps"] != stamps(place, entry["found"]["folders"]):
            found = ask(place)
            entry = {"found": found, "stamps": stamps(place, found["folders"])}
            self._entries[place] = entry
            self._save()
        found = entry["found"]
        check(place, found)
        return External(external_identity(found), "cpu" if found["cuda"] is None else "cuda")

    def _save(self) -> None:
        if self._path is None:
            return
        try:
            write_json_atomic(self._path, self._entries)
        except (OSError, WorkflowError):
            # A read-only folder costs a second at each call, and is no error.
            return


def _load(path: Path | None) -> dict[str, Any]:
    try:
        entries = json.loads(path.read_text(encoding="utf-8")) if path else {}
    except (OSError, ValueError):
        return {}
    return entries if isinstance(entries, dict) else {}


def find_program(python: Path) -> Path:
    """Return the absolute path of an interpreter, which may be a name on PATH; links are kept."""
    found = shutil.which(str(python.expanduser()))
    if found is None:
        raise ConfigError(
            f"{python}: no program there that can be started; give the interpreter of an "
            "environment with vLLM, or a script that starts one"
        )
    return Path(found).absolute()


def stamps(place: str, folders: Sequence[str]) -> list[Any]:
    """Return what changes when packages are installed: times of the program and its folders."""
    marks: list[Any] = []
    for path in [place, os.path.realpath(place), *folders]:
        try:
            stat = os.stat(path)  # noqa: PTH116 - paths of another interpreter, as it wrote them
        except OSError:
            # Not seen from here, so never the same as anything: JSON has no such number.
            return [os.urandom(8).hex()]
        marks.append([path, stat.st_mtime_ns, stat.st_ino])
    return marks


def ask(place: str) -> dict[str, Any]:
    """Start the interpreter and return what it says it has."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    try:
        result = subprocess.run(
            [place, "-c", _PROBE],
            env=kept,
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(f"{place}: does not start as a Python interpreter ({error})") from None
    lines = [line for line in result.stdout.splitlines() if line.startswith("RECORD ")]
    if not lines:
        said = (result.stderr.strip() or result.stdout.strip() or "nothing").splitlines()[-1]
        raise ConfigError(f"{place}: does not start as a Python interpreter; it says: {said}")
    found: dict[str, Any] = json.loads(lines[-1].removeprefix("RECORD "))
    return found


def check(place: str, found: Mapping[str, Any]) -> None:
    """Raise `ConfigError` for an interpreter that cannot run vLLM on this machine."""
    missing = [name for name in ("vllm", "torch") if not found[name]]
    if missing:
        raise ConfigError(
            f"{place}: {' and '.join(missing)} cannot be found by this interpreter "
            f"(Python {found['python']}); install it there, or give another interpreter"
        )
    here = f"linux-{platform.machine()}"
    if found["machine"] != here:
        raise ConfigError(f"{place}: is for {found['machine']}, this machine is {here}")


def external_identity(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return what decides an answer of this interpreter: what it has, not where it lies."""
    kept = ("python", "implementation", "machine", "packages", "torch", "cuda")
    identity = {key: found[key] for key in kept}
    if found["sources"]:
        identity["sources"] = found["sources"]
    return {"external": identity}
