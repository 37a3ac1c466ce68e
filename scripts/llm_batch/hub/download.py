"""Files of a commit into the user's hub cache: parallel, resumed, checked before they are there.

The hub's client fetches; since version 1.0 it begins a killed file again. Large files are the
rule here, so their bytes are kept under the client's own name for unfinished ones, continued under
the client's own lock, and become part of the cache only when their sha256 is right. Files in LFS
are fetched by HTTP ranges; those too large for that (50 GB) are left to the client and Xet.
"""

from __future__ import annotations

import glob
import logging
import os
import shutil
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from scripts.llm_batch.digests import DigestMemo
from scripts.llm_batch.errors import WorkflowError
from scripts.llm_batch.hub.checks import damage
from scripts.llm_batch.hub.listing import blob_of, blob_path
from scripts.llm_batch.hub.problems import explain, explained, is_temporary, short
from scripts.llm_batch.hub.progress import Progress
from scripts.llm_batch.hub.source import (
    HubFile,
    Source,
    cache_folder,
    endpoint,
    repository_folder,
    snapshot_folder,
)

log = logging.getLogger(__name__)

WORKERS = 8
"""Files at a time, as many as the client takes."""

TRIES = 6
"""Without a single new byte between them; the client itself tries as often each time."""

DAMAGED_TRIES = 3

LONGEST_WAIT_S = 60.0
SPARE_BYTES = 1 << 30
"""Left free on the disk of the cache."""


class DamagedError(Exception):
    """Bytes that are not those the hub promised."""


def fetch_files(source: Source, files: Sequence[HubFile], memo: DigestMemo) -> Path:
    """Bring files of a commit into the cache, checked, and return the folder with their names.

    Raises `WorkflowError`: no space, no access, no network, or bytes that stay wrong.
    """
    missing = [file for file in files if not is_there(source, file, memo)]
    if missing:
        check_space(source, missing)
        there = sum(file.size for file in files) - sum(file.size for file in missing)
        progress = Progress(sum(file.size for file in files), there)
        log.info(
            "%s: fetching %d files of %d (%.2f GB) into %s",
            source,
            len(missing),
            len(files),
            sum(file.size for file in missing) / 1e9,
            repository_folder(source),
        )
        _fetch_large(source, missing, memo, progress)
        _fetch_rest(source, missing, memo, progress)
        log.info("%s: all files are there and checked", source)
    return snapshot_folder(source)


def is_there(source: Source, file: HubFile, memo: DigestMemo) -> bool:
    """Tell whether the cache has a file with the right bytes; wrong ones are removed."""
    path = snapshot_folder(source) / file.path
    if not path.is_file():
        return False
    wrong = damage(path, file, memo)
    if wrong is None:
        return True
    log.warning("%s: %s is damaged in the cache (%s); fetching it again", source, file.path, wrong)
    forget(path)
    return False


def forget(path: Path) -> None:
    """Remove a file from the cache: its name in the snapshot and its bytes."""
    blob = blob_of(path)
    path.unlink(missing_ok=True)
    blob.unlink(missing_ok=True)


def check_space(source: Source, files: Sequence[HubFile]) -> None:
    """Raise `WorkflowError` if the disk of the cache has no room for what is to be fetched."""
    begun = {file: sum(part.stat().st_size for part in _parts(source, file)) for file in files}
    needed = sum(max(0, file.size - begun[file]) for file in files)
    folder = cache_folder()
    known = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(known).free
    if needed + min(SPARE_BYTES, needed) > free:
        raise WorkflowError(
            f"{source}: {needed / 1e9:.2f} GB are to be fetched and {folder} has {free / 1e9:.2f} "
            "GB free; make room there or set HF_HOME to a folder on another disk"
        )


def _fetch_large(
    source: Source, files: Sequence[HubFile], memo: DigestMemo, progress: Progress
) -> None:
    """Put the bytes of files in LFS into the cache, several at a time."""
    from huggingface_hub import constants

    large = [
        file for file in files if file.sha256 and file.size <= constants.MAX_HTTP_DOWNLOAD_SIZE
    ]
    # The largest first, so that the last minutes are not those of one file.
    large.sort(key=lambda file: -file.size)

    def fetch(file: HubFile) -> None:
        begun = time.monotonic()
        complete = partial(complete_blob, source, file, memo, progress)
        persist(source, file.path, complete, progress)
        log.info("%s: %s is there, %.0f s", source, file.path, time.monotonic() - begun)

    with ThreadPoolExecutor(WORKERS) as pool:
        jobs = [pool.submit(fetch, file) for file in large]
        try:
            for job in jobs:
                job.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _fetch_rest(
    source: Source, files: Sequence[HubFile], memo: DigestMemo, progress: Progress
) -> None:
    """Let the client fetch the other files and name all of them in the snapshot."""
    from huggingface_hub import snapshot_download

    def fetch() -> None:
        snapshot_download(
            source.repo,
            repo_type=source.kind,
            revision=source.revision,
            allow_patterns=[glob.escape(file.path) for file in files],
        )
        checked = {file.path for file in files if file.sha256 and blob_path(source, file).is_file()}
        for file in files:
            path = snapshot_folder(source) / file.path
            if not path.is_file():
                raise DamagedError(f"{file.path} is missing")
            wrong = None if file.path in checked else damage(path, file, memo)
            if wrong is not None:
                forget(path)
                raise DamagedError(f"{file.path}: {wrong}")

    persist(source, "small files", fetch, progress)


def persist(source: Source, what: str, fetch: Callable[[], None], progress: Progress) -> None:
    """Call `fetch` until it succeeds, with pauses, as long as some bytes still come.

    Raises `WorkflowError` for what no further try can mend, after several tries without a byte,
    and for bytes that are damaged every time.
    """
    damaged, quiet_tries, received = 0, 0, progress.received
    while True:
        try:
            with explained(source, unless=is_temporary):
                return fetch()
        except DamagedError as error:
            damaged += 1
            log.warning("%s: %s came damaged (%s)", source, what, error)
            if damaged == DAMAGED_TRIES:
                raise WorkflowError(
                    f"{source}: {what} comes damaged every time ({error}); a proxy or the disk "
                    "changes bytes: fetch it on another machine or network"
                ) from None
        except Exception as error:
            if not is_temporary(error):
                raise
            quiet_tries = 0 if progress.received > received else quiet_tries + 1
            received = progress.received
            if quiet_tries == TRIES:
                raise WorkflowError(explain(error, source)) from None
            pause = min(LONGEST_WAIT_S, 2.0**quiet_tries)
            log.info("%s: %s: %s; again in %.0f s", source, what, short(error), pause)
            time.sleep(pause)


def complete_blob(source: Source, file: HubFile, memo: DigestMemo, progress: Progress) -> None:
    """Put the bytes of a file in LFS into the cache, going on where an earlier process was killed.

    Raises `DamagedError` if the sha256 is wrong; the bytes are thrown away then.
    """
    from huggingface_hub.utils._fixes import WeakFileLock

    blob = blob_path(source, file)
    lock = cache_folder() / ".locks" / repository_folder(source).name / f"{file.etag}.lock"
    for folder in (blob.parent, lock.parent):
        folder.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(lock):
        if blob.is_file():
            if damage(blob, file, memo) is None:
                return
            blob.unlink()
        part = _claim_part(source, file)
        progress.resume(part.stat().st_size)
        _receive(source, file, part, progress)
        wrong = damage(part, file, memo)
        if wrong is not None:
            part.unlink()
            raise DamagedError(wrong)
        part.replace(blob)
        memo.learn(blob, file.etag)


def _claim_part(source: Source, file: HubFile) -> Path:
    """Return a file of this process alone that begins with what earlier ones received.

    Where a file system does not heed locks, two processes could write to one file; each has a name
    of its own, and the sha256 at the end finds what the rare theft by renaming spoils.
    """
    blob = blob_path(source, file)
    own = blob.with_name(f"{blob.name}.{uuid.uuid4().hex[:8]}.incomplete")
    for part in sorted(_parts(source, file), key=lambda part: -part.stat().st_size):
        if part.stat().st_size <= file.size:
            part.rename(own)
            return own
        part.unlink(missing_ok=True)
    own.touch()
    return own


def _parts(source: Source, file: HubFile) -> list[Path]:
    blob = blob_path(source, file)
    return list(blob.parent.glob(f"{blob.name}*.incomplete")) if file.etag else []


def _receive(source: Source, file: HubFile, part: Path, progress: Progress) -> None:
    """Append to `part` what is missing of a file."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils._headers import build_hf_headers

    url = hf_hub_url(source.repo, file.path, repo_type=source.kind, revision=source.revision)
    metadata = get_hf_file_metadata(url, retry_on_errors=True)
    if metadata.etag != file.sha256:
        raise WorkflowError(
            f"{source}: the hub lists {file.path} with sha256 {file.etag[:12]}… and serves "
            f"{str(metadata.etag)[:12]}…; do not use it before its owner explains"
        )
    headers = build_hf_headers()
    if urlsplit(metadata.location).netloc != urlsplit(endpoint()).netloc:
        headers.pop("authorization", None)
    with part.open("r+b") as stream:
        begun = stream.seek(0, os.SEEK_END)
        http_get(
            metadata.location,
            stream,
            resume_size=begun,
            headers=headers,
            expected_size=file.size,
            displayed_filename=file.path,
            tqdm_class=progress.bar(),
        )
        stream.flush()
        os.fsync(stream.fileno())
