"""Which rows the page's browser holds."""

from __future__ import annotations

from collections.abc import Iterable

import duckdb
import pytest

from scripts.llm_batch.report import choose
from scripts.llm_batch.report.choose import choose_rows


def connection_with(
    rows: int, failed: Iterable[int] = (), text: str = "4"
) -> duckdb.DuckDBPyConnection:
    """Return a database of two runs with one sample a row."""
    connection = duckdb.connect()
    connection.execute(
        "CREATE TABLE completions (run INT, data INT, line BIGINT, row VARCHAR, sample INT, "
        "prompt VARCHAR, text VARCHAR, error_type VARCHAR)"
    )
    for run in (0, 1):
        connection.execute(
            "INSERT INTO completions SELECT ?, 0, i, 'row-' || i, 0, 'What is 2+2?', ?, "
            "CASE WHEN list_contains(?, i) THEN 'prompt_empty' END FROM range(1, ?) t(i)",
            [run, text, list(failed), rows + 1],
        )
    return connection


def chosen_lines(connection: duckdb.DuckDBPyConnection) -> list[int]:
    found = connection.execute("SELECT line FROM chosen ORDER BY place").fetchall()
    return [line for (line,) in found]


def test_all_rows_are_held_when_the_limit_allows() -> None:
    connection = connection_with(rows=50, failed=[3])

    choice = choose_rows(connection, limit=50)

    assert chosen_lines(connection) == list(range(1, 51))
    assert choice.describe() == "All 50 rows are here."


def test_rows_with_an_error_are_kept_first_and_the_rest_is_drawn_in_prompt_order() -> None:
    connection = connection_with(rows=400, failed=[7, 311])

    choice = choose_rows(connection, limit=40)

    lines = chosen_lines(connection)
    assert len(lines) == 40
    assert {7, 311} <= set(lines)
    assert lines == sorted(lines)
    assert (choice.rows, choice.kept, choice.failed, choice.failed_kept) == (400, 40, 2, 2)
    assert "2 of the 2 rows with an error" in choice.describe()
    assert "38 of the 398 others" in choice.describe()


def test_errors_take_a_quarter_of_the_places_and_no_more_than_their_share_of_the_others() -> None:
    connection = connection_with(rows=400, failed=range(1, 201))

    choice = choose_rows(connection, limit=40)

    # 10 places are theirs; of the other 30 about half (190 of 390 rows) fall to them by digest.
    assert 15 <= choice.failed_kept <= 35
    assert choice.kept == 40


def test_the_same_rows_are_chosen_whatever_was_answered() -> None:
    first, second = connection_with(rows=400, text="4"), connection_with(rows=400, text="wrong")

    choose_rows(first, limit=25)
    choose_rows(second, limit=25)

    assert chosen_lines(first) == chosen_lines(second)


def test_a_smaller_limit_chooses_a_part_of_what_a_larger_one_chooses() -> None:
    small, large = connection_with(rows=400), connection_with(rows=400)

    choose_rows(small, limit=10)
    choose_rows(large, limit=100)

    assert set(chosen_lines(small)) < set(chosen_lines(large))


def test_rows_beyond_the_size_of_a_page_are_left_out_and_the_page_says_why(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(choose, "TOTAL_CHARACTERS", 20_000)
    connection = connection_with(rows=100, text="x" * 400)

    choice = choose_rows(connection, limit=100)

    assert 10 < choice.kept < 30
    assert "small enough to open" in choice.describe()


@pytest.mark.parametrize("limit", [0, 1, 3])
def test_tiny_limits_hold(limit: int) -> None:
    connection = connection_with(rows=10, failed=[1, 2, 3])

    assert choose_rows(connection, limit).kept == limit
