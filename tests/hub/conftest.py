"""Fixtures of the hub tests: a stand-in hub with the quickstart's model, and an empty cache."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hub.fetching import Fetching
from tests.hub.stand_in_hub import StandInHub, read_folder, stand_in_hub

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def model_bytes() -> dict[str, bytes]:
    """The files of the quickstart's model."""
    return read_folder(ROOT / "config/quickstart/model")


@pytest.fixture
def hub() -> Iterator[StandInHub]:
    """An empty stand-in hub."""
    with stand_in_hub() as hub:
        yield hub


@pytest.fixture
def fetching(hub: StandInHub, tmp_path: Path) -> Fetching:
    """The fetch program with the stand-in hub and a cache of its own."""
    return Fetching(hub, tmp_path)
