"""Hostile data, through the real snakemake command: each row ends as an answer or a typed error.

`hostile_rows` has more than 200 rows of 100 kinds and more; with the 216 configs whose messages
tests/unit/config_messages.txt holds (and those that the fuzzers there make up) that is more than
400 bad inputs.
"""

from __future__ import annotations

import gzip
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.workflow.hostile_rows import (
    ENGINE_ROWS,
    ENGINE_SAMPLINGS,
    FILLED,
    INJECTIONS,
    OWN,
    TEMPLATE_TEXT,
    TEXTS,
    Case,
)
from tests.workflow.project import Outcome, Project, make_project

BAD_CONFIGS = Path(__file__).parents[1] / "unit/config_messages.txt"

BYTE_ORDER_MARK = b"\xef\xbb\xbf"

TRACE = "Traceback (most recent call last)"


def data(cases: list[Case]) -> bytes:
    """Return a file with a byte order mark, mixed line breaks, blank lines and no last break."""
    dice = random.Random(0)
    text = BYTE_ORDER_MARK
    for case in cases:
        text += dice.choice([b"", b"", b"\n", b"  \r\n", b"\t\n"])
        text += case.line + dice.choice([b"\n", b"\r\n"])
    return text.rstrip(b"\r\n")


def lines_of(text: bytes) -> list[int]:
    """Return the 1-based numbers of the lines that are not blank."""
    lines = text.removeprefix(BYTE_ORDER_MARK).split(b"\n")
    return [number for number, line in enumerate(lines, start=1) if line.strip()]


def section(path: str, **more: Any) -> dict[str, Any]:
    return {"path": path, "id": "id", **more}


SECTIONS = {
    "own": section("own.jsonl", reference="reference"),
    "filled": section("filled.jsonl", template=TEMPLATE_TEXT),
    "chat": section("filled.jsonl", messages=[{"role": "user", "content": TEMPLATE_TEXT}]),
}

CASES = {"own": OWN, "filled": FILLED, "chat": FILLED}


class Hostile:
    """The project after its run."""

    def __init__(self, project: Project, outcome: Outcome) -> None:
        self.project = project
        self.outcome = outcome

    def completions(self, name: str) -> list[dict[str, Any]]:
        path = self.project.one(f"runs/toy.{name}.greedy-*/completions.jsonl")
        return [json.loads(line) for line in path.read_bytes().splitlines()]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Hostile:
    """Three runs over all rows, done once."""
    project = make_project(tmp_path_factory.mktemp("hostile") / "project")
    (project.folder / "own.jsonl").write_bytes(data(OWN))
    (project.folder / "filled.jsonl").write_bytes(data(FILLED))
    config = project.read_config()
    config["prompts"] = SECTIONS
    runs = {"engine": "toy", "prompts": list(SECTIONS), "sampling": "greedy", "max_error_rate": 1}
    config["runs"] = [runs]
    project.write_config(config)
    return Hostile(project, project.snakemake())


def test_hostile_rows_do_not_stop_the_workflow(hostile: Hostile) -> None:
    assert hostile.outcome.code == 0, hostile.outcome.output[-5000:]
    assert TRACE not in hostile.outcome.output
    for log in (hostile.project.folder / "logs").rglob("*.log"):
        assert TRACE not in log.read_text(encoding="utf-8"), log


@pytest.mark.parametrize("name", SECTIONS)
def test_each_row_is_an_answer_or_the_typed_error_that_it_must_be(
    hostile: Hostile, name: str
) -> None:
    cases = CASES[name]
    rows = hostile.completions(name)
    wrong = [
        (case.line[:80], case.error, found["error"])
        for case, found in zip(cases, rows, strict=True)
        if (found["error"] or {}).get("type") != case.error
    ]
    assert wrong == []
    for found in rows:
        assert (found["text"] is None) == (found["error"] is not None)
        if found["error"]:
            assert found["error"]["message"] and "\n" not in found["error"]["message"]
            assert len(found["error"]["message"]) < 500


@pytest.mark.parametrize("name", SECTIONS)
def test_rows_keep_their_order_and_their_line_numbers(hostile: Hostile, name: str) -> None:
    rows = hostile.completions(name)
    assert [row["line"] for row in rows] == lines_of(data(CASES[name]))
    names = [row["row"] for row in rows]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("name", SECTIONS)
def test_errors_are_counted_and_listed(hostile: Hostile, name: str) -> None:
    folder = hostile.project.one(f"runs/toy.{name}.greedy-*")
    expected = Counter(case.error for case in CASES[name] if case.error)
    assert json.loads((folder / "facts.json").read_text())["errors"] == expected
    failures = [json.loads(line) for line in (folder / "failures.jsonl").read_bytes().splitlines()]
    assert Counter(failure["error"]["type"] for failure in failures) == expected


def test_data_is_never_run_as_a_template_or_a_command(hostile: Hostile) -> None:
    prompts = {row["prompt"] for row in hostile.completions("own")}
    filled = {row["prompt"] for row in hostile.completions("filled")}
    chat = {json.loads(r["prompt"])[0]["content"] for r in hostile.completions("chat") if r["text"]}
    for text in (*INJECTIONS, *TEXTS):
        assert text in prompts
        assert text in filled
        assert text in chat
    assert "2 x {{ 7*7 }}" in filled
    assert not list(hostile.project.folder.rglob("pwned"))


def test_the_report_shows_hostile_texts_and_runs_none(hostile: Hostile) -> None:
    page = hostile.project.one("reports/rehearsal-*/report.html").read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert "<img src=x" not in page


def test_there_are_more_than_three_hundred_bad_inputs() -> None:
    rows = {case.line for case in (*OWN, *FILLED)}
    bad = [case for case in (*OWN, *FILLED) if case.error]
    configs = len(BAD_CONFIGS.read_text(encoding="utf-8").splitlines())
    assert len(rows) >= 200
    assert len(bad) >= 100
    assert len(bad) + configs >= 300


def broken_files() -> dict[str, tuple[bytes, str]]:
    """Return files that cannot be read at all or hold nothing, and what must be said of each."""
    packed = gzip.compress(b'{"prompt": "x"}\n' * 1000)
    return {
        "cut.jsonl.gz": (packed[: len(packed) // 2], "is the file complete?"),
        "plain.jsonl.gz": (b'{"prompt": "x"}\n', "cannot be read"),
        "damaged.jsonl.gz": (packed[:20] + b"\xff" * 20 + packed[40:], "cannot be read"),
        "empty.jsonl": (b"", "holds no rows, so there is nothing to ask"),
        "blank.jsonl": (b"\n \r\n\t\n\n", "holds no rows, so there is nothing to ask"),
        "mark.jsonl": (BYTE_ORDER_MARK, "holds no rows, so there is nothing to ask"),
    }


def test_files_that_cannot_be_read_are_one_line_each(fresh_project: Project) -> None:
    """Each on an engine of its own, so that one call of snakemake shows them all."""
    config = fresh_project.read_config()
    files = broken_files()
    for number, (name, (content, _)) in enumerate(files.items()):
        (fresh_project.folder / name).write_bytes(content)
        config["prompts"][f"p{number}"] = section(name)
        config["engines"][f"e{number}"] = {
            **config["engines"]["toy"],
            "dummy": {"length": 3 + number},
        }
        run = {"engine": f"e{number}", "prompts": f"p{number}", "sampling": "greedy"}
        config["runs"].append(run)
    fresh_project.write_config(config)
    outcome = fresh_project.snakemake("runs")
    assert outcome.code != 0
    assert TRACE not in outcome.output
    for name, (_, words) in files.items():
        (line,) = {s for s in outcome.output.splitlines() if s.startswith(f"error: {name}")}
        assert words in line
    # The runs on other data are finished all the same.
    assert len(list(fresh_project.folder.glob("results/runs/*/manifest.json"))) == 2


@pytest.mark.engine
@pytest.mark.slow
def test_a_real_engine_survives_rows_and_samplings_that_only_it_can_judge(
    cpu_environment: Path, fresh_project: Project
) -> None:
    """Fourteen rows under eleven samplings: one engine start, and a type for each error."""
    folder = fresh_project.folder
    (folder / "results/environments").mkdir(parents=True)
    (folder / "results/environments" / cpu_environment.name).symlink_to(cpu_environment)
    (folder / "own.jsonl").write_bytes(data(ENGINE_ROWS))
    fresh_project.write_config(engine_config())
    outcome = fresh_project.run("runs")
    assert TRACE not in outcome.output
    for name, (_, can_be_answered) in ENGINE_SAMPLINGS.items():
        path = fresh_project.one(f"runs/real.own.{name}-*/completions.jsonl")
        rows = [json.loads(line) for line in path.read_bytes().splitlines()]
        for case, found in zip(ENGINE_ROWS, rows, strict=True):
            expected = {case.error}
            if not can_be_answered:
                expected = {"sampling_invalid", case.error} - {None}
            assert (found["error"] or {}).get("type") in expected, (name, case, found)
    facts = json.loads(fresh_project.one("batches/*/facts/0.json").read_text())
    assert (len(facts["engines"]), facts["deaths"]) == (1, 0)
    assert facts["engines"][0]["exit"] == "finished"


def engine_config() -> dict[str, Any]:
    model = Path(__file__).parents[2] / "config/quickstart/model"
    args = {"dtype": "float32", "max_model_len": 128}
    runs = {
        "engine": "real",
        "prompts": "own",
        "sampling": list(ENGINE_SAMPLINGS),
        "max_error_rate": 1,
    }
    return {
        "experiment": "hostile",
        "models": {"adder": {"path": str(model)}},
        "engines": {"real": {"model": "adder", "environment": "cpu", "args": args}},
        "prompts": {"own": section("own.jsonl")},
        "samplings": {name: sampling for name, (sampling, _) in ENGINE_SAMPLINGS.items()},
        "metrics": {},
        "runs": [runs],
    }
