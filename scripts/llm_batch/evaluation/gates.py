"""Gates: what an experiment has to show, or else it ends with an error.

A gate passes only if the data show what it asks for, at its level. Too few rows to tell is not a
pass, and the verdict says which of the two it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scripts.llm_batch.evaluation.comparing import Scored
from scripts.llm_batch.evaluation.paired import is_binary, one_sided_bound, rows_needed
from scripts.llm_batch.evaluation.statistics import bootstrap_mean, wilson

Floats = NDArray[np.float64]


def judge_gates(gates: Sequence[Mapping[str, Any]], runs: Sequence[Scored]) -> list[dict[str, Any]]:
    """Return the verdict of each gate: `passed`, and a message that says by which figures."""
    by_name = {run.name: run for run in runs}
    return [_judge(gate, by_name) for gate in gates]


def _judge(gate: Mapping[str, Any], runs: Mapping[str, Scored]) -> dict[str, Any]:
    run, metric = runs[gate["run"]], gate["metric"]
    own = run.rows[metric].dropna()
    if gate.get("baseline") is None:
        return _judge_value(gate, own.to_numpy(dtype=np.float64))
    base = runs[gate["baseline"]].rows[metric].dropna()
    both = pd.concat([base, own], axis=1, join="inner")
    left, right = (both.iloc[:, side].to_numpy(dtype=np.float64) for side in (0, 1))
    return _judge_difference(gate, left, right)


def _judge_difference(gate: Mapping[str, Any], left: Floats, right: Floats) -> dict[str, Any]:
    """Non-inferiority: the one-sided bound of the difference lies above -margin."""
    sign = -1.0 if gate["lower_is_better"] else 1.0
    margin, level = float(gate["margin"]), float(gate["level"])
    asked = (
        f"{gate['run']} is not worse than {gate['baseline']} by more than {margin:g} on "
        f"{gate['metric']}"
    )
    if len(left) == 0:
        return _verdict(gate, False, f"{asked}: not shown, they have no scored row in common")
    difference = sign * (right - left)
    shares = is_binary(left) and is_binary(right)
    value, bound = float(difference.mean()), one_sided_bound(difference, shares, level)
    opposite = one_sided_bound(-difference, shares, level)
    figures = {"rows": len(left), "difference": sign * value, "bound": bound}
    told = f"difference {sign * value:+.4f} over {len(left)} rows"
    if bound is None:
        return _verdict(gate, False, f"{asked}: not shown, one row is not enough", **figures)
    told += f", at worst {sign * bound:+.4f} (one-sided, {level:.4g})"
    if bound >= -margin:
        return _verdict(gate, True, f"{asked}: {told}", **figures)
    if opposite is not None and -opposite < -margin:
        return _verdict(gate, False, f"{asked}: refuted, {told}", **figures)
    return _verdict(
        gate,
        False,
        f"{asked}: not shown, {told}{_needed(difference, value + margin, level)}",
        **figures,
    )


def _judge_value(gate: Mapping[str, Any], values: Floats) -> dict[str, Any]:
    """Pass if the one-sided bound of the mean lies on the right side of the limit."""
    least = gate.get("at_least")
    sign, limit = (1.0, float(least)) if least is not None else (-1.0, float(gate["at_most"]))
    level = float(gate["level"])
    word = "at least" if sign > 0 else "at most"
    asked = f"{gate['run']} has {word} {limit:g} on {gate['metric']}"
    if len(values) == 0:
        return _verdict(gate, False, f"{asked}: not shown, it has no scored row")
    low, high = _mean_interval(values, 2 * level - 1)
    mean, bound, opposite = float(values.mean()), *((low, high) if sign > 0 else (high, low))
    figures = {"rows": len(values), "value": mean, "bound": bound}
    told = f"{mean:.4f} over {len(values)} rows, at worst {bound:.4f} (one-sided, {level:.4g})"
    if sign * bound >= sign * limit:
        return _verdict(gate, True, f"{asked}: {told}", **figures)
    if sign * opposite < sign * limit:
        return _verdict(gate, False, f"{asked}: refuted, {told}", **figures)
    needed = _needed(values, sign * (mean - limit), level)
    return _verdict(gate, False, f"{asked}: not shown, {told}{needed}", **figures)


def _mean_interval(values: Floats, level: float) -> tuple[float, float]:
    if is_binary(values):
        return wilson(float(values.sum()), len(values), level)
    if np.ptp(values) == 0:
        return float(values[0]), float(values[0])
    return bootstrap_mean(values, level)


def _needed(values: Floats, distance: float, level: float) -> str:
    rows = rows_needed(values, distance, level)
    return "" if rows is None else f"; about {rows} rows like these would show it"


def _verdict(
    gate: Mapping[str, Any], passed: bool, message: str, **figures: float | None
) -> dict[str, Any]:
    return {**gate, **figures, "passed": passed, "message": message}
