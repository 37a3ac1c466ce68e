"""Stage folders: a name, an identity, and the address made of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scripts.llm_batch.addresses import address


@dataclass(frozen=True)
class Stage:
    """One stage folder `results/<stage>/<name>-<address>/` and the identity it is made from."""

    stage: str
    name: str
    identity: Mapping[str, Any]
    address: str

    @property
    def folder(self) -> str:
        """`<name>-<address>`, the wildcard in the rules."""
        return f"{self.name}-{self.address}"


def make_stage(stage: str, name: str, identity: Mapping[str, Any]) -> Stage:
    """Return the stage folder of `identity` under `results/<stage>/`."""
    return Stage(stage, name, identity, address(stage, identity))
