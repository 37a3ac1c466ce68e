"""A prompts file becomes ledgers and requests, block by block, in as many processes as there are.

Only one thing about a row depends on the rows before it: which ids and prompts came already. So a
process renders a block, tells this one what its rows are, is told which of them are repeated, and
writes the block's tables into a scratch folder. The result is the same with any number of
processes and blocks of any size.
"""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
import signal
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from scripts.llm_batch.config.records import Prompts
from scripts.llm_batch.cycles import cycles_ignored
from scripts.llm_batch.data.selection import Selector
from scripts.llm_batch.data.source import PromptSource
from scripts.llm_batch.errors import WorkflowError
from scripts.llm_batch.ledger import (
    REQUESTS,
    DigestedRows,
    Requester,
    digest_rows,
    identities,
    join_rows,
    number_rows,
    own_names,
)
from scripts.llm_batch.numbering import Identities, NamesAndLines, Numbers, RowNumbering
from scripts.llm_batch.occurrences import text_hashes
from scripts.llm_batch.prompts import renderer_of
from scripts.llm_batch.rows import BLOCK_BYTES, Block, parse_block
from scripts.llm_batch.tables import LEDGER
from scripts.llm_batch.tasks.requester import TaskRequester

PART_REQUESTS = 50_000
"""Requests made at a time; a row may have thousands of samples."""

PIECE_BYTES = 256 << 10
"""Rendered at a time: as Python objects these rows stay in the processor's cache."""

PROCESS_BYTES = 8 * BLOCK_BYTES
"""Each process takes half a second to start: less than what so much data takes to be rendered."""


log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Expansion:
    """One prompts section and what asks it: a requester for each run, by the run's address.

    `scratch` is a folder for this section alone.
    """

    prompts: Prompts
    requesters: Mapping[str, Requester | TaskRequester]
    scratch: Path
    source: PromptSource | None = None

    @property
    def data(self) -> PromptSource:
        """The data of the prompts: the file of the section, whole, unless said otherwise."""
        return self.source or PromptSource((Path(self.prompts.path),))

    @property
    def seeded(self) -> bool:
        """Whether any request has a seed."""
        return any(requester.seeded for requester in self.requesters.values())

    def ledger(self, block: int, run: str) -> Path:
        """Return where the ledger rows of a block lie, as an Arrow stream."""
        return self.scratch / f"{block}.{run}.ledger"

    def requests(self, block: int) -> Path:
        """Return where the requests of a block lie, of all runs together."""
        return self.scratch / f"{block}.requests.parquet"


class BlockExpander:
    """Renders blocks, and expands each as soon as its rows are numbered."""

    def __init__(self, expansion: Expansion) -> None:
        self._expansion = expansion
        data = expansion.data
        self._renderer = renderer_of(expansion.prompts, data.examples, data.unit)
        self._select = None if data.selection.everything else Selector(data.selection, data.unit)
        self._named = expansion.prompts.id is not None
        self._rows: DigestedRows | None = None
        # What hashing imports is then among what the search for cycles passes over.
        text_hashes(())

    def render(self, block: Block) -> Identities:
        """Render a block, keep it, and return what numbers its rows."""
        pieces = []
        for piece in block.pieces(PIECE_BYTES):
            rows = parse_block(piece)
            if self._select is not None:
                rows = self._select(rows)
            rendered = self._renderer.render_all(rows)
            pieces.append(digest_rows(rows.lines, rendered, self._named))
        self._rows = join_rows(pieces)
        return identities(self._rows, self._expansion.seeded)

    def own_names(self) -> NamesAndLines:
        """Return the names and lines of the block that was rendered last."""
        return own_names(self._rendered())

    def expand(self, block: int, numbers: Numbers) -> None:
        """Write the ledgers and requests of the block that was rendered last."""
        rows, self._rows = number_rows(self._rendered(), numbers), None
        requests = self._expansion.requests(block)
        settings = {"compression": "lz4", "use_dictionary": False, "write_statistics": False}
        with pq.ParquetWriter(requests, REQUESTS, **settings) as writer:
            for run, requester in self._expansion.requesters.items():
                ledger = self._expansion.ledger(block, run)
                with (
                    pa.OSFile(str(ledger), "wb") as file,
                    pa.ipc.new_stream(file, LEDGER) as stream,
                ):
                    for part in rows.parts(max(1, PART_REQUESTS // requester.samples)):
                        expanded = requester.expand(part)
                        stream.write_batch(expanded.ledger)
                        writer.write_batch(expanded.requests)

    def _rendered(self) -> DigestedRows:
        if self._rows is None:
            raise RuntimeError("a block is rendered first")
        return self._rows


def expand_file(
    expansion: Expansion, processes: int, block_bytes: int = BLOCK_BYTES
) -> Iterator[int]:
    """Expand a prompts file and yield the numbers of its blocks, in order, as they are written.

    Raises `WorkflowError` if the file cannot be read or a process dies.
    """
    expansion.scratch.mkdir(parents=True)
    blocks = enumerate(expansion.data.blocks(block_bytes))
    numbering = RowNumbering(expansion.prompts.limit, expansion.seeded)
    if processes > 1:
        yield from _expand_together(expansion, blocks, numbering, processes)
    else:
        yield from _expand_alone(expansion, blocks, numbering)
    if numbering.repeated:
        log.warning(
            "%s: %d rows have the id of a row before; their line is added to it, so the first is "
            "%r now. Give each row an id of its own if something looks rows up by it",
            expansion.prompts.path,
            numbering.repeated,
            numbering.first_repeated,
        )


def useful_processes(paths: Sequence[Path], threads: int) -> int:
    """Return how many of `threads` processes are worth their start for the files at `paths`."""
    size = sum(path.stat().st_size for path in paths)
    return max(1, min(threads, size // PROCESS_BYTES + 1))


def available_threads() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0))


def _expand_alone(
    expansion: Expansion, blocks: Iterator[tuple[int, Block]], numbering: RowNumbering
) -> Iterator[int]:
    expander = BlockExpander(expansion)
    with cycles_ignored():
        for number, block in blocks:
            numbers = numbering.number(expander.render(block), expander.own_names)
            expander.expand(number, numbers)
            gc.collect()
            yield number
            if numbering.full:
                return


def _expand_together(
    expansion: Expansion, blocks: Iterator[tuple[int, Block]], numbering: RowNumbering, count: int
) -> Iterator[int]:
    """Expand blocks in `count` processes; whichever is free takes the next."""
    with _workers(expansion, count) as workers:
        rendering: dict[Connection, int] = {}
        rendered: dict[int, tuple[Connection, Identities]] = {}
        written: set[int] = set()
        next_numbered = next_written = 0

        def feed(worker: Connection) -> None:
            rendering.pop(worker, None)
            item = None if numbering.full else next(blocks, None)
            if item is not None:
                _send(worker, item)
                rendering[worker] = item[0]

        for worker in workers:
            feed(worker)
        while rendering:
            ready = wait(list(rendering))
            for worker in [worker for worker in rendering if worker in ready]:
                message, block = _receive(worker), rendering[worker]
                if isinstance(message, Identities):
                    rendered[block] = worker, message
                else:
                    written.add(block)
                    feed(worker)
            while next_numbered in rendered:
                worker, message = rendered.pop(next_numbered)
                _send(worker, numbering.number(message, partial(_ask_names, worker)))
                next_numbered += 1
            while next_written in written:
                written.remove(next_written)
                yield next_written
                next_written += 1


@contextmanager
def _workers(expansion: Expansion, count: int) -> Iterator[list[Connection]]:
    # Not forked: a process with threads, as DuckDB's and Arrow's, cannot be forked safely.
    context = multiprocessing.get_context("spawn")
    with ExitStack() as stack:
        workers = []
        for _ in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs, expansion), daemon=True)
            process.start()
            stack.callback(process.join)
            stack.callback(process.terminate)
            stack.callback(ours.close)
            theirs.close()
            workers.append(ours)
        yield workers


def _work(connection: Connection, expansion: Expansion) -> None:
    """Expand the blocks that come through `connection`, until it is closed."""
    # Ctrl-C goes to all processes of a terminal; the first of them ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    expander = BlockExpander(expansion)
    with cycles_ignored():
        while True:
            try:
                number, block = connection.recv()
                connection.send(expander.render(block))
                while (numbers := connection.recv()) is None:
                    connection.send(expander.own_names())
                expander.expand(number, numbers)
                gc.collect()
                connection.send(None)
            except EOFError:
                return
            except Exception as error:
                error.add_note(traceback.format_exc())
                connection.send(error)


def _ask_names(worker: Connection) -> NamesAndLines:
    _send(worker, None)
    names: NamesAndLines = _receive(worker)
    return names


def _send(worker: Connection, message: object) -> None:
    try:
        worker.send(message)
    except (BrokenPipeError, ConnectionResetError):
        raise _killed() from None


def _receive(worker: Connection) -> Any:
    try:
        message = worker.recv()
    except (EOFError, ConnectionResetError):
        raise _killed() from None
    if isinstance(message, Exception):
        raise message
    return message


def _killed() -> WorkflowError:
    return WorkflowError(
        "a process that renders prompts was killed, perhaps for want of memory; "
        "run again with fewer --threads"
    )
