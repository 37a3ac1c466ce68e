"""The user's conda settings: where channels are mirrored, proxies, certificates, being offline.

No conda program is needed. What is read is what conda reads, later wins: the files of the machine,
the user, the active environment and `CONDARC`, then the variables `CONDA_*`; of micromamba's also
`mirrored_channels`. Source: the chapter "Settings" of conda's manual.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from scripts.llm_batch.environments.conda_pins import CondaPin

_TRUE = frozenset({"1", "true", "t", "yes", "y", "on"})
_FALSE = frozenset({"0", "false", "f", "no", "n", "off"})


@dataclass(frozen=True)
class CondaSettings:
    """The settings that decide where archives come from; empty means conda's default.

    `verify` is True, False or the path of a certificate bundle, `timeout` in seconds.
    """

    channel_alias: str | None = None
    custom_channels: Mapping[str, str] = field(default_factory=dict)
    mirrored_channels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    proxies: Mapping[str, str] = field(default_factory=dict)
    pkgs_dirs: tuple[Path, ...] = ()
    verify: bool | str = True
    offline: bool = False
    timeout: float = 60.0


def config_files(environ: Mapping[str, str]) -> Iterator[Path]:
    """Yield the places of conda's configuration files, the weakest first."""
    home = Path(environ.get("HOME") or Path.home())
    yield Path("/etc/conda/.condarc")
    yield Path("/etc/conda/condarc")
    if environ.get("CONDA_ROOT"):
        yield Path(environ["CONDA_ROOT"]) / ".condarc"
    config = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    yield config / "conda/.condarc"
    yield config / "conda/condarc"
    yield home / ".conda/.condarc"
    yield home / ".condarc"
    yield home / ".mambarc"
    if environ.get("CONDA_PREFIX"):
        yield Path(environ["CONDA_PREFIX"]) / ".condarc"
    if environ.get("CONDARC"):
        yield Path(environ["CONDARC"])


def read_conda_settings(environ: Mapping[str, str]) -> CondaSettings:
    """Return the settings that conda would use; unreadable files count as empty."""
    merged: dict[str, Any] = {}
    for path in config_files(environ):
        for key, value in _read_file(path).items():
            known = merged.get(key)
            merged[key] = (
                {**known, **value} if isinstance(known, dict) and isinstance(value, dict) else value
            )
    for key in ("channel_alias", "ssl_verify", "offline", "remote_read_timeout_secs"):
        if environ.get(f"CONDA_{key.upper()}"):
            merged[key] = environ[f"CONDA_{key.upper()}"]
    if environ.get("CONDA_PKGS_DIRS"):
        merged["pkgs_dirs"] = environ["CONDA_PKGS_DIRS"].replace(",", os.pathsep).split(os.pathsep)
    return _settings(merged)


def _settings(merged: Mapping[str, Any]) -> CondaSettings:
    mirrors = _mapping(merged, "mirrored_channels")
    timeout = str(merged.get("remote_read_timeout_secs", ""))
    return CondaSettings(
        channel_alias=str(merged["channel_alias"]) if merged.get("channel_alias") else None,
        custom_channels={n: str(url) for n, url in _mapping(merged, "custom_channels").items()},
        mirrored_channels={name: tuple(map(str, _list(urls))) for name, urls in mirrors.items()},
        proxies={name: str(url) for name, url in _mapping(merged, "proxy_servers").items()},
        pkgs_dirs=tuple(Path(str(p)).expanduser() for p in _list(merged.get("pkgs_dirs")) if p),
        verify=_switch(merged.get("ssl_verify"), True),
        offline=_switch(merged.get("offline"), False) is True,
        timeout=float(timeout) if timeout.replace(".", "", 1).isdigit() else 60.0,
    )


def _mapping(merged: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = merged.get(key)
    return {str(name): entry for name, entry in value.items()} if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _switch(value: Any, otherwise: bool) -> bool | str:
    text = str(value).strip()
    if value is None or text.lower() in _TRUE:
        return otherwise if value is None else True
    # Anything else that conda takes for ssl_verify is a bundle, or `truststore`: the system's.
    return False if text.lower() in _FALSE else text if "/" in text else True


def _read_file(path: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}


def addresses(pin: CondaPin, settings: CondaSettings) -> list[str]:
    """Return where an archive may be, the user's places first; its hash decides in any case."""
    name = pin.channel
    bases = list(settings.mirrored_channels.get(name, ()))
    if name in settings.custom_channels:
        bases.append(f"{settings.custom_channels[name].rstrip('/')}/{name}")
    if settings.channel_alias:
        bases.append(f"{settings.channel_alias.rstrip('/')}/{name}")
    bases.append(pin.base)
    urls = dict.fromkeys(f"{base.rstrip('/')}/{pin.subdir}/{pin.file}" for base in bases)
    return [url for url in urls if not settings.offline or url.startswith("file://")]
