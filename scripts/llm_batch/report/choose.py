"""Which rows the page's browser holds when it cannot hold all: the same in every report."""

from __future__ import annotations

from dataclasses import dataclass

import duckdb

from scripts.llm_batch.report import numbers

FAILED_SHARE = 4
"""At most one row in so many is kept for having failed; the others are drawn evenly."""

TEXT_CHARACTERS = 20_000
"""A longer text is cut here, and the page says so."""

COMPLETION_CHARACTERS = 25
"""What a completion adds besides its text: numbers in some ten columns."""

TOTAL_CHARACTERS = 80_000_000
"""Rows are left out beyond this, so that a browser can open the page."""


@dataclass(frozen=True)
class Choice:
    """How many rows there are and were kept, and how many of each failed in some run."""

    rows: int
    kept: int
    failed: int
    failed_kept: int
    limit: int
    cut_for_size: bool

    def describe(self) -> str:
        """Return the rule by which rows were chosen, in words."""
        if self.kept == self.rows:
            return f"All {numbers.count(self.rows)} rows are here."
        others, others_kept = self.rows - self.failed, self.kept - self.failed_kept
        why = "so that the page stays small enough to open" if self.cut_for_size else ""
        limit = why or f"the config's report.rows is {numbers.count(self.limit)}"
        failed = ""
        if self.failed:
            kept, of = numbers.count(self.failed_kept), numbers.count(self.failed)
            failed = f"{kept} of the {of} rows with an error in some run, and "
        return (
            f"{numbers.count(self.kept)} of {numbers.count(self.rows)} rows are here ({limit}): "
            f"{failed}{numbers.count(others_kept)} of the {numbers.count(others)} "
            f"{'others' if self.failed else 'rows'}, drawn by the SHA-256 of their id, without "
            "regard to what was answered. All rows are in each run's completions.parquet."
        )


def choose_rows(connection: duckdb.DuckDBPyConnection, limit: int) -> Choice:
    """Make table `chosen` (data, line, place in prompt order) and return how it was chosen."""
    connection.execute(
        "CREATE TABLE all_rows AS SELECT data, line, any_value(row) AS row, "
        "bool_or(error_type IS NOT NULL) AS failed, "
        f"sum(least(length(coalesce(text, '')), {TEXT_CHARACTERS}) + {COMPLETION_CHARACTERS}) "
        f"+ 2 * least(max(length(coalesce(prompt, ''))), {TEXT_CHARACTERS}) AS characters "
        "FROM completions GROUP BY data, line"
    )
    rows, failed = _counts(connection, "all_rows")
    connection.execute(
        "CREATE TABLE ranked AS SELECT *, row_number() OVER (ORDER BY "
        f"(failed AND failed_rank <= {limit // FAILED_SHARE}) DESC, digest, data, line) "
        "AS rank FROM ("
        "SELECT *, row_number() OVER (PARTITION BY failed ORDER BY digest, data, line) "
        "AS failed_rank FROM (SELECT *, sha256(row) AS digest FROM all_rows))"
    )
    connection.execute(
        "CREATE TABLE chosen AS SELECT data, line, failed, row_number() OVER "
        "(ORDER BY data, line) - 1 AS place FROM (SELECT *, sum(characters) OVER "
        "(ORDER BY rank) AS so_far FROM ranked) "
        f"WHERE rank <= {limit} AND so_far <= {TOTAL_CHARACTERS}"
    )
    kept, failed_kept = _counts(connection, "chosen")
    return Choice(rows, kept, failed, failed_kept, limit, kept < min(rows, limit))


def _counts(connection: duckdb.DuckDBPyConnection, table: str) -> tuple[int, int]:
    found = connection.execute(f"SELECT count(*), count(*) FILTER (failed) FROM {table}").fetchone()
    return (int(found[0]), int(found[1])) if found else (0, 0)
