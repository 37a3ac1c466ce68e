"""A prompts file becomes the same ledgers and requests however the work is divided."""

from __future__ import annotations

import json
import os
import signal
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scripts.llm_batch.config.records import Prompts
from scripts.llm_batch.errors import WorkflowError
from scripts.llm_batch.expansion import Expansion, expand_file, useful_processes
from scripts.llm_batch.ledger import Expanded, NumberedRows, Requester
from scripts.llm_batch.requests import sampling_key

SAMPLINGS: dict[str, dict[str, Any]] = {
    "greedy": {"params": {"temperature": 0, "max_tokens": 16}, "n": 1},
    "warm": {"params": {"temperature": 0.7, "max_tokens": 8}, "n": 3, "seed": 0},
}


def expansion(folder: Path, data: bytes, limit: int | None = None) -> Expansion:
    path = folder / "prompts.jsonl"
    path.write_bytes(data)
    prompts = Prompts(
        name="p",
        path=str(path),
        template="{{ q }}",
        messages=None,
        chat_template_kwargs={},
        reference="a",
        id="id",
        limit=limit,
        on_too_long="error",
    )
    requesters = {
        run: Requester(sampling_key(sampling), "error", number)
        for number, (run, sampling) in enumerate(SAMPLINGS.items())
    }
    return Expansion(prompts, requesters, folder / "scratch")


def expanded(made: Expansion, processes: int, block_bytes: int) -> dict[str, pa.Table]:
    """Return the ledger of each run, and the requests of all."""
    blocks = list(expand_file(made, processes, block_bytes))
    assert blocks == list(range(len(blocks)))
    tables: dict[str, pa.Table] = {}
    for run in SAMPLINGS:
        parts = [pa.ipc.open_stream(made.ledger(block, run).read_bytes()) for block in blocks]
        tables[run] = pa.concat_tables([part.read_all() for part in parts]).combine_chunks()
    requests = pa.concat_tables([pq.read_table(made.requests(block)) for block in blocks])
    tables["requests"] = requests.sort_by([(name, "ascending") for name in requests.schema.names])
    return tables


ROWS = st.one_of(
    st.sampled_from([b"", b" ", b"{broken", b"[1]", b"{}", b'{"q": null}', b'{"id": "x"}']),
    st.builds(
        lambda word, name, answer: json.dumps({"q": word, "id": name, "a": answer}).encode(),
        st.sampled_from(["one", "two", "", "{{ q }}", "\u2028é"]),
        st.sampled_from([None, "x", "y", "x#3", 7]),
        st.sampled_from([None, 1.5, "b", [1, {"c": 2}]]),
    ),
)


@settings(deadline=None)
@given(
    rows=st.lists(ROWS, min_size=1, max_size=20),
    limit=st.one_of(st.none(), st.integers(1, 20)),
    block_bytes=st.integers(1, 300),
    piece_bytes=st.integers(1, 300),
)
def test_blocks_of_any_size_make_the_same_tables(
    rows: list[bytes], limit: int | None, block_bytes: int, piece_bytes: int
) -> None:
    data = b"\xef\xbb\xbf" + b"\n".join(rows)
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
        whole = expanded(expansion(Path(one), data, limit), 1, len(data))
        with mock.patch("scripts.llm_batch.expansion.PIECE_BYTES", piece_bytes):
            blocks = expanded(expansion(Path(two), data, limit), 1, block_bytes)
    assert all(blocks[name].equals(whole[name]) for name in whole)


@pytest.mark.parametrize("limit", [None, 250])
def test_several_processes_make_the_same_tables(tmp_path: Path, limit: int | None) -> None:
    lines = []
    for number in range(400):
        row = {"id": f"q{number % 150}", "q": f"question {number % 130}", "a": number}
        lines.append(json.dumps(row) if number % 17 else "{broken")
    data = "\n".join(lines).encode()
    made = []
    for name, processes in (("one", 1), ("three", 3)):
        folder = tmp_path / name
        folder.mkdir()
        made.append(expanded(expansion(folder, data, limit), processes, 1000))
    one, three = made
    assert all(three[name].equals(one[name]) for name in one)
    assert one["warm"].num_rows == 3 * (limit or 400)


class KillsItself(Requester):
    """Ends its process as the kernel does when memory is short."""

    def expand(self, rows: NumberedRows) -> Expanded:
        os.kill(os.getpid(), signal.SIGKILL)
        return super().expand(rows)


class Fails(Requester):
    """Has a defect."""

    def expand(self, rows: NumberedRows) -> Expanded:
        raise ZeroDivisionError(f"{len(rows.digests)} rows")


def test_a_killed_process_is_one_line(tmp_path: Path) -> None:
    made = expansion(tmp_path, b'{"q": "a"}\n' * 9)
    killed = KillsItself(sampling_key(SAMPLINGS["greedy"]), "error")
    with pytest.raises(WorkflowError, match="was killed, perhaps for want of memory; run again"):
        list(expand_file(Expansion(made.prompts, {"greedy": killed}, made.scratch), 2, 20))


def test_a_defect_in_a_process_is_a_defect_here(tmp_path: Path) -> None:
    made = expansion(tmp_path, b'{"q": "a"}\n' * 9)
    fails = Fails(sampling_key(SAMPLINGS["greedy"]), "error")
    with pytest.raises(ZeroDivisionError, match="rows") as raised:
        list(expand_file(Expansion(made.prompts, {"greedy": fails}, made.scratch), 2, 20))
    assert "in expand" in "".join(raised.value.__notes__)


def test_a_small_file_needs_one_process(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_bytes(b"{}\n")
    assert useful_processes([path], 16) == 1
    with path.open("wb") as stream:
        stream.truncate(1 << 30)
    assert useful_processes([path], 16) == 16
    assert useful_processes([path], 1) == 1


def test_ids_that_are_repeated_are_told_with_the_first(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [json.dumps({"id": name, "q": "?", "a": "!"}) for name in ("p", "q", "q", "r", "q")]
    expanded(expansion(tmp_path, "\n".join(rows).encode()), 1, 40)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage().startswith(f"{tmp_path / 'prompts.jsonl'}: 2 rows have the id of")
    assert "'q#3'" in record.getMessage()
