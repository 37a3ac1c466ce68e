"""One channel for all tests of this folder, and a project for each."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.environments.channel import Layered, make_channel, make_layered


@pytest.fixture(scope="session")
def archives(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The archives of a channel made with py-rattler-build."""
    return make_channel(tmp_path_factory.mktemp("channel"))


@pytest.fixture
def layered(tmp_path: Path, archives: dict[str, Path]) -> Layered:
    """A project whose environment has a conda layer and a wheel."""
    return make_layered(tmp_path / "project", archives)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, archives: dict[str, Path]) -> Layered:
    """A project that is built; tests that change it copy it first."""
    project = make_layered(tmp_path_factory.mktemp("finished") / "project", archives)
    code, output = project.build()
    assert code == 0, output
    return project
