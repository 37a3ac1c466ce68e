"""A stand-in for the Hugging Face hub: it speaks what `huggingface_hub` 2.4 asks of the real one.

Two servers, as there are two: the hub (listings, small files, redirects) and a store for the
bodies of LFS files at another origin, which must never see a token. Faults are injected by
`StandInHub.faults`. Not here: the Xet protocol (a repository can be offered by Xet, and
its token is then refused), uploads, everything that is not about reading files.

    python -m tests.hub.stand_in_hub FOLDER OWNER/NAME    serve a folder until Ctrl-C
"""

from __future__ import annotations

import argparse
import json
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from tests.hub.stand_in_repos import StandInFile, StandInRepo

PAGE = 4
"""Entries of a page of a listing; few, so that the tests turn pages."""

CHUNK = 16_384

_API = re.compile(
    r"^/api/(models|datasets)/([^/]+/[^/]+)(?:/(revision|tree|refs)"
    r"(?:/([^/]+)(?:/(.+))?)?)?$"
)
_RESOLVE = re.compile(r"^/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)$")
_CACHED = re.compile(r"^/api/resolve-cache/(models|datasets)/([^/]+/[^/]+)/([0-9a-f]{40})/(.+)$")


@dataclass
class Fault:
    """What goes wrong with the next `times` requests whose path matches `path`.

    `status` answers with an error instead; `cut_after` bytes the connection drops; `bytes_per_s`
    slows a body down; `flip` is the position of a byte that is sent with one bit turned.
    """

    path: str
    times: int = 1
    method: str | None = None
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    cut_after: int | None = None
    bytes_per_s: int | None = None
    flip: int | None = None


@dataclass(frozen=True)
class Asked:
    """One request that the stand-in has seen."""

    server: str
    method: str
    path: str
    range: str | None
    token: str | None


class StandInHub:
    """Repositories, users and faults; `url` goes into HF_ENDPOINT."""

    def __init__(self) -> None:
        self.repos: dict[tuple[str, str], StandInRepo] = {}
        self.renamed: dict[str, str] = {}
        self.users: dict[str, str] = {}
        self.faults: list[Fault] = []
        self.asked: list[Asked] = []
        self.sent: dict[str, int] = {}
        self.url = ""
        self.store_url = ""
        self._lock = threading.Lock()

    def repo(self, name: str, kind: str = "models", **settings: Any) -> StandInRepo:
        """Return the repository of this name, made if it is not there."""
        return self.repos.setdefault((kind, name), StandInRepo(kind, name, **settings))

    def note(self, request: Asked) -> Fault | None:
        """Remember a request and return the fault that befalls it, if one does."""
        with self._lock:
            self.asked.append(request)
            for fault in self.faults:
                if fault.times > 0 and re.search(fault.path, request.path):
                    if fault.method is not None and fault.method != request.method:
                        continue
                    fault.times -= 1
                    return fault
        return None

    def count(self, path: str, size: int) -> None:
        """Count the bytes of a body that were sent."""
        with self._lock:
            self.sent[path] = self.sent.get(path, 0) + size

    def stored(self, sha256: str) -> StandInFile | None:
        """Return the LFS file of this digest."""
        for repo in self.repos.values():
            for files in repo.commits.values():
                for file in files.values():
                    if file.lfs and file.sha256 == sha256:
                        return file
        return None


class _Handler(BaseHTTPRequestHandler):
    """What both servers share: noting requests, bodies with ranges and faults."""

    protocol_version = "HTTP/1.1"
    hub: StandInHub
    server_name = ""

    def log_message(self, *_: Any) -> None:
        """Say nothing: tests read `StandInHub.asked`."""

    def do_HEAD(self) -> None:
        self._handle()

    def do_GET(self) -> None:
        self._handle()

    def _handle(self) -> None:
        authorization = self.headers.get("authorization")
        token = authorization.removeprefix("Bearer ") if authorization else None
        asked = Asked(self.server_name, self.command, self.path, self.headers.get("range"), token)
        fault = self.hub.note(asked)
        try:
            if fault is not None and fault.status is not None:
                self.error(fault.status, "", "injected by the test", fault.headers)
            else:
                self.answer(token, fault)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def answer(self, token: str | None, fault: Fault | None) -> None:
        raise NotImplementedError

    def respond(self, status: int, headers: Mapping[str, str], body: bytes = b"") -> None:
        """Send headers, and the body unless only the head is asked for."""
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def json(self, value: Any, headers: Mapping[str, str] | None = None) -> None:
        """Answer with JSON."""
        body = json.dumps(value).encode()
        self.respond(200, {"Content-Type": "application/json", **(headers or {})}, body)

    def error(
        self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None
    ) -> None:
        """Answer with an error as the hub words it: in headers and in the body."""
        named = {"X-Error-Code": code, "X-Error-Message": message}
        body = json.dumps({"error": message}).encode()
        self.respond(status, {**{k: v for k, v in named.items() if v}, **(headers or {})}, body)

    def body(self, path: str, file: StandInFile, headers: Mapping[str, str], fault: Any) -> None:
        """Send a file, or the part that is asked for, with whatever fault befalls it."""
        start, end = _range(self.headers.get("range"), len(file.data))
        if start >= len(file.data) > 0:
            self.respond(416, {"Content-Range": f"bytes */{len(file.data)}"})
            return
        partial = self.headers.get("range") is not None
        self.send_response(206 if partial else 200)
        for name, value in headers.items():
            self.send_header(name, value)
        if partial:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(file.data)}")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(end - start))
        self.end_headers()
        if self.command == "HEAD":
            return
        for at in range(start, end, CHUNK):
            data = bytearray(file.data[at : min(at + CHUNK, end)])
            if fault is not None:
                if fault.flip is not None and at <= fault.flip < at + len(data):
                    data[fault.flip - at] ^= 1
                if fault.cut_after is not None and at - start + len(data) > fault.cut_after:
                    self.wfile.write(data[: max(0, fault.cut_after - (at - start))])
                    self.hub.count(path, max(0, fault.cut_after - (at - start)))
                    self.wfile.flush()
                    self.close_connection = True
                    return
                if fault.bytes_per_s:
                    time.sleep(len(data) / fault.bytes_per_s)
            self.wfile.write(data)
            self.hub.count(path, len(data))


class _HubHandler(_Handler):
    """Listings, small files, and redirects to the store."""

    server_name = "hub"

    def answer(self, token: str | None, fault: Fault | None) -> None:
        url = urlsplit(self.path)
        path = unquote(url.path)
        if token is not None and token not in self.hub.users:
            self.error(401, "", "Invalid credentials in Authorization header")
        elif path == "/api/whoami-v2":
            self._whoami(token)
        elif match := _API.match(path):
            kind, name, what, revision, folder = match.groups()
            self._api(kind, name, what, revision, parse_qs(url.query), token, folder or "")
        elif match := _CACHED.match(path):
            kind, name, commit, file = match.groups()
            self._file(kind, name, commit, file, token, fault)
        elif match := _RESOLVE.match(path):
            kind = "datasets" if match[1] else "models"
            self._resolve(kind, match[2], match[3], match[4], token)
        else:
            self.error(404, "", "Not Found")

    def _whoami(self, token: str | None) -> None:
        if token is None:
            self.error(401, "", "Invalid username or password.")
        else:
            self.json({"type": "user", "name": self.hub.users[token], "auth": {"type": "token"}})

    def _visible(self, kind: str, name: str, token: str | None) -> StandInRepo | None:
        """Return a repository that this token may see; else answer as the hub does."""
        if new := self.hub.renamed.get(name):
            location = quote(self.path.replace(name, new, 1), safe="/?=&%")
            self.respond(307, {"Location": location})
            return None
        repo = self.hub.repos.get((kind, name))
        user = self.hub.users.get(token or "")
        if repo is not None and (not repo.private or user in repo.readers):
            return repo
        if token is None:
            self.error(401, "RepoNotFound", "Invalid username or password.")
        else:
            self.error(404, "RepoNotFound", "Repository not found")
        return None

    def _may_read(self, repo: StandInRepo, token: str | None) -> bool:
        user = self.hub.users.get(token or "")
        if not repo.gated or user in repo.readers:
            return True
        about = f"Access to model {repo.name} is restricted"
        if token is None:
            text = f"{about}. You must have access to it and be authenticated to access it."
            self.error(401, "GatedRepo", f"{text} Please log in.")
        else:
            text = f"{about} and you are not in the authorized list."
            self.error(403, "GatedRepo", f"{text} Visit {self.hub.url}/{repo.name} to ask.")
        return False

    def _api(
        self,
        kind: str,
        name: str,
        what: str | None,
        revision: str | None,
        query: Mapping[str, list[str]],
        token: str | None,
        folder: str,
    ) -> None:
        repo = self._visible(kind, name, token)
        if repo is None:
            return
        if what == "refs":
            self.json(_refs(repo))
            return
        commit = repo.resolve(revision or "main")
        if commit is None:
            self.error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        elif what == "tree":
            self._tree(repo, commit, query, folder)
        else:
            self.json(repo.info(commit))

    def _tree(
        self, repo: StandInRepo, commit: str, query: Mapping[str, list[str]], folder: str
    ) -> None:
        recursive = query.get("recursive", ["false"])[0].lower() == "true"
        below = f"{folder}/" if folder else ""
        entries = [
            entry
            for entry in repo.listing(commit)
            if entry["path"].startswith(below)
            and (recursive or "/" not in entry["path"].removeprefix(below))
        ]
        if folder and not entries:
            self.error(404, "EntryNotFound", f"{folder} does not exist")
            return
        start = int(query.get("cursor", ["0"])[0])
        headers = {}
        if start + PAGE < len(entries):
            path = f"/api/{repo.kind}/{repo.name}/tree/{commit}/{folder}".rstrip("/")
            more = f"recursive={str(recursive).lower()}&cursor={start + PAGE}"
            headers["Link"] = f'<{self.hub.url}{path}?{more}>; rel="next"'
        self.json(entries[start : start + PAGE], headers)

    def _resolve(self, kind: str, name: str, revision: str, path: str, token: str | None) -> None:
        repo = self._visible(kind, name, token)
        if repo is None or not self._may_read(repo, token):
            return
        commit = repo.resolve(revision)
        if commit is None:
            self.error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return
        file = repo.commits[commit].get(path)
        commit_header = {"X-Repo-Commit": commit}
        if file is None:
            self.error(404, "EntryNotFound", "Entry not found", commit_header)
            return
        linked = {"X-Linked-Size": str(len(file.data)), "X-Linked-ETag": f'"{file.etag}"'}
        if file.lfs and repo.xet:
            route = f"{self.hub.url}/api/{kind}/{name}/xet-read-token/{commit}"
            linked |= {"X-Xet-Hash": file.xet_hash, "X-Xet-Refresh-Route": route}
        if file.lfs:
            location = f"{self.hub.store_url}/{file.sha256}?X-Signature=stand-in"
            self.respond(302, {"Location": location, **linked, **commit_header})
        else:
            location = f"/api/resolve-cache/{kind}/{name}/{commit}/{quote(path)}"
            self.respond(307, {"Location": location, **linked, **commit_header})

    def _file(
        self, kind: str, name: str, commit: str, path: str, token: str | None, fault: Fault | None
    ) -> None:
        repo = self._visible(kind, name, token)
        if repo is None or not self._may_read(repo, token):
            return
        file = repo.commits[commit][path]
        headers = {"ETag": f'"{file.etag}"', "X-Repo-Commit": commit}
        self.body(path, file, headers, fault)


class _StoreHandler(_Handler):
    """Bodies of LFS files, by digest."""

    server_name = "store"

    def answer(self, token: str | None, fault: Fault | None) -> None:
        digest = urlsplit(self.path).path.lstrip("/")
        file = self.hub.stored(digest)
        if token is not None:
            self.error(400, "", "a token was sent to the store")
        elif file is None:
            self.error(404, "", "no such object")
        else:
            self.body(digest, file, {"ETag": f'"{digest}"'}, fault)


def _refs(repo: StandInRepo) -> dict[str, Any]:
    def listed(names: Mapping[str, str], prefix: str) -> list[dict[str, str]]:
        return [
            {"name": name, "ref": f"refs/{prefix}/{name}", "targetCommit": commit}
            for name, commit in names.items()
        ]

    branches, tags = listed(repo.branches, "heads"), listed(repo.tags, "tags")
    return {"branches": branches, "tags": tags, "converts": []}


def _range(header: str | None, size: int) -> tuple[int, int]:
    """Return the half-open range that a Range header asks for."""
    match = re.fullmatch(r"bytes=(\d+)-(\d*)", header or "")
    if match is None:
        return 0, size
    return int(match[1]), min(size, int(match[2]) + 1) if match[2] else size


@contextmanager
def stand_in_hub() -> Iterator[StandInHub]:
    """Serve an empty stand-in hub until the end of the block."""
    hub = StandInHub()
    servers = []
    for base in (_HubHandler, _StoreHandler):
        handler = type(base.__name__, (base,), {"hub": hub})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        servers.append(server)
    hub.url, hub.store_url = (f"http://127.0.0.1:{server.server_address[1]}" for server in servers)
    try:
        yield hub
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()


def read_folder(folder: Path) -> dict[str, bytes]:
    """Return the files below a folder, as `StandInRepo.commit` takes them."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Serve one folder as a model until Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("name")
    arguments = parser.parse_args(argv)
    with stand_in_hub() as hub:
        commit = hub.repo(arguments.name).commit(read_folder(arguments.folder))
        print(f"HF_ENDPOINT={hub.url} repo {arguments.name} revision {commit}", flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            return 0
    return 0


if __name__ == "__main__":
    main()
