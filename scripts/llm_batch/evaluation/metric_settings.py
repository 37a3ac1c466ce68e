"""What a metric type and one of its settings are. Standard library only."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

SettingKind = Literal["boolean", "integer", "number", "object", "string"]


@dataclass(frozen=True)
class Setting:
    """One setting of a metric type; `default` None means "not set" and is accepted as a value."""

    kind: SettingKind
    default: bool | int | float | str | None
    description: str
    required: bool = False
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()

    def schema(self) -> dict[str, object]:
        """This setting as a JSON Schema."""
        nullable = self.default is None and not self.required
        schema: dict[str, object] = {"type": [self.kind, "null"] if nullable else self.kind}
        if not self.required:
            schema["default"] = self.default
        if self.minimum is not None:
            schema["minimum"] = self.minimum
        if self.maximum is not None:
            schema["maximum"] = self.maximum
        if self.choices:
            schema["enum"] = list(self.choices)
        schema["description"] = self.description
        return schema

    def problem(self, value: object) -> str | None:
        """Return what was expected instead of `value`, or None if `value` is accepted."""
        if value is None:
            return None if self.default is None and not self.required else self._expected()
        if isinstance(value, bool):
            accepted = self.kind == "boolean"
        elif isinstance(value, (int, float)):
            least = -math.inf if self.minimum is None else self.minimum
            most = math.inf if self.maximum is None else self.maximum
            fits = self.kind == "number" or (self.kind == "integer" and float(value).is_integer())
            accepted = math.isfinite(value) and fits and least <= value <= most
        elif isinstance(value, Mapping):
            accepted = self.kind == "object"
        else:
            accepted = isinstance(value, str) and self.kind == "string"
        if self.choices:
            accepted = accepted and value in self.choices
        return None if accepted else self._expected()

    def _expected(self) -> str:
        if self.choices:
            return "one of: " + ", ".join(self.choices)
        limit = "" if self.minimum is None else f" of at least {self.minimum:g}"
        limit += "" if self.maximum is None else f" and at most {self.maximum:g}"
        return f"{'an' if self.kind[0] in 'io' else 'a'} {self.kind}{limit}"


@dataclass(frozen=True)
class MetricType:
    """What a metric type measures, and its settings by name."""

    summary: str
    settings: Mapping[str, Setting]
    needs_reference: bool = True
