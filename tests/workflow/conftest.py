"""Fixtures of the workflow tests: one finished project, copied for each test that changes it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.workflow.project import Project, make_project


@pytest.fixture(scope="session")
def finished_project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose experiment has been run once; tests do not change it."""
    project = make_project(tmp_path_factory.mktemp("finished") / "project")
    project.run()
    return project


@pytest.fixture
def project(finished_project: Project, tmp_path: Path) -> Project:
    """A copy of the finished project, times and Snakemake's records kept."""
    folder = tmp_path / "project"
    shutil.copytree(finished_project.folder, folder, symlinks=True)
    return Project(folder)


@pytest.fixture
def fresh_project(tmp_path: Path) -> Project:
    """A project in which nothing has been run."""
    return make_project(tmp_path / "project")


@pytest.fixture
def elsewhere(tmp_path: Path) -> Callable[[], Path]:
    """A function that returns a new empty folder."""
    return lambda: tmp_path / "elsewhere"
