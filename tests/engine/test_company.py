"""Real vLLM engines that start at the same moment on one machine."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.engine.conftest import TIMEOUT_S, make_request
from tests.engine.real import real_workspace

pytestmark = pytest.mark.engine

ENGINES = 3

MEETING = re.compile(r"distributed_init_method=(\S+)")


def test_engines_that_start_together_meet_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """vLLM 0.28 lets its processes meet in a file; older versions do at VLLM_PORT."""
    monkeypatch.setenv("LLM_BATCH_LOCK_FOLDER", str(tmp_path / "locks"))
    monkeypatch.setenv("TMPDIR", "/tmp")
    # torchrun's variables would send all of them to one port.
    monkeypatch.setenv("MASTER_PORT", "29500")
    monkeypatch.setenv("LOCAL_RANK", "1")
    workspaces = [real_workspace(tmp_path, f"engine-{number}") for number in range(ENGINES)]
    before = set(Path("/tmp").glob("llmb-*"))
    for number, workspace in enumerate(workspaces):
        workspace.write([make_request(100 * number + n) for n in range(20)])
    processes = [workspace.start() for workspace in workspaces]
    outputs = [process.communicate(timeout=2 * TIMEOUT_S)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * ENGINES, outputs
    meetings = set()
    for workspace in workspaces:
        assert workspace.exits() == ["finished"]
        assert workspace.facts()["errors"] == {}
        (log,) = workspace.state.glob("*.log")
        meetings.add(MEETING.findall(log.read_text())[0].rpartition("/")[0])
    assert len(meetings) == ENGINES
    assert all(meeting.startswith("file:///tmp/llmb-") for meeting in meetings)
    assert set(Path("/tmp").glob("llmb-*")) <= before
