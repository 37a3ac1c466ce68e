"""A real SLURM cluster for these tests, and calls of snakemake that end with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.slurm.cluster import CannotRun, Cluster, running
from tests.slurm.project import Call
from tests.workflow.project import Project


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Two nodes with two GPUs each, for all tests of this process."""
    try:
        manager = running()
        found = manager.__enter__()
    except CannotRun as error:
        pytest.skip(f"no SLURM cluster here: {error}")
    try:
        yield found
    finally:
        manager.__exit__(None, None, None)


Submit = Callable[..., Call]


@pytest.fixture
def submit(cluster: Cluster) -> Iterator[Submit]:
    """A function that calls snakemake on the cluster; nothing of it outlives the test."""
    calls: list[Call] = []

    def call(project: Project, *arguments: str) -> Call:
        calls.append(Call(project, cluster, arguments))
        return calls[-1]

    yield call
    for one in calls:
        one.stop()
    cluster.resume()
