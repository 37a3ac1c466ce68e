"""Content addresses: what decides the bytes of an output decides where it lies.

`address = sha256(canonical JSON of [stage, version, identity])[:12]`, and every stage folder is
`results/<stage>/<name>-<address>/` with `identity.json` (exactly what was hashed) and, written
last, `manifest.json` (sha256 and size of every output, and facts such as host and times).
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from scripts.llm_batch.errors import WorkflowError

STAGE_VERSIONS: Mapping[str, int] = {
    "environments": 1,
    "models": 1,
    "adapters": 1,
    "datasets": 1,
    "engines": 1,
    "prompts": 1,
    "tasks": 1,
    "runs": 1,
    "batches": 1,
    "replications": 1,
    "evaluations": 2,
    "reports": 2,
}
"""Raised only when the meaning of a stage's bytes changes, never for a change of source text."""

ADDRESS_LENGTH = 12
"""Hexadecimal digits: 48 bits, a collision among a million outputs has odds below 1 in 500."""


class CanonicalError(WorkflowError):
    """A value that has no canonical JSON form was about to be hashed."""


def canonical_json(value: Any) -> str:
    """Return the one JSON text of `value`: sorted keys, no spaces, whole floats as integers.

    `0`, `0.0` and `-0.0` are one number. Raises `CanonicalError` for NaN, infinities, keys that
    are not strings and types that JSON does not have (tuples count as lists).
    """
    return json.dumps(
        _normalised(value, "$"), sort_keys=True, separators=(",", ":"), ensure_ascii=False
    )


def _normalised(value: Any, where: str) -> Any:
    if value is None or isinstance(value, (bool, str, int)):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise CanonicalError(f"{where}: {value} cannot be part of an identity; use a number")
        return int(value) if value.is_integer() else value
    if isinstance(value, Mapping):
        wrong = [key for key in value if not isinstance(key, str)]
        if wrong:
            raise CanonicalError(f"{where}: key {wrong[0]!r} is not a string")
        return {key: _normalised(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_normalised(item, f"{where}[{i}]") for i, item in enumerate(value)]
    raise CanonicalError(f"{where}: {type(value).__name__} has no JSON form")


def address(stage: str, identity: Any) -> str:
    """Return the 12-digit address of `identity` at `stage`."""
    text = canonical_json([stage, STAGE_VERSIONS[stage], identity])
    return hashlib.sha256(text.encode()).hexdigest()[:ADDRESS_LENGTH]


def folder_address(folder: Path) -> str:
    """Return the address at the end of a stage folder's name."""
    return folder.name.rpartition("-")[2]


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is synced and renamed to `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        # mkstemp makes files that only their owner can read; results are shared on a cluster.
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        raise WorkflowError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text_atomic(path: Path, text: str) -> None:
    """Write `text` (UTF-8) so that readers see the old file or the new one, never a part."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json_atomic(path: Path, value: Any) -> None:
    """Write `value` as indented JSON with sorted keys, atomically."""
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    write_text_atomic(path, text + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file of ours; a missing or torn one is a `WorkflowError`."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise WorkflowError(f"{path}: missing; run the workflow again to make it") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise WorkflowError(
            f"{path}: not valid JSON ({error}); delete its folder and run again"
        ) from None


def write_identity(folder: Path, stage: str, identity: Any) -> None:
    """Write `identity.json`; raise `WorkflowError` if the folder's name is not its address."""
    expected = address(stage, identity)
    if folder_address(folder) != expected:
        raise WorkflowError(
            f"{folder}: this identity has the address {expected}; the folder's name and what is "
            "to be made there do not belong together"
        )
    record = {"stage": stage, "version": STAGE_VERSIONS[stage], "identity": identity}
    write_json_atomic(folder / "identity.json", json.loads(canonical_json(record)))


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_manifest(folder: Path, outputs: Iterable[Path], facts: Mapping[str, Any]) -> None:
    """Write `manifest.json`, last of all: size and sha256 of each output, host, time, `facts`."""
    listed = list(outputs)
    with ThreadPoolExecutor() as threads:
        digests = list(threads.map(file_sha256, listed))
    files = {
        output.relative_to(folder).as_posix(): {"bytes": output.stat().st_size, "sha256": digest}
        for output, digest in zip(listed, digests, strict=True)
    }
    record = {
        "files": files,
        "host": platform.node(),
        "finished": utc_now(),
        "facts": dict(facts),
    }
    write_json_atomic(folder / "manifest.json", record)


def utc_now() -> str:
    """Return the time in ISO 8601, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
