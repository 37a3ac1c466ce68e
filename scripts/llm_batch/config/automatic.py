"""`environment: auto` in a config, replaced before anything is checked or addressed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from scripts.llm_batch.config.errors import Problem
from scripts.llm_batch.doctor.choose import AUTO, Choice
from scripts.llm_batch.errors import WorkflowError

Chooser = Callable[[], Choice]


class Resolved(NamedTuple):
    """A config in which no real engine says `auto`; what that was, None if none did."""

    config: dict[str, Any]
    choice: Choice | None
    problems: list[Problem]


def resolve_auto(config: Mapping[str, Any], choose: Chooser) -> Resolved:
    """Return `config` with the name of an environment in place of every `auto`.

    The machine is looked at only if an engine asks for it; a dummy engine never does.
    """
    engines = config.get("engines", {})
    asking = [name for name, entry in engines.items() if _asks(entry)]
    if not asking:
        return Resolved(dict(config), None, [])
    try:
        choice = choose()
    except WorkflowError as error:
        text = str(error).removeprefix("environment auto: ")
        return Resolved(dict(config), None, [Problem(("engines", asking[0], "environment"), text)])
    named = {
        name: {**entry, "environment": choice.name} if name in asking else entry
        for name, entry in engines.items()
    }
    return Resolved({**config, "engines": named}, choice, [])


def _asks(entry: Mapping[str, Any]) -> bool:
    return entry.get("environment") == AUTO and entry.get("backend", "vllm") != "dummy"
