"""The lock of a conda layer: solved by rattler from channels, for a machine that is described.

The result depends on the description and the channel alone: the C library is that of the
description, not this machine's, and with a date nothing younger counts.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from scripts.llm_batch.addresses import write_text_atomic
from scripts.llm_batch.environments.apart import apart
from scripts.llm_batch.environments.conda_pins import EXPLICIT
from scripts.llm_batch.environments.conda_settings import CondaSettings
from scripts.llm_batch.environments.identity import EnvironmentSpec, pin_path
from scripts.llm_batch.errors import WorkflowError

Archive = tuple[str, str]
"""Address and sha256."""

DEFAULT_ALIAS = "https://conda.anaconda.org"
"""Where a channel is that is only named, as for conda itself."""

KERNEL = "4.18"
"""The oldest Linux that the layer has to run on: that of RHEL 8, as conda-forge's sysroot."""


def lock_conda(spec: EnvironmentSpec, envs: Path, settings: CondaSettings, command: str) -> None:
    """Write `<name>.linux-64.pin.txt`. Raises `WorkflowError` if the specs cannot be met."""
    sources = [channel_address(name, settings) for name in spec.conda.channels]
    try:
        archives = apart(_solve, spec, sources)
    except WorkflowError as error:
        raise WorkflowError(
            f"{spec.name}.yaml: conda: {str(error)[:600]}; check specs, channels and network"
        ) from None
    lines = [
        f"# Made by `{command}` from {spec.name}.yaml: `conda create --file` takes it as it is.",
        f"# platform: {spec.platform}",
        EXPLICIT,
        *sorted(explicit_lines(archives, spec, settings), key=lambda line: line.rsplit("/", 1)[1]),
    ]
    write_text_atomic(pin_path(spec.name, envs), "\n".join(lines) + "\n")


def _solve(spec: EnvironmentSpec, sources: Sequence[str]) -> list[Archive]:
    import rattler

    newest = spec.conda.newest
    machine = (
        ("__unix", "0", "0"),
        ("__linux", KERNEL, "0"),
        ("__glibc", spec.glibc or spec.manylinux, "0"),
        ("__archspec", "1", "x86_64"),
    )
    solution = rattler.solve(
        sources=list(sources),
        specs=list(spec.conda.specs),
        platforms=["linux-64", "noarch"],
        virtual_packages=[
            rattler.GenericVirtualPackage(
                rattler.PackageName(name), rattler.Version(version), rattler.BuildString(build)
            )
            for name, version, build in machine
        ],
        gateway=rattler.Gateway(cache_dir=_cache()),
        exclude_newer=datetime.fromisoformat(newest) if newest else None,
    )
    return [(str(r.url), r.sha256.hex() if r.sha256 else "") for r in asyncio.run(solution)]


def _cache() -> Path:
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "llm-batch-inference/repodata"


def channel_address(name: str, settings: CondaSettings) -> str:
    """Return where a channel is looked for, by the user's settings."""
    if "://" in name:
        return name.rstrip("/")
    if settings.mirrored_channels.get(name):
        return settings.mirrored_channels[name][0].rstrip("/")
    if name in settings.custom_channels:
        return f"{settings.custom_channels[name].rstrip('/')}/{name}"
    return f"{(settings.channel_alias or DEFAULT_ALIAS).rstrip('/')}/{name}"


def explicit_lines(
    archives: Sequence[Archive], spec: EnvironmentSpec, settings: CondaSettings
) -> list[str]:
    """Return a line for each archive, under the channel's public address wherever it was found."""
    public = {
        channel_address(name, settings): name if "://" in name else f"{DEFAULT_ALIAS}/{name}"
        for name in spec.conda.channels
    }
    lines = []
    for url, sha256 in archives:
        base = next((base for base in public if url.startswith(f"{base}/")), None)
        if not sha256 or base is None:
            raise WorkflowError(f"{url}: the channel gives no sha256, or is not in conda.channels")
        lines.append(f"{public[base]}{url.removeprefix(base)}#sha256:{sha256}")
    return lines
