"""Errors of the hub's client as one line each: what is wrong, the page to visit, the command."""

from __future__ import annotations

import errno
import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from scripts.llm_batch.errors import WorkflowError
from scripts.llm_batch.hub.source import Source, cache_folder, endpoint

_QUERY = re.compile(r"(https?://[^\s'\"?]+)\?[^\s'\"]*")
_BAD_TOKEN = "Invalid credentials in Authorization header"
LOGIN = "`hf auth login`"


class _WithoutQueries(logging.Filter):
    """Cuts the query off every address: those of stores are signed."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = without_queries(record.getMessage()), None
        return True


def without_queries(text: str) -> str:
    """Return a text in which no address has a query."""
    return _QUERY.sub(r"\1", text)


def quiet_client() -> None:
    """Let the hub's client log only what matters, and no signed address."""
    for name in ("httpx", "httpx2", "httpcore", "httpcore2", "filelock"):
        logging.getLogger(name).setLevel(logging.WARNING)
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    logger = logging.getLogger("huggingface_hub")
    logger.handlers.clear()
    logger.propagate = True
    for name in ("huggingface_hub.file_download", "huggingface_hub.utils._http"):
        log = logging.getLogger(name)
        if not any(isinstance(known, _WithoutQueries) for known in log.filters):
            log.addFilter(_WithoutQueries())


@contextmanager
def explained(
    source: Source, unless: Callable[[BaseException], bool] = lambda error: False
) -> Iterator[None]:
    """Turn what the hub's client raises into a `WorkflowError` of one line.

    Errors for which `unless` is true are let through.
    """
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    try:
        yield
    except (HfHubHTTPError, OfflineModeIsEnabled, httpx2.HTTPError, OSError) as error:
        if unless(error):
            raise
        raise WorkflowError(explain(error, source)) from None


def is_temporary(error: BaseException) -> bool:
    """Tell whether another try may succeed: the network, a busy hub, a body that ended early."""
    import httpx2

    chain = list(_chain(error))
    status = _status(chain)
    if status is not None:
        # A store answers 403 when the signature of an address has run out.
        expired = status in (400, 403) and not _asked_hub(chain)
        return status in (408, 429) or status >= 500 or expired
    if _first(chain, httpx2.TransportError):
        return not _first(chain, httpx2.ProxyError)
    return isinstance(error, OSError) and error.errno is None and "Consistency" in str(error)


def _asked_hub(chain: list[BaseException]) -> bool:
    for error in chain:
        response = getattr(error, "response", None)
        if response is not None:
            return str(response.url).startswith(endpoint())
    return True


def explain(error: BaseException, source: Source) -> str:
    """Return the line that tells the user what to do about an error of the client."""
    from huggingface_hub.errors import (
        GatedRepoError,
        OfflineModeIsEnabled,
        RemoteEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    chain = list(_chain(error))
    page = f"{endpoint()}/{source.page}"
    known: Any
    if any(_BAD_TOKEN in str(known) for known in chain):
        return f"{source}: the hub does not know this token ({_token_place()}); {_new_token()}"
    if known := _first(chain, GatedRepoError):
        return _gated(source, page)
    if _first(chain, RevisionNotFoundError):
        return (
            f"{source}: no such commit in {source.repo}; see {page}/commits/main, or let "
            "`python -m scripts.pin CONFIG` write the newest"
        )
    if _first(chain, RepositoryNotFoundError):
        return _not_found(source, page)
    if known := _first(chain, RemoteEntryNotFoundError):
        return f"{source}: a file of it is not there ({short(known)}); see {page}"
    if _first(chain, OfflineModeIsEnabled):
        return (
            f"{source}: not complete in {cache_folder()}, and HF_HUB_OFFLINE forbids to ask the "
            "hub; unset it, or run `snakemake --cores all models` where there is a network"
        )
    if status := _status(chain):
        return _answered(source, status)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"{source}: {cache_folder()} is full; make room there or set HF_HOME to a folder on "
            "another disk: what was fetched is kept"
        )
    if isinstance(error, OSError) and error.errno and error.filename:
        return f"{source}: {error.filename}: {error.strerror}; set HF_HOME to a folder of yours"
    return (
        f"{source}: the hub ({endpoint()}) cannot be reached: {short(chain[-1])}; check the "
        "network and proxy, or run `snakemake --cores all models` where there is a network"
    )


def _gated(source: Source, page: str) -> str:
    if _token() is None:
        return (
            f"{source}: gated; accept its terms at {page}, then log in with {LOGIN} (or set "
            "HF_TOKEN)"
        )
    return (
        f"{source}: gated, and this account ({_token_place()}) may not read it; ask for access at "
        f"{page}"
    )


def _not_found(source: Source, page: str) -> str:
    kind = "data set" if source.kind == "dataset" else "model"
    if _token() is None:
        return (
            f"{source}: the hub has no {kind} of this name, or it is private; check {page}, and "
            f"for a private one log in with {LOGIN} (or set HF_TOKEN)"
        )
    return (
        f"{source}: the hub has no {kind} of this name, or it is private and this account "
        f"({_token_place()}) may not see it; check {page}"
    )


def _answered(source: Source, status: int) -> str:
    if status == 429:
        return f"{source}: the hub's rate limit is used up; try again in some minutes"
    if status in (401, 403):
        return (
            f"{source}: the hub refuses (HTTP {status}) with {_token_place()}; the token needs "
            f"the permission to read this repository: see {endpoint()}/settings/tokens"
        )
    return f"{source}: the hub answers with HTTP {status}; try again later"


def _token() -> str | None:
    from huggingface_hub import get_token

    return get_token()


def _token_place() -> str:
    """Say where the token comes from, never what it is."""
    if os.environ.get("HF_TOKEN") or os.environ.get("HUGGING_FACE_HUB_TOKEN"):
        return "from HF_TOKEN"
    from huggingface_hub import constants

    return f"from {constants.HF_TOKEN_PATH}" if _token() else "without a token"


def _new_token() -> str:
    return f"make one at {endpoint()}/settings/tokens and log in with {LOGIN} (or set HF_TOKEN)"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and what it came from."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _first(chain: list[BaseException], kind: type[BaseException]) -> BaseException | None:
    return next((error for error in chain if isinstance(error, kind)), None)


def _status(chain: list[BaseException]) -> int | None:
    for error in chain:
        response = getattr(error, "response", None)
        if response is not None:
            return int(response.status_code)
    return None


def short(error: BaseException) -> str:
    """Return what an error says, on one line, without the queries of addresses."""
    return without_queries(" ".join(str(error).split()))[:200] or type(error).__name__
