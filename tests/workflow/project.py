"""A copy of the workflow in a temporary folder, with a small config on the dummy engine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("Snakefile", "rules", "scripts", "profiles", "envs", "config/schemas")
SECONDS = 300
TARGETS = {"all", "environments", "replicate", "runs"}


@dataclass(frozen=True)
class Outcome:
    """What a call of snakemake said."""

    code: int
    output: str

    @property
    def nothing_to_do(self) -> bool:
        """Whether Snakemake found every output up to date."""
        return "Nothing to be done" in self.output

    def jobs(self) -> dict[str, int]:
        """The job counts of the table that Snakemake prints, without its total."""
        counts: dict[str, int] = {}
        lines = iter(self.output.splitlines())
        for line in lines:
            if line.startswith("job ") and line.split() == ["job", "count"]:
                next(lines)
                for row in lines:
                    if not row.strip() or row.startswith("total"):
                        break
                    name, count = row.split()
                    counts[name] = int(count)
                break
        return {name: count for name, count in counts.items() if name not in TARGETS}


@dataclass(frozen=True)
class Project:
    """A working folder of the workflow."""

    folder: Path

    def snakemake(self, *arguments: str, cores: str = "2", seconds: float = SECONDS) -> Outcome:
        """Run the real snakemake command here, for at most so many seconds."""
        command = [sys.executable, "-m", "snakemake", "--cores", cores, *arguments]
        result = subprocess.run(
            command,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
            env={**os.environ, "PYTHONPATH": ""},
            check=False,
        )
        return Outcome(result.returncode, result.stdout)

    def run(self, *arguments: str) -> Outcome:
        """Run snakemake and insist that it succeeds."""
        outcome = self.snakemake(*arguments)
        assert outcome.code == 0, outcome.output
        return outcome

    def planned(self, *arguments: str) -> dict[str, int]:
        """Return the jobs that a dry run announces; empty if there is nothing to do."""
        return self.run("--dry-run", *arguments).jobs()

    def write_config(self, config: dict[str, Any]) -> None:
        """Replace config/config.yaml, keeping the order of keys."""
        text = yaml.safe_dump(config, sort_keys=False)
        (self.folder / "config/config.yaml").write_text(text, encoding="utf-8")

    def read_config(self) -> dict[str, Any]:
        """Return config/config.yaml."""
        loaded = yaml.safe_load((self.folder / "config/config.yaml").read_text(encoding="utf-8"))
        assert isinstance(loaded, dict)
        return loaded

    def write_prompts(self, rows: list[dict[str, Any]], name: str = "prompts.jsonl") -> None:
        """Write a prompts file."""
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (self.folder / name).write_text(text, encoding="utf-8")

    def one(self, pattern: str) -> Path:
        """Return the only path that matches `pattern` below results/."""
        found = sorted((self.folder / "results").glob(pattern))
        assert len(found) == 1, (pattern, found)
        return found[0]

    def answered(self) -> int:
        """Return how many answers all journals hold: what engines were really asked."""
        journals = (self.folder / "results/engines").glob("*/journals/*.jsonl")
        return sum(
            '"key"' in line for journal in journals for line in journal.read_text().splitlines()
        )

    def copy_to(self, folder: Path, *parts: str) -> Project:
        """Copy the workflow, and the named parts besides, to another folder."""
        for part in (*PARTS, "config", "prompts.jsonl", "model", *parts):
            source = self.folder / part
            target = folder / part
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True)
            elif source.exists():
                shutil.copy(source, target)
        return Project(folder)


def dummy_config() -> dict[str, Any]:
    """Return a config of two samplings on one dummy engine."""
    return {
        "experiment": "rehearsal",
        "models": {"toy": {"path": "model"}},
        "engines": {"toy": {"model": "toy", "environment": "cpu", "backend": "dummy", "dummy": {}}},
        "prompts": {
            "questions": {
                "path": "prompts.jsonl",
                "template": "{{ question }}",
                "reference": "answer",
                "id": "id",
            }
        },
        "samplings": {
            "greedy": {"temperature": 0, "max_tokens": 8},
            "warm": {"temperature": 0.7, "top_p": 0.9, "n": 2, "max_tokens": 8},
        },
        "metrics": {"exact": {"type": "exact_match"}},
        "runs": [{"engine": "toy", "prompts": "questions", "sampling": ["greedy", "warm"]}],
    }


def dummy_rows(count: int = 12) -> list[dict[str, Any]]:
    """Return prompts rows with a reference."""
    return [
        {"id": f"q{i}", "question": f"What is number {i}?", "answer": f"{i}"} for i in range(count)
    ]


def make_project(folder: Path) -> Project:
    """Copy the workflow into `folder` and give it a dummy config and twelve prompts."""
    for part in PARTS:
        source, target = ROOT / part, folder / part
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    project = Project(folder)
    (folder / "model").mkdir()
    (folder / "model/config.json").write_text("{}", encoding="utf-8")
    (folder / "model/model.safetensors").write_bytes(b"")
    project.write_config(dummy_config())
    project.write_prompts(dummy_rows())
    return project
