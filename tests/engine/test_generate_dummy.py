"""`generate` with the dummy engine: nothing lost, nothing twice, whatever dies."""

from __future__ import annotations

import os
import random
import resource
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from scripts.llm_batch.errors import WorkflowError
from scripts.llm_batch.generate import state
from scripts.llm_batch.generate.process import STOP_GRACE_S, TRACKER_GRACE_S
from scripts.llm_batch.retries import RETRYABLE, write_marks
from tests.engine.conftest import (
    ROOT,
    TIMEOUT_S,
    Workspace,
    alive,
    kill_and_wait,
    make_request,
    wait_for,
)

COUNT = 400


def dummy(**settings: Any) -> dict[str, Any]:
    return {"backend": "dummy", "args": {"max_num_seqs": 16}, "dummy": settings}


def undisturbed(folder: Path, requests: list[dict[str, Any]]) -> bytes:
    """Return the table that an engine without faults writes."""
    space = Workspace(folder / "undisturbed", engine=dummy())
    space.write(requests)
    space.run()
    return space.completions.read_bytes()


def test_all_requests_are_answered_in_their_order(workspace: Workspace) -> None:
    requests = [make_request(number) for number in range(COUNT)]
    workspace.write(requests)
    workspace.run()
    answers = workspace.answers()
    assert [answer["key"] for answer in answers] == [request["key"] for request in requests]
    assert {answer["finish_reason"] for answer in answers} <= {"stop", "length"}
    facts = workspace.facts()
    assert (facts["answered"], facts["recovered"], facts["deaths"]) == (COUNT, 0, 0)
    assert facts["tokens"]["completion"] == sum(len(answer["token_ids"]) for answer in answers)
    assert facts["engines"][0]["backend"] == "dummy"
    assert facts["engines"][0]["requests"] == COUNT


def test_nothing_open_starts_no_engine(workspace: Workspace) -> None:
    workspace.write([make_request(number) for number in range(10)])
    workspace.run()
    first = workspace.completions.read_bytes()
    workspace.completions.unlink()
    output = workspace.run()
    assert "no engine is needed" in output
    assert workspace.completions.read_bytes() == first
    assert (workspace.facts()["answered"], workspace.facts()["recovered"]) == (0, 10)


def test_an_empty_shard_gives_an_empty_table(workspace: Workspace) -> None:
    workspace.write([])
    workspace.run()
    assert workspace.answers() == []


def test_a_new_row_costs_one_request(workspace: Workspace) -> None:
    requests = [make_request(number) for number in range(10)]
    workspace.write(requests)
    workspace.run()
    workspace.write([make_request(99), *requests])
    workspace.run()
    assert workspace.facts()["answered"] == 1
    assert len(workspace.journaled()) == 11


def test_a_raised_limit_redoes_truncated_answers_only(workspace: Workspace) -> None:
    workspace.write([make_request(number, max_tokens=16) for number in range(50)])
    workspace.run()
    reasons = [answer["finish_reason"] for answer in workspace.answers()]
    assert 0 < reasons.count("length") < 50
    raised = [make_request(number, max_tokens=64) for number in range(50)]
    workspace.write(raised)
    workspace.run()
    assert workspace.facts()["answered"] == reasons.count("length")
    assert {answer["max_tokens"] for answer in workspace.answers()} == {64}
    fresh = Workspace(workspace.folder / "fresh")
    fresh.write(raised)
    fresh.run()
    assert workspace.completions.read_bytes() == fresh.completions.read_bytes()


def test_bad_rows_become_typed_errors(workspace: Workspace) -> None:
    workspace.engine["args"] = {"max_model_len": 8}
    workspace.write(
        [
            make_request(0, {"text": "one two three"}),
            make_request(1, {"text": "word " * 8}),
            make_request(2, {"text": "  "}),
            {**make_request(3, {"text": "a b c d e f g h i j"}), "on_too_long": "truncate_left"},
        ]
    )
    workspace.run()
    answers = workspace.answers()
    types = [answer["error_type"] for answer in answers]
    assert types == [None, "prompt_too_long", "prompt_empty", None]
    assert (answers[1]["prompt_tokens"], answers[1]["text"]) == (8, None)
    assert (answers[3]["truncated_prompt_tokens"], answers[3]["prompt_tokens"]) == (6, 4)
    assert workspace.facts()["errors"] == {"prompt_empty": 1, "prompt_too_long": 1}


@pytest.mark.parametrize("victim", ["worker", "supervisor"])
def test_kills_at_random_moments_lose_nothing(workspace: Workspace, victim: str) -> None:
    requests = [make_request(number) for number in range(COUNT)]
    expected = undisturbed(workspace.folder, requests)
    workspace.engine = dummy(latency_s=0.04)
    workspace.write(requests)
    dice = random.Random(victim)
    process = workspace.start()
    for _ in range(4):
        workspace.wait_news(process)
        time.sleep(dice.random() * 0.15)
        if process.poll() is not None:
            break
        worker = workspace.worker(process)
        if victim == "worker":
            worker.kill()
            continue
        kill_and_wait(process, worker)
        process = workspace.start()
    assert process.wait(timeout=TIMEOUT_S) == 0
    assert workspace.completions.read_bytes() == expected
    keys = workspace.journaled()
    assert len(keys) == len(set(keys)) == COUNT
    facts = workspace.facts()
    assert sum(engine["requests"] for engine in facts["engines"]) == COUNT
    assert facts["answered"] + facts["recovered"] == COUNT
    assert facts["deaths"] >= 2


def test_a_torn_last_line_is_asked_again(workspace: Workspace) -> None:
    requests = [make_request(number) for number in range(20)]
    expected = undisturbed(workspace.folder, requests)
    workspace.write(requests)
    workspace.run()
    journal = next(workspace.journals.glob("*.jsonl"))
    journal.write_bytes(journal.read_bytes()[:-9])
    workspace.run()
    assert workspace.facts()["answered"] == 1
    assert workspace.completions.read_bytes() == expected


def test_a_poisonous_request_is_quarantined_and_all_others_answered(workspace: Workspace) -> None:
    requests = [make_request(number) for number in range(100)]
    requests[37] = make_request(37, {"text": "this is poison indeed"})
    requests[61] = make_request(61, {"text": "and more poison"})
    workspace.engine = dummy(poison="poison")
    workspace.write(requests)
    output = workspace.run()
    answers = workspace.answers()
    wrong = {place: a["error_type"] for place, a in enumerate(answers) if a["error_type"]}
    assert wrong == {37: "engine_killed", 61: "engine_killed"}
    assert "SIGKILL" in answers[37]["error_message"]
    assert output.count("is quarantined") == 2
    assert len(workspace.journaled()) == 100


def test_errors_are_kept_unless_given_up(workspace: Workspace) -> None:
    workspace.engine = dummy(poison="poison")
    workspace.write([make_request(0, {"text": "poison"}), make_request(1)])
    workspace.run()
    assert workspace.facts()["errors"] == {"engine_killed": 1}
    assert "no engine is needed" in workspace.run()
    workspace.engine = dummy()
    given_up = frozenset(RETRYABLE)
    write_marks(workspace.journals, dict.fromkeys(workspace.journals.glob("*.jsonl"), given_up))
    workspace.run()
    assert workspace.facts()["errors"] == {}
    assert workspace.facts()["answered"] == 1


def test_a_crash_at_every_start_still_answers_everything(workspace: Workspace) -> None:
    requests = [make_request(number) for number in range(100)]
    expected = undisturbed(workspace.folder, requests)
    workspace.engine = dummy(crash_after=40)
    workspace.write(requests)
    workspace.run()
    assert workspace.completions.read_bytes() == expected
    assert workspace.facts()["deaths"] >= 2


def test_a_hung_engine_is_killed_and_replaced(workspace: Workspace) -> None:
    requests = [make_request(number) for number in range(40)]
    expected = undisturbed(workspace.folder, requests)
    workspace.engine = dummy(hang_after=25)
    # Looked at once a second: an engine that only waits for a busy processor must not hang.
    workspace.tuning = {"stall_timeout_s": 4}
    workspace.write(requests)
    output = workspace.run()
    assert "made no token and no answer for 4 s" in output
    assert workspace.completions.read_bytes() == expected
    assert workspace.facts()["engines"][0]["exit"] == "hung"


def test_out_of_memory_at_start_is_tried_again(workspace: Workspace) -> None:
    workspace.engine = dummy(out_of_memory_starts=2)
    workspace.write([make_request(number) for number in range(10)])
    workspace.run()
    facts = workspace.facts()
    assert (facts["answered"], facts["deaths"], len(facts["engines"])) == (10, 2, 3)


def test_an_engine_that_never_starts_ends_in_one_line_with_a_cure(workspace: Workspace) -> None:
    workspace.engine = dummy(out_of_memory_starts=1000)
    workspace.write([make_request(0)])
    lines = workspace.run(code=1).splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    assert len(errors) == 1
    assert "out of memory" in errors[0]
    assert "lower tuning.gpu_memory_utilization" in errors[0]
    assert "Traceback (most" not in "\n".join(lines[:-1])


def test_an_engine_that_answers_nothing_is_given_up(workspace: Workspace) -> None:
    workspace.engine = dummy(crash_after=0)
    workspace.tuning = {"max_restarts": 2}
    workspace.write([make_request(number) for number in range(10)])
    assert "engines die without answering anything" in workspace.run(code=1)


def test_a_full_disk_keeps_what_is_written_and_goes_on_later(workspace: Workspace) -> None:
    requests = [make_request(number) for number in range(COUNT)]
    expected = undisturbed(workspace.folder, requests)
    workspace.write(requests)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    output = workspace.run(code=1, preexec_fn=limit)
    error = output.splitlines()[-1]
    assert error.startswith(f"error: {workspace.journals}: answers cannot be written: File too")
    assert "free space and run again" in error
    kept = len(workspace.journaled())
    assert 100 < kept < COUNT
    workspace.run()
    assert workspace.completions.read_bytes() == expected
    assert workspace.facts()["recovered"] == kept
    keys = workspace.journaled()
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_a_supervisor_without_orphans(workspace: Workspace, number: int) -> None:
    assert STOP_GRACE_S + TRACKER_GRACE_S < 5, "what is promised to schedulers"
    workspace.engine = dummy(latency_s=0.1)
    workspace.write([make_request(number) for number in range(COUNT)])
    process = workspace.start()
    worker = workspace.worker(process)
    workspace.wait_answers(20)
    process.send_signal(number)
    assert process.wait(timeout=TIMEOUT_S) == 128 + number
    assert not alive(worker.pid)
    assert workspace.exits() == ["interrupted"]
    finished = len(workspace.journaled())
    assert 20 <= finished < COUNT
    workspace.engine = dummy()
    workspace.run()
    assert workspace.facts()["recovered"] == finished
    assert workspace.facts()["deaths"] == 0


def test_a_scheduler_that_signals_the_engine_first_has_not_killed_it(workspace: Workspace) -> None:
    workspace.engine = dummy(latency_s=0.1)
    workspace.write([make_request(number) for number in range(COUNT)])
    process = workspace.start()
    worker = workspace.worker(process)
    workspace.wait_answers(20)
    # However slow the machine is, the supervisor looks after both signals have come.
    process.send_signal(signal.SIGSTOP)
    worker.send_signal(signal.SIGTERM)
    wait_for(lambda: not alive(worker.pid))
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGCONT)
    assert process.wait(timeout=TIMEOUT_S) == 128 + signal.SIGTERM
    assert workspace.exits() == ["interrupted"]


def test_a_signal_stops_a_supervisor_whose_engine_hangs(workspace: Workspace) -> None:
    workspace.engine = dummy(hang_after=5)
    workspace.write([make_request(number) for number in range(COUNT)])
    process = workspace.start()
    worker = workspace.worker(process)
    workspace.wait_answers(5)
    process.terminate()
    assert process.wait(timeout=TIMEOUT_S) == 143
    assert not alive(worker.pid)
    assert workspace.exits() == ["interrupted"]


def test_the_supervisor_stops_when_snakemake_is_killed(
    workspace: Workspace, tmp_path: Path
) -> None:
    """The shell between Snakemake and the supervisor survives Snakemake's death."""
    workspace.engine = dummy(latency_s=1)
    workspace.write([make_request(number) for number in range(COUNT)])
    fake = tmp_path / "snakemake"
    command = workspace.command()
    fake.write_text(
        "import subprocess, sys\nsubprocess.run(['bash', '-c', sys.argv[1] + '; true'])\n"
    )
    parent = subprocess.Popen(
        [sys.executable, str(fake), shlex.join(command)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    workspace.started.append(parent)
    workspace.wait_answers(1)
    kin = psutil.Process(parent.pid).children(recursive=True)
    assert len(kin) == 3
    parent.kill()
    wait_for(lambda: not any(alive(process.pid) for process in kin))
    assert len(workspace.journaled()) < COUNT


def test_two_supervisors_of_one_shard_exclude_each_other(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "LOCK_WAIT_S", 0.3)
    second = state.ShardFolder(workspace.journals, workspace.name)
    with (
        state.ShardFolder(workspace.journals, workspace.name),
        pytest.raises(WorkflowError, match=f"pid {os.getpid()}"),
    ):
        second.__enter__()
