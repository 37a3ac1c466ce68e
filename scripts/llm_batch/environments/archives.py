"""Conda archives, each hashed by us while it is copied to where it is used from.

rattler does not check archives that it reads from a disk, and what it leaves behind when one is
damaged looks like an environment.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import unquote, urlsplit

import requests

from scripts.llm_batch.addresses import file_sha256
from scripts.llm_batch.environments.conda_pins import CondaPin
from scripts.llm_batch.environments.conda_settings import CondaSettings, addresses
from scripts.llm_batch.environments.pip_settings import without_passwords
from scripts.llm_batch.errors import WorkflowError

AT_ONCE = 6
CHUNK = 1 << 20


def obtain(
    pins: Sequence[CondaPin],
    target: Path,
    settings: CondaSettings,
    wheelhouse: Path | None = None,
) -> list[Path]:
    """Copy or download every archive into `target`, with its sha256 checked; return the files.

    Looked for in `wheelhouse`, in the user's package caches, and then in the channels. What is
    downloaded stays in the first cache, so that a build that failed does not load it again. Raises
    `WorkflowError` that says of every place why it did not do.
    """
    target.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(lambda pin: _obtain(pin, target, settings, wheelhouse), pins))


def _obtain(pin: CondaPin, target: Path, settings: CondaSettings, wheelhouse: Path | None) -> Path:
    place = target / pin.file
    failures = []
    if place.is_file() and file_sha256(place) == pin.sha256:
        return place
    for source, chunks in _sources(pin, settings, wheelhouse):
        try:
            found = _write(chunks, place)
        except (OSError, requests.RequestException) as error:
            failures.append(f"{source}: {_reason(error)}")
            continue
        if found == pin.sha256:
            _keep(place, cache_folder(settings, os.environ), source)
            return place
        failures.append(
            f"{source}: its sha256 is {found[:12]}…, locked is {pin.sha256[:12]}…: changed, or "
            "damaged on the way"
        )
    place.unlink(missing_ok=True)
    if settings.offline and not failures:
        failures.append("conda's setting `offline` forbids to look in the channel")
    raise WorkflowError(
        f"conda package {pin.file}: {without_passwords('; '.join(failures))}; check the network, "
        "name a mirror (channel_alias or mirrored_channels in .condarc), or fill a folder with "
        "`python -m scripts.lock_environment NAME --download DIR` and give it as wheelhouse=DIR, "
        "or do without the layer (conda: false in the config's section environments)"
    )


def _sources(
    pin: CondaPin, settings: CondaSettings, wheelhouse: Path | None
) -> Iterator[tuple[str, Iterable[bytes]]]:
    folders = [*([wheelhouse] if wheelhouse else []), *settings.pkgs_dirs]
    for folder in [*folders, cache_folder(settings, os.environ)]:
        if (folder / pin.file).is_file():
            yield str(folder / pin.file), _file_chunks(folder / pin.file)
    for url in addresses(pin, settings):
        parts = urlsplit(url)
        if parts.scheme == "file":
            yield url, _file_chunks(Path(unquote(parts.path)))
        elif wheelhouse is None:
            logging.info("loading %s", without_passwords(url))
            yield url, _url_chunks(url, settings)


def _file_chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            yield chunk


def _url_chunks(url: str, settings: CondaSettings) -> Iterator[bytes]:
    verify = settings.verify
    bundle = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("SSL_CERT_FILE")
    with requests.get(
        url,
        stream=True,
        timeout=settings.timeout,
        verify=bundle if verify is True and bundle else verify,
        proxies=dict(settings.proxies) or None,
    ) as response:
        response.raise_for_status()
        yield from response.iter_content(CHUNK)


def _write(chunks: Iterable[bytes], place: Path) -> str:
    """Write what comes to `place`; return its sha256."""
    digest = hashlib.sha256()
    with place.open("wb") as stream:
        for chunk in chunks:
            digest.update(chunk)
            stream.write(chunk)
    return digest.hexdigest()


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "not there"
    response = getattr(error, "response", None)
    if response is not None:
        return f"HTTP status {response.status_code}"
    return " ".join(str(error).split())[:200] or type(error).__name__


def cache_folder(settings: CondaSettings, environ: Mapping[str, str]) -> Path:
    """Return where downloaded archives stay: conda's own first cache, or one of ours."""
    if settings.pkgs_dirs:
        return settings.pkgs_dirs[0]
    home = Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "llm-batch-inference/conda"


def _keep(place: Path, cache: Path, source: str) -> None:
    """Keep what was downloaded; a cache that cannot be written to is no error."""
    if "://" not in source or source.startswith("file://"):
        return
    with contextlib.suppress(OSError):
        cache.mkdir(parents=True, exist_ok=True)
        temporary = cache / f".{place.name}.{os.getpid()}"
        temporary.unlink(missing_ok=True)
        try:
            os.link(place, temporary)
        except OSError:
            temporary.write_bytes(place.read_bytes())
        temporary.replace(cache / place.name)
