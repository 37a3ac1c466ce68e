"""Where an engine's environment comes from: a file in envs/, a file of the user's, or one that is
there already.

Asked while the Snakefile is parsed, so nothing heavy is imported here and no interpreter is started
that has been asked before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.llm_batch.config.records import Environment
from scripts.llm_batch.environments.external import ExternalRecords
from scripts.llm_batch.environments.identity import environment_identity, load_spec


@dataclass(frozen=True)
class Source:
    """An environment to build or to record.

    `identity` decides its address, `device` is `cpu` or `cuda`. `locks` are the files that decide
    its bytes, `words` what `build_environment` is told besides: both are placement.
    """

    identity: Mapping[str, Any]
    device: str
    locks: tuple[str, ...]
    words: tuple[str, ...]


def build_words(source: Source, wheelhouse: str | None) -> list[str]:
    """Return what `build_environment` is told; nothing is built of an interpreter that is there."""
    if wheelhouse is None or not source.locks:
        return list(source.words)
    return [*source.words, "--wheelhouse", wheelhouse]


def find_source(
    name: str, settings: Mapping[str, Environment], envs: Path, records: ExternalRecords
) -> Source:
    """Return the source of the environment that an engine calls `name`.

    `settings` is the config's section `environments`, `envs` the project's folder of locks. Raises
    `ConfigError` if there is no such environment, or an interpreter lacks vLLM or torch.
    """
    own = settings.get(name)
    if own is not None and own.python is not None:
        found = records.record(Path(own.python))
        return Source(found.identity, found.device, (), ("--python", own.python))
    file = None if own is None or own.file is None else Path(own.file)
    folder, known = (envs, name) if file is None else (file.parent, file.stem)
    identity = environment_identity(known, folder, conda=own is None or own.conda)
    locks = tuple(str(folder / lock) for lock in identity["lock_sha256"])
    device = load_spec(known, folder).device
    return Source(identity, device, locks, ("--environments-dir", str(folder)))
