"""The user's pip settings, for uv, which does not read them.

A cluster or a company names its package index, certificate and proxy once, in `pip.conf` or in
`PIP_*` variables. What is read here is what pip reads, in pip's order (later wins): the files of
the machine, the user, the virtual environment and `PIP_CONFIG_FILE`, in each `[global]` before
`[install]`, then the variables. Source: the chapter "Configuration" of pip's manual.

Standard library only, so that it runs before anything is installed.
"""

from __future__ import annotations

import configparser
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

UNLOADED = os.devnull
_TRUE = frozenset({"1", "true", "t", "yes", "y", "on"})
_PASSWORD = re.compile(r"(?<=://)[^/@\s]+@")

# What uv calls the same thing; a user who set one of these has told uv already.
_UV_INDEXES = ("UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL")


@dataclass(frozen=True)
class PipSettings:
    """The settings of pip that decide where packages come from; None means pip's default."""

    index_url: str | None = None
    extra_index_urls: tuple[str, ...] = ()
    find_links: tuple[str, ...] = ()
    trusted_hosts: tuple[str, ...] = ()
    no_index: bool = False
    cert: str | None = None
    client_cert: str | None = None
    proxy: str | None = None
    timeout: str | None = None
    retries: str | None = None


def config_files(environ: Mapping[str, str], prefix: Path) -> Iterator[Path]:
    """Yield the places of pip's configuration files, the weakest first.

    `prefix` is the virtual environment whose `pip.conf` counts.
    """
    if environ.get("PIP_CONFIG_FILE") == UNLOADED:
        return
    home = Path(environ.get("HOME") or Path.home())
    machine = environ.get("XDG_CONFIG_DIRS") or "/etc/xdg"
    for folder in reversed(machine.split(os.pathsep)):
        yield Path(folder) / "pip/pip.conf"
    yield Path("/etc/pip.conf")
    yield home / ".pip/pip.conf"
    yield Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "pip/pip.conf"
    yield prefix / "pip.conf"
    if environ.get("PIP_CONFIG_FILE"):
        yield Path(environ["PIP_CONFIG_FILE"])


def read_pip_settings(environ: Mapping[str, str], prefix: Path) -> PipSettings:
    """Return the settings that `pip install` would use; unreadable files count as empty."""
    sections: dict[str, dict[str, str]] = {"global": {}, "install": {}}
    for path in config_files(environ, prefix):
        for section, values in _read_file(path):
            sections.setdefault(section, {}).update(values)
    variables = {
        name[4:].lower().replace("_", "-"): value
        for name, value in environ.items()
        if name.startswith("PIP_") and value
    }
    merged = {**sections["global"], **sections["install"], **variables}
    words = {name: tuple(value.split()) for name, value in merged.items()}
    return PipSettings(
        index_url=merged.get("index-url") or None,
        extra_index_urls=words.get("extra-index-url", ()),
        find_links=words.get("find-links", ()),
        trusted_hosts=words.get("trusted-host", ()),
        no_index=merged.get("no-index", "").strip().lower() in _TRUE,
        cert=merged.get("cert") or None,
        client_cert=merged.get("client-cert") or None,
        proxy=merged.get("proxy") or None,
        timeout=merged.get("timeout") or merged.get("default-timeout") or None,
        retries=merged.get("retries") or None,
    )


def _read_file(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    parser = configparser.RawConfigParser()
    try:
        parser.read(path, encoding="utf-8")
    except (OSError, UnicodeDecodeError, configparser.Error):
        return
    for section in ("global", "install"):
        if parser.has_section(section):
            values = {name.replace("_", "-"): value for name, value in parser.items(section)}
            yield section, values


def uv_arguments(settings: PipSettings, environ: Mapping[str, str]) -> list[str]:
    """Return the options that make uv look for packages where pip does.

    pip takes the best match of all its indexes, uv by default only the first index that knows a
    name; where every file is locked by its hash, pip's way is safe.
    """
    arguments = ["--index-strategy", "unsafe-best-match"]
    if not any(environ.get(name) for name in _UV_INDEXES):
        if settings.index_url:
            arguments += ["--default-index", settings.index_url]
        for url in filter(_may_exist, settings.extra_index_urls):
            arguments += ["--index", url]
    arguments += find_links_arguments(settings, environ)
    for host in settings.trusted_hosts:
        arguments += ["--allow-insecure-host", host]
    return arguments + (["--no-index"] if settings.no_index else [])


def find_links_arguments(settings: PipSettings, environ: Mapping[str, str]) -> list[str]:
    """Return the part of `uv_arguments` that names folders and pages of files."""
    if environ.get("UV_FIND_LINKS"):
        return []
    places = filter(_may_exist, settings.find_links)
    return [word for place in places for word in ("--find-links", place)]


def _may_exist(place: str) -> bool:
    """Whether a place is elsewhere or is there: pip warns of a missing folder, uv gives up."""
    parts = urlsplit(place)
    if parts.scheme == "file":
        return Path(unquote(parts.path)).exists()
    return bool(parts.scheme) or Path(place).expanduser().exists()


def uv_variables(settings: PipSettings, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that uv needs besides; those that the user has set already win."""
    bundle = settings.cert or environ.get("REQUESTS_CA_BUNDLE") or None
    wanted = {
        "SSL_CERT_FILE": bundle if bundle and Path(bundle).is_file() else None,
        "SSL_CERT_DIR": bundle if bundle and Path(bundle).is_dir() else None,
        # pip trusts what the system trusts; uv by default only what it brings.
        "UV_SYSTEM_CERTS": "true",
        "SSL_CLIENT_CERT": settings.client_cert,
        "HTTP_PROXY": settings.proxy,
        "HTTPS_PROXY": settings.proxy,
        "UV_HTTP_TIMEOUT": settings.timeout,
        "UV_HTTP_RETRIES": settings.retries,
    }
    return {
        name: value
        for name, value in wanted.items()
        if value and not environ.get(name) and not environ.get(name.lower())
    }


def without_passwords(text: str) -> str:
    """Return `text` with user names and passwords in addresses hidden, for logs and messages."""
    return _PASSWORD.sub("***@", text)
