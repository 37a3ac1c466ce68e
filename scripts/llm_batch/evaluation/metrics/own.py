"""A user's own metric: a function in a Python file."""

from __future__ import annotations

import functools
import importlib.util
import json
import math
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.llm_batch.errors import WorkflowError
from scripts.llm_batch.evaluation.metrics.base import Failure, Item, Judgement, metric_type
from scripts.llm_batch.evaluation.metrics.processes import Judge, judge_in_processes

NO_REFERENCE = "null"


@metric_type("python")
@dataclass(frozen=True)
class OwnMetric:
    """The function is called as `score(completion, reference, row)` in a process of its own.

    `row` has id, sample, prompt, tags and finish_reason. It returns a number, true or false, or a
    pair of these and the answer (text) that samples vote on.
    """

    path: str
    function: str = "score"
    binary: bool = False
    needs_reference: bool = True
    timeout_s: float = 60
    votes: bool = True

    def accept(self, reference: Any) -> str | None:
        """Return the reference as JSON."""
        if reference is None:
            return None if self.needs_reference else NO_REFERENCE
        return json.dumps(reference, default=float)

    def judge_many(self, items: Sequence[Item]) -> Iterator[Judgement | Failure]:
        """Return what the function says of each completion."""
        factory = functools.partial(_own_judge, self.path, self.function, self.binary)
        return judge_in_processes(factory, items, self.timeout_s)


def _own_judge(path: str, name: str, binary: bool) -> Judge:
    function = _load(Path(path), name)

    def judge(text: str, accepted: Any, row: Mapping[str, Any]) -> Judgement:
        return _judgement(function(text, json.loads(accepted), dict(row)), binary)

    return judge


def _load(path: Path, name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"own_metric_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise WorkflowError(f"{path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        raise WorkflowError(f"{_place(path, error)}: {type(error).__name__}: {error}") from None
    function = getattr(module, name, None)
    if not callable(function):
        raise WorkflowError(f"{path}: has no function '{name}'; name it with 'function'")
    return function


def _place(path: Path, error: BaseException) -> str:
    """Return `file:line` where the import of `path` failed."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename).resolve() == path.resolve()]
    return f"{path}:{own[-1].lineno}" if own else str(path)


def _judgement(value: Any, binary: bool) -> Judgement:
    score, answer = value if isinstance(value, tuple) and len(value) == 2 else (value, None)
    if not isinstance(score, (bool, int, float)) or not math.isfinite(score):
        raise TypeError(f"returned {value!r}; expected a finite number, or (number, answer)")
    if binary and score not in (0, 1):
        raise ValueError(f"returned {score!r}; with binary: true a score is 0 or 1")
    if answer is not None and not isinstance(answer, str):
        raise TypeError(f"returned the answer {answer!r}; an answer is text or None")
    return Judgement(float(score), answer)
