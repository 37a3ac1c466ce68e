"""Requests of a task: each line of its prompts file has the sampling that the harness asks for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from scripts.llm_batch.addresses import canonical_json, read_json
from scripts.llm_batch.ledger import Expanded, NumberedRows, Requester, SamplingText
from scripts.llm_batch.requests import sampling_key


class TaskRequester:
    """Expands rows like `Requester`, each line under the sampling that holds from there on.

    `segments` are the samplings in task.json; `number` is the place of the first among all
    samplings of the batch, the others follow.
    """

    samples = 1

    def __init__(
        self,
        segments: Sequence[Mapping[str, Any]],
        sampling: Mapping[str, Any],
        number: int,
        adapter: str | None,
    ) -> None:
        numbers: dict[str, int] = {}
        self._requesters: list[Requester] = []
        for segment in segments:
            text = canonical_json(segment["params"])
            if text not in numbers:
                numbers[text] = len(numbers)
                key = sampling_key({**sampling, "params": segment["params"]})
                place = number + numbers[text]
                self._requesters.append(Requester(key, "error", place, adapter))
        self._lines = np.asarray([segment["line"] for segment in segments])
        self._which = [numbers[canonical_json(segment["params"])] for segment in segments]

    @property
    def texts(self) -> list[SamplingText]:
        """JSON that the requests of each sampling have in common."""
        return [requester.text for requester in self._requesters]

    @property
    def seeded(self) -> bool:
        """Whether any request has a seed."""
        return any(requester.seeded for requester in self._requesters)

    def expand(self, rows: NumberedRows) -> Expanded:
        """Return ledger rows and requests of `rows`."""
        parts = [requester.expand(part) for requester, part in self._parts(rows)]
        return Expanded(
            pa.concat_batches([part.ledger for part in parts]),
            pa.concat_batches([part.requests for part in parts]),
        )

    def _parts(self, rows: NumberedRows) -> Iterator[tuple[Requester, NumberedRows]]:
        lines = rows.table.column("line").to_numpy()
        segments = np.searchsorted(self._lines, lines, side="right") - 1
        starts = np.flatnonzero(np.diff(segments, prepend=-1))
        for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
            part = slice(int(start), int(end))
            table = rows.table.slice(part.start, part.stop - part.start)
            cut = NumberedRows(table, rows.digests[part], rows.occurrences[part])
            yield self._requesters[self._which[segments[start]]], cut


def task_requester(
    prompts: Path, sampling: Mapping[str, Any], number: int, adapter: str | None
) -> TaskRequester:
    """Return the requester of the task whose prompts file is `prompts`."""
    record = read_json(prompts.with_name("task.json"))
    return TaskRequester(record["samplings"], sampling, number, adapter)
