"""Calls of the fetch program, as the rule makes them, with a cache and results of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripts.llm_batch.addresses import address, canonical_json
from tests.hub.stand_in_hub import StandInHub

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 120


@dataclass(frozen=True)
class Said:
    """What a program said."""

    code: int
    text: str

    @property
    def error(self) -> str:
        """The one line that a refused call ends with."""
        lines = [line for line in self.text.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, self.text
        assert "Traceback" not in self.text
        return lines[0].removeprefix("error: ")


@dataclass
class Fetching:
    """One user: a hub, a home with cache and token, and results."""

    hub: StandInHub
    folder: Path
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        """HF_HOME."""
        return self.folder / "hf"

    @property
    def environment(self) -> dict[str, str]:
        """The variables of every call: nothing of the user who runs the tests."""
        inherited = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("HF_", "HUGGING")) and not key.lower().endswith("_proxy")
        }
        own = {
            "HF_ENDPOINT": self.hub.url,
            "HF_HOME": str(self.home),
            "PYTHONPATH": str(ROOT),
            "HOME": str(self.folder),
        }
        return {**inherited, **own, **self.variables}

    def log_in(self, token: str) -> None:
        """Write the token file, as `hf auth login` does."""
        self.home.mkdir(exist_ok=True)
        (self.home / "token").write_text(token)

    def command(self, identity: dict[str, Any], *words: str) -> list[str]:
        """Return the command line that the rule would call."""
        output = self.stage(identity) / "manifest.json"
        command = [sys.executable, "-m", "scripts.fetch_model"]
        command += ["--identity", canonical_json(identity), *words]
        return [*command, "--output", str(output)]

    def stage(self, identity: dict[str, Any]) -> Path:
        """Return the stage folder of a model."""
        return self.folder / "results/models" / f"m-{address('models', identity)}"

    def start(self, identity: dict[str, Any], *words: str) -> subprocess.Popen[str]:
        """Start fetching and do not wait."""
        return subprocess.Popen(
            self.command(identity, *words),
            env=self.environment,
            cwd=self.folder,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def program(self, *command: str) -> Said:
        """Call a program of the workflow and return what it said."""
        result = subprocess.run(
            [sys.executable, "-m", *command],
            env=self.environment,
            cwd=self.folder,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=SECONDS,
            check=False,
        )
        return Said(result.returncode, result.stdout)

    def fetch(self, identity: dict[str, Any], *words: str) -> Said:
        """Fetch and wait."""
        return self.program(*self.command(identity, *words)[2:])

    def model(self, identity: dict[str, Any]) -> dict[str, Any]:
        """Return model.json."""
        text = (self.stage(identity) / "model.json").read_text()
        loaded: dict[str, Any] = json.loads(text)
        return loaded

    def bodies(self) -> list[str]:
        """Return the paths whose bodies were asked for."""
        return [
            asked.path
            for asked in self.hub.asked
            if asked.method == "GET" and (asked.server == "store" or "resolve-cache" in asked.path)
        ]
