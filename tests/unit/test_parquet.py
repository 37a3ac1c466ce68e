"""The bytes of a Parquet file follow from its rows alone."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scripts.llm_batch import parquet
from scripts.llm_batch.errors import WorkflowError
from scripts.llm_batch.parquet import write_table

SCHEMA = pa.schema(
    [("text", pa.string()), ("token_ids", pa.list_(pa.int32())), ("error_type", pa.string())]
)


def rows(count: int, width: int = 3) -> pa.Table:
    return pa.table(
        {
            "text": [None if n % 7 == 3 else f"{n:02}" * width for n in range(count)],
            "token_ids": [None if n % 5 == 2 else [n] * (n % 4) for n in range(count)],
            "error_type": [None] * count,
        },
        schema=SCHEMA,
    )


@pytest.fixture
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "UNIT_ROWS", 8)
    monkeypatch.setattr(parquet, "GROUP_ROWS", 32)
    monkeypatch.setattr(parquet, "GROUP_BYTES", 1000)


@pytest.mark.usefixtures("small_groups")
@settings(deadline=None)
@given(cuts=st.lists(st.integers(0, 100), max_size=8))
def test_batches_of_any_size_make_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("parquet")
    table = rows(100)
    ends = [0, *sorted(cuts), 100]
    parts = [table.slice(a, b - a) for a, b in pairwise(ends)]
    batches = [batch for part in parts for batch in part.to_batches()]
    assert write_table(folder / "one", table.to_batches(), SCHEMA) == 100
    assert write_table(folder / "many", batches, SCHEMA) == 100
    assert (folder / "one").read_bytes() == (folder / "many").read_bytes()
    assert pq.read_table(folder / "one").equals(table)


@pytest.mark.usefixtures("small_groups")
@pytest.mark.parametrize(("width", "groups"), [(3, [32, 32, 32, 4]), (40, [16] * 6 + [4])])
def test_row_groups_end_at_so_many_rows_or_bytes(
    tmp_path: Path, width: int, groups: list[int]
) -> None:
    write_table(tmp_path / "file", rows(100, width).to_batches(), SCHEMA)
    metadata = pq.ParquetFile(tmp_path / "file").metadata
    found = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
    assert found == groups


def test_columns_may_come_in_any_order(tmp_path: Path) -> None:
    table = rows(10)
    (batch,) = table.select(["error_type", "text", "token_ids"]).to_batches()
    write_table(tmp_path / "file", [batch], SCHEMA)
    assert pq.read_table(tmp_path / "file").equals(table)


def test_no_rows_are_a_file_with_columns(tmp_path: Path) -> None:
    assert write_table(tmp_path / "file", [], SCHEMA) == 0
    assert pq.read_schema(tmp_path / "file").equals(SCHEMA)


def test_what_fails_leaves_no_file(tmp_path: Path) -> None:
    def broken() -> object:
        yield from rows(10).to_batches()
        raise WorkflowError("no more")

    with pytest.raises(WorkflowError, match="no more"):
        write_table(tmp_path / "file", broken(), SCHEMA)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())
