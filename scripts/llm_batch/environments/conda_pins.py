"""The lock of a conda layer: conda's explicit format, one address and sha256 a line."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from scripts.llm_batch.errors import WorkflowError

EXPLICIT = "@EXPLICIT"

_LINE = re.compile(
    r"(?P<base>[a-z0-9+]+://\S*?)/(?P<subdir>noarch|linux-64)/"
    r"(?P<file>[^/#\s]+\.(?:conda|tar\.bz2))#(?:sha256:)?(?P<sha256>[0-9a-f]{64})"
)


@dataclass(frozen=True)
class CondaPin:
    """One archive: `base` is the address of its channel, `subdir` the folder in it."""

    base: str
    subdir: str
    file: str
    sha256: str

    @property
    def url(self) -> str:
        """The archive's own address."""
        return f"{self.base}/{self.subdir}/{self.file}"

    @property
    def channel(self) -> str:
        """The name of the channel, as conda's settings call it."""
        return self.base.rpartition("/")[2]

    @property
    def distribution(self) -> tuple[str, str, str]:
        """Name, version and build."""
        stem = re.sub(r"\.(conda|tar\.bz2)$", "", self.file)
        name, version, build = stem.rsplit("-", 2)
        return name, version, build


def read_pins(path: Path) -> list[CondaPin]:
    """Return the archives of a conda lock, in its order.

    Raises `WorkflowError` for a line that is no address with a sha256, and for a package twice.
    """
    pins = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        text = line.strip()
        if not text or text.startswith("#") or text == EXPLICIT:
            continue
        found = _LINE.fullmatch(text)
        if found is None or found["file"].count("-") < 2:
            raise WorkflowError(
                f"{path}:{number}: expected the address of a conda package with #sha256, found "
                f"'{text[:120]}'; make the lock again with `python -m scripts.lock_environment`"
            )
        pins.append(CondaPin(found["base"], found["subdir"], found["file"], found["sha256"]))
    names = [pin.distribution[0] for pin in pins]
    for name in names:
        if names.count(name) > 1:
            raise WorkflowError(f"{path}: {name} is there twice; keep one")
    return pins
