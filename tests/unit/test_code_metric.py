"""Code of a model is run in a process with limits: it passes, fails, and cannot stay."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from scripts.llm_batch.errors import WorkflowError
from scripts.llm_batch.evaluation.metrics import Item, ManyMetric, build_metric
from scripts.llm_batch.evaluation.metrics.sandbox import Limits, isolation, run_program

TESTS = "assert add(1, 2) == 3\nassert add(-1, 1) == 0"
RIGHT = "def add(a, b):\n    return a + b"


def passes(*texts: str, reference: Any = TESTS, **settings: Any) -> list[float]:
    specification = {"type": "code", "allow_code": True, "allow_network": True, **settings}
    metric = build_metric("m", specification).metric
    assert isinstance(metric, ManyMetric)
    accepted = metric.accept(reference)
    assert accepted is not None
    judged = metric.judge_many([Item(text, accepted, {}) for text in texts])
    return [getattr(one, "score", -1.0) for one in judged]


def test_code_passes_if_its_tests_do() -> None:
    assert passes(
        RIGHT,
        f"Sure:\n```python\n{RIGHT}\n```\nThat adds.",
        RIGHT.replace("+", "-"),
        "no code at all",
        "import sys; sys.exit(0)",
        "import os; os._exit(0)",
        "raise SystemExit",
        "print('x' * 10_000_000)",
    ) == [1, 1, 0, 0, 0, 0, 0, 0]


def test_tests_can_stand_on_both_sides_of_the_answer() -> None:
    reference = {"before": "def add(a, b):", "after": TESTS}
    assert passes("    return a + b", reference=reference) == [1]


def test_code_that_takes_too_long_or_too_much_fails(tmp_path: Path) -> None:
    started = time.monotonic()
    found = passes(
        "while True: pass",
        "import time; time.sleep(1000)",
        "x = bytearray(4 << 30)",
        "open('big', 'wb').write(b'x' * (64 << 20))",
        "import os\nwhile True: os.fork()",
        timeout_s=2,
        memory_mb=256,
    )
    assert found == [0] * 5
    assert time.monotonic() - started < 1000, "the sleeper was waited for"


def test_nothing_of_it_stays(tmp_path: Path) -> None:
    mark = tmp_path / "alive"
    source = (
        "import os, time\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        f"    time.sleep(2); open({str(mark)!r}, 'w'); os._exit(0)\n"
    )
    prefix = isolation(True)
    if not prefix:
        pytest.skip("without namespaces a process that leaves its group lives on, as documented")
    assert run_program(source, prefix, Limits(10, 512))
    time.sleep(3)
    assert not mark.exists()


def test_it_has_no_network_and_none_of_our_variables() -> None:
    prefix = isolation(True)
    if not prefix:
        pytest.skip("this machine has no namespaces")
    os.environ["A_SECRET"] = "x"
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        connect = f"import socket; socket.create_connection(('127.0.0.1', {port}), 2)"
        assert not run_program(connect, prefix, Limits(10, 512))
        assert run_program(connect, (), Limits(10, 512)), "so the port was open"
    assert not run_program("import os; os.environ['A_SECRET']", prefix, Limits(10, 512))


def test_nothing_runs_unless_the_config_says_so() -> None:
    with pytest.raises(WorkflowError, match="set its allow_code: true"):
        passes(RIGHT, allow_code=False)
