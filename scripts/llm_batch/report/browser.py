"""The rows of the page's browser as compact columns; equal texts are held once.

The JSON's shape is read by `templates/rows.js`: `strings` holds every text, other columns hold
indices into it (-1: there is none). Rows are numbered in prompt order; a run has its rows, and
`start[i]` … `start[i + 1]` are the completions of its row i.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import duckdb
import orjson

from scripts.llm_batch.errors import WorkflowError
from scripts.llm_batch.report.choose import TEXT_CHARACTERS
from scripts.llm_batch.report.completions import run_view
from scripts.llm_batch.report.records import Run

FINISH = {"stop": "s", "length": "l", "error": "e"}
NOTHING = -1

ROW_COLUMNS = f"""
SELECT place, left(arg_min(prompt, sample), {TEXT_CHARACTERS}) AS prompt,
       left(arg_min(rendered_prompt, sample), {TEXT_CHARACTERS}) AS rendered,
       arg_min(reference, sample) AS reference, count(*) AS samples
FROM {{view}} JOIN chosen USING (data, line) GROUP BY place ORDER BY place
"""

COMPLETION_COLUMNS = f"""
SELECT sample, left(text, {TEXT_CHARACTERS}) AS text, length(text) AS characters, finish_reason,
       completion_tokens, error_type, error_message, position
FROM {{view}} JOIN chosen USING (data, line) ORDER BY place, sample
"""


class Strings:
    """Numbers texts in order of first appearance."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def number(self, text: str | None) -> int:
        """Return the index of `text`, `NOTHING` for None."""
        if text is None:
            return NOTHING
        return self._numbers.setdefault(text, len(self._numbers))

    def column(self, texts: Iterable[str | None]) -> list[int]:
        """Return the indices of many texts."""
        return [self.number(text) for text in texts]

    @property
    def texts(self) -> list[str]:
        """All texts, in the order of their numbers."""
        return list(self._numbers)


def browser_data(connection: duckdb.DuckDBPyConnection, runs: Sequence[Run]) -> dict[str, Any]:
    """Return the chosen rows with the completions of all runs; needs table `chosen`."""
    strings = Strings()
    rows = connection.execute(
        "SELECT any_value(row), place FROM completions JOIN chosen USING (data, line) "
        "GROUP BY place ORDER BY place"
    ).fetchall()
    ids = strings.column(row for row, _ in rows)
    lines = connection.execute("SELECT data, line FROM chosen ORDER BY place").fetchall()
    return {
        "ids": ids,
        "lines": [line for _, line in lines],
        "data": [data for data, _ in lines],
        "runs": [_run_columns(connection, run, strings) for run in runs],
        "strings": strings.texts,
    }


def _run_columns(
    connection: duckdb.DuckDBPyConnection, run: Run, strings: Strings
) -> dict[str, Any]:
    rows = _columns(connection, ROW_COLUMNS, run)
    found = _columns(connection, COMPLETION_COLUMNS, run)
    start = [0]
    for samples in rows["samples"]:
        start.append(start[-1] + samples)
    characters = enumerate(found["characters"])
    cut = {str(i): n for i, n in characters if n is not None and n > TEXT_CHARACTERS}
    errors = zip(found["error_type"], found["error_message"], strict=True)
    return {
        "name": run.name,
        "label": run.label,
        "chat": run.prompts.get("messages") is not None,
        "rows": rows["place"],
        "start": start,
        "prompt": strings.column(rows["prompt"]),
        "rendered": strings.column(rows["rendered"]),
        "reference": strings.column(map(_reference_text, rows["reference"])),
        "sample": found["sample"],
        "text": strings.column(found["text"]),
        "cut": cut,
        "finish": "".join(FINISH.get(reason, "?") for reason in found["finish_reason"]),
        "tokens": found["completion_tokens"],
        "error": strings.column(f"{t}: {m}" if t is not None else None for t, m in errors),
        "scores": _scores(connection, run, found["position"], strings),
    }


def _columns(connection: duckdb.DuckDBPyConnection, sql: str, run: Run) -> dict[str, list[Any]]:
    # All completions would be all files: with thousands of runs their number squared.
    table = connection.sql(sql.format(view=run_view(run))).to_arrow_table()
    return {name: table[name].to_pylist() for name in table.column_names}


def _reference_text(reference: str | None) -> str | None:
    """Return a JSON-encoded reference as a reader would write it."""
    if reference is None:
        return None
    value = json.loads(reference)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _scores(
    connection: duckdb.DuckDBPyConnection, run: Run, positions: Sequence[int], strings: Strings
) -> dict[str, Any]:
    """Return score and extracted answer of each metric for the completions at `positions`."""
    metrics = list(dict.fromkeys(v.metric for v in run.values if v.metric is not None))
    path = run.evaluation / "scores.parquet" if run.evaluation else None
    if not metrics or path is None:
        return {}
    if not path.is_file():
        raise WorkflowError(f"{path}: missing; run the workflow again to make it")
    table = connection.read_parquet(str(path)).to_arrow_table()
    if table.num_rows != run.completions:
        raise WorkflowError(
            f"{path}: {table.num_rows} scores for {run.completions} completions; "
            "delete the evaluation's folder and run again"
        )
    found = {}
    # A group of the harness may have a figure that no document has a score of.
    for metric in (metric for metric in metrics if metric in table.column_names):
        picked = table[metric].take(positions).to_pylist()
        extracted = table[f"{metric}.extracted"].take(positions).to_pylist()
        found[metric] = {
            "score": [None if score is None else _short(score) for score in picked],
            "extracted": strings.column(extracted),
        }
    return found


def _short(score: float) -> float | int:
    return int(score) if score in (0.0, 1.0) else round(score, 4)


def script_json(value: Any) -> str:
    """Return JSON that may stand in a `script` element: no `<`, `>` or `&` is left in it."""
    text = orjson.dumps(value)
    for character in (b"<", b">", b"&"):
        text = text.replace(character, b"\\u%04x" % ord(character))
    for separator in ("\u2028", "\u2029"):
        text = text.replace(separator.encode(), b"\\u%04x" % ord(separator))
    return text.decode()
