"""`environment: auto`: the newest environment that the driver and the GPUs support."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from scripts.llm_batch.doctor.variants import Variant, age
from scripts.llm_batch.doctor.verdicts import Verdict, supports
from scripts.llm_batch.errors import ConfigError
from scripts.llm_batch.machine.records import Machine

AUTO = "auto"


class Choice(NamedTuple):
    """The environment that `auto` stands for here, and why, in one line."""

    name: str
    reason: str

    def __str__(self) -> str:
        return f"environment auto is {self.name} here: {self.reason}"


def choose(variants: Sequence[Variant], machine: Machine) -> Choice:
    """Return the newest environment that runs on every card, else the newest that runs on some.

    Only what belongs to the machine counts: a full disk does not change what `auto` means. Without
    a GPU it is the one for CPUs. Raises `ConfigError` if there are GPUs and nothing runs on them:
    that a run takes days on a CPU instead is nothing to decide in silence.
    """
    ordered = sorted(variants, key=age)
    if not machine.gpus:
        return _for_cpu(ordered, machine)
    verdicts = [supports(variant, machine) for variant in ordered if not variant.is_cpu]
    for status in ("runs", "limited"):
        for verdict in verdicts:
            if verdict.status == status:
                return Choice(verdict.variant.name, _why(verdict, verdicts, machine))
    first = f"{verdicts[0].variant.name}: {verdicts[0].reason}" if verdicts else "there is none"
    raise ConfigError(
        f"environment auto: no environment for GPUs runs here ({first}); "
        "python -m scripts.doctor says more, or name cpu"
    )


def _for_cpu(ordered: Sequence[Variant], machine: Machine) -> Choice:
    reason = machine.inventory.reason or "no GPU"
    if machine.inventory.broken:
        raise ConfigError(f"environment auto: {reason}; mend the driver, or name the environment")
    verdicts = [supports(variant, machine) for variant in ordered if variant.is_cpu]
    for verdict in verdicts:
        if verdict.status != "no":
            return Choice(verdict.variant.name, reason)
    why = verdicts[0].reason if verdicts else "envs/ has none for CPUs"
    raise ConfigError(f"environment auto: {reason}, and no environment for CPUs runs here ({why})")


def _why(chosen: Verdict, verdicts: Sequence[Verdict], machine: Machine) -> str:
    """Say what the choice rests on, and why the next newer one was passed over."""
    cards = ", ".join(
        dict.fromkeys(f"{gpu.name} ({gpu.compute_capability})" for gpu in machine.gpus)
    )
    words = [f"the newest that driver {machine.inventory.driver_version} and {cards} support"]
    newer = verdicts[: verdicts.index(chosen)]
    if newer and (why := newer[-1].deciding):
        words.append(f"not {newer[-1].variant.name}: {why.text}")
    if chosen.status == "limited":
        words.append(f"but {chosen.reason}")
    return "; ".join(words)
