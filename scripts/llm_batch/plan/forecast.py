"""What a plan will cost: requests, what is there already, tokens, engine starts, GPU-hours.

Requests and reuse are not guessed: the batch is made, in a scratch folder, by the code that
`shard_prompts` runs. Tokens and hours are expectations from what the same engine did before, and
are missing where it did nothing yet.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import duckdb

from scripts.llm_batch.addresses import address, read_json
from scripts.llm_batch.errors import WorkflowError
from scripts.llm_batch.expansion import available_threads
from scripts.llm_batch.plan.batches import batch_spec
from scripts.llm_batch.plan.records import BatchPlan, Plan, RunPlan
from scripts.llm_batch.plan.results import Results
from scripts.shard_prompts import Place, fill_batch

SECONDS_PER_HOUR = 3600.0


@dataclass(frozen=True)
class RunForecast:
    """One run. `requests` are different ones; `tokens` are those of answers still to be given.

    `at_most_tokens`: if every open request used its `max_tokens`; `expected_tokens`: if answers
    are as long as those of the same engine so far, None without any.
    """

    run: str
    folder: str
    completions: int
    requests: int
    reused: int
    open: int
    at_most_tokens: int
    expected_tokens: int | None
    complete: bool


@dataclass(frozen=True)
class EngineForecast:
    """All runs of one engine; a request that several of them ask counts once.

    `rate` is completion tokens per second of one engine, `start_s` the seconds of a start,
    `engine_hours` what all its processes take together; None without earlier facts.
    """

    engine: str
    folder: str
    runs: int
    requests: int
    reused: int
    open: int
    engine_starts: int
    gpus: int
    at_most_tokens: int
    expected_tokens: int | None
    rate: float | None
    start_s: float | None
    engine_hours: float | None

    @property
    def gpu_hours(self) -> float | None:
        """GPUs of one engine × hours of all its processes."""
        return None if self.engine_hours is None else self.engine_hours * self.gpus


class Pace(NamedTuple):
    """How an engine has answered so far; None where nothing is known."""

    tokens_per_request: float | None
    rate: float | None
    start_s: float | None


class Counts(NamedTuple):
    """Completions and requests of one run or batch."""

    completions: int
    requests: int
    reused: int
    open_limits: dict[int, int]
    """How many open requests there are of each `max_tokens`."""

    @property
    def at_most_tokens(self) -> int:
        """Tokens if every open request used its limit."""
        return sum(limit * count for limit, count in self.open_limits.items())

    def expected_tokens(self, pace: Pace) -> int | None:
        """Tokens at the engine's mean length, cut at each limit."""
        mean = pace.tokens_per_request
        if not self.open_limits:
            return 0
        if mean is None:
            return None
        return round(sum(min(limit, mean) * count for limit, count in self.open_limits.items()))


def forecast(plan: Plan, results: Path) -> Iterator[tuple[EngineForecast, list[RunForecast]]]:
    """Yield a forecast of each batch and of its runs; `results` is read only."""
    held = Results(plan, results)
    paces = _paces(results)
    completions: dict[str, int] = {}
    for batch in plan.batches.values():
        _refuse_unbuilt(batch, results.parent)
        pace = paces.get(batch.engine.stage.address, Pace(None, None, None))
        if all(held.is_merged(run.stage.folder) for run in batch.runs):
            found = _complete(batch, results, pace)
        elif not all(Path(run.prompts_path).exists() for run in batch.runs):
            found = _ahead(batch, plan, completions, pace)
        else:
            with tempfile.TemporaryDirectory(prefix="llm-batch-plan-") as scratch:
                found = _incomplete(batch, held, results, Path(scratch), pace)
        completions.update({run.folder: run.completions for run in found[1]})
        yield found


def _refuse_unbuilt(batch: BatchPlan, root: Path) -> None:
    """Raise `WorkflowError` for a task whose requests lm-evaluation-harness did not write yet."""
    for run in batch.runs:
        if run.task and not (root / run.task.manifest).is_file():
            raise WorkflowError(
                f"{run.stage.name}: the requests of its task are not written yet; "
                "`snakemake --cores all tasks` writes them, then plan again"
            )


def _complete(
    batch: BatchPlan, results: Path, pace: Pace
) -> tuple[EngineForecast, list[RunForecast]]:
    runs = []
    for run in batch.runs:
        facts = read_json(results / "runs" / run.stage.folder / "facts.json")
        counts = Counts(facts["completions"], facts["requested"], facts["requested"], {})
        runs.append(_run(run, counts, pace, complete=True))
    requests = sum(run.requests for run in runs)
    return _engine(batch, Counts(0, requests, requests, {}), 0, pace), runs


def _ahead(
    batch: BatchPlan, plan: Plan, completions: Mapping[str, int], pace: Pace
) -> tuple[EngineForecast, list[RunForecast]]:
    """Forecast a batch whose prompts are completions that are not there yet: at most so many."""
    derived = {one.path: one for one in plan.derived.values()}
    counted = []
    for run in batch.runs:
        sampling = run.stage.identity["sampling"]
        judged = derived.get(run.prompts_path)
        rows = 0 if judged is None else len(judged.runs) * min(completions[r] for r in judged.runs)
        count = rows * int(sampling["n"])
        limits = {int(sampling["params"]["max_tokens"]): count}
        counted.append(Counts(count, count, 0, limits))
    runs = [
        _run(run, counts, pace, complete=False)
        for run, counts in zip(batch.runs, counted, strict=True)
    ]
    limits = Counter[int]()
    for counts in counted:
        limits.update(counts.open_limits)
    total = sum(counts.requests for counts in counted)
    return _engine(batch, Counts(total, total, 0, dict(limits)), batch.shards, pace), runs


def _incomplete(
    batch: BatchPlan, held: Results, results: Path, scratch: Path, pace: Pace
) -> tuple[EngineForecast, list[RunForecast]]:
    place = Place(results, scratch / "batch", scratch / "scratch", available_threads())
    place.folder.mkdir()
    place.scratch.mkdir()
    made = fill_batch(batch_spec(batch), place)
    starts = sum(shard["requests"] > 0 for shard in made["shards"])
    runs = [
        _run(
            run,
            _counts(place.folder, [run.stage.address]),
            pace,
            complete=held.is_merged(run.stage.folder),
        )
        for run in batch.runs
    ]
    every = _counts(place.folder, [run.stage.address for run in batch.runs])
    return _engine(batch, every, starts, pace), runs


def _counts(folder: Path, runs: list[str]) -> Counts:
    """Count the completions and requests of some runs in a batch's folder."""
    ledgers = [str(folder / "ledger" / f"{run}.parquet") for run in runs]
    with duckdb.connect(":memory:") as connection:
        connection.read_parquet(ledgers).create_view("ledger")
        connection.read_parquet(str(folder / "reused.parquet")).create_view("reused")
        connection.execute(
            "CREATE TABLE asked AS SELECT DISTINCT key, max_tokens FROM ledger WHERE key NOT NULL"
        )
        (completions,) = _row(connection, "SELECT count(*) FROM ledger")
        (requests,) = _row(connection, "SELECT count(*) FROM asked")
        limits = connection.execute(
            "SELECT max_tokens, count(*) FROM asked ANTI JOIN reused USING (key, max_tokens) "
            "GROUP BY max_tokens ORDER BY max_tokens"
        ).fetchall()
    left = {int(limit): int(count) for limit, count in limits}
    return Counts(completions, requests, requests - sum(left.values()), left)


def _row(connection: duckdb.DuckDBPyConnection, sql: str) -> tuple[int, ...]:
    (row,) = connection.execute(sql).fetchall()
    return tuple(row)


def _run(run: RunPlan, counts: Counts, pace: Pace, complete: bool) -> RunForecast:
    return RunForecast(
        run=run.stage.name,
        folder=run.stage.folder,
        completions=counts.completions,
        requests=counts.requests,
        reused=counts.reused,
        open=counts.requests - counts.reused,
        at_most_tokens=counts.at_most_tokens,
        expected_tokens=counts.expected_tokens(pace),
        complete=complete,
    )


def _engine(batch: BatchPlan, counts: Counts, starts: int, pace: Pace) -> EngineForecast:
    expected = counts.expected_tokens(pace)
    hours: float | None = None
    if starts == 0:
        hours = 0.0
    elif expected is not None and pace.rate is not None and pace.start_s is not None:
        hours = (starts * pace.start_s + expected / pace.rate) / SECONDS_PER_HOUR
    return EngineForecast(
        engine=batch.engine.stage.name,
        folder=batch.engine.stage.folder,
        runs=len(batch.runs),
        requests=counts.requests,
        reused=counts.reused,
        open=counts.requests - counts.reused,
        engine_starts=starts,
        gpus=batch.engine.gpus,
        at_most_tokens=counts.at_most_tokens,
        expected_tokens=expected,
        rate=pace.rate,
        start_s=pace.start_s,
        engine_hours=hours,
    )


def _paces(results: Path) -> dict[str, Pace]:
    """Return the pace of each engine, by its address, from the facts of all its shards."""
    records: dict[str, list[dict[str, Any]]] = {}
    for identity in results.glob("batches/*/identity.json"):
        engine = address("engines", read_json(identity)["identity"]["engine"])
        for facts in identity.parent.glob("facts/*.json"):
            records.setdefault(engine, []).extend(read_json(facts).get("engines", []))
    return {engine: _pace(starts) for engine, starts in records.items()}


def _pace(starts: list[dict[str, Any]]) -> Pace:
    """Return the pace of the starts that ended well and answered something."""
    good = [one for one in starts if one.get("exit") == "finished" and one.get("generate_s")]
    tokens = sum(one.get("completion_tokens") or 0 for one in good)
    requests = sum(one.get("requests") or 0 for one in good)
    seconds = sum(one["generate_s"] for one in good)
    begun = [one["startup_s"]["total"] for one in good if (one.get("startup_s") or {}).get("total")]
    return Pace(
        tokens_per_request=tokens / requests if requests else None,
        rate=tokens / seconds if tokens and seconds else None,
        start_s=sum(begun) / len(begun) if begun else None,
    )
