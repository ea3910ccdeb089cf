"""A local server that speaks the Hugging Face hub's protocol, as far as fetching a model goes.

Protocol: huggingface.co/docs/hub/api (model info with blobs), and the headers huggingface_hub reads of `resolve`:
X-Repo-Commit, X-Linked-Etag, X-Linked-Size, ETag, Location, X-Error-Code. Large files are redirected to a second host,
as the hub sends them to its store.
"""

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

TOKEN = "hf_letmein12345"
_LARGE = 10_000
"""Bytes from which on a file is stored as the hub stores large ones, by sha256."""


@dataclass
class Repository:
    """What the server has under one name. `sizes` and `broken` make it lie: of a size, or by one flipped byte."""

    files: dict[str, bytes]
    licence: str | None = "apache-2.0"
    gated: bool = False
    private: bool = False
    sizes: dict[str, int] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)
    cut: dict[str, list[int]] = field(default_factory=dict)
    """Of a file, the byte before which the connection is closed, for each request in turn."""

    @property
    def commit(self) -> str:
        digest = hashlib.sha1(usedforsecurity=False)
        for name, content in sorted(self.files.items()):
            digest.update(name.encode() + content)
        return digest.hexdigest()


def of_folder(folder: Path, **more: bytes) -> Repository:
    """A repository with the files of `folder`."""
    return Repository({file.name: file.read_bytes() for file in sorted(folder.iterdir()) if file.is_file()} | more)


class Hub:
    """The running server: `asked` holds every request as "METHOD /path", and the ranges that were asked for."""

    def __init__(self, repositories: dict[str, Repository]) -> None:
        self.repositories = repositories
        self.asked: list[str] = []
        self.ranges: list[str] = []
        self.to_the_store: list[Mapping[str, str]] = []
        """The headers of every request that reached the second host."""
        self.url = ""
        self.store = ""
        self.refuses: int | None = None
        """The status that answers every request instead of what it asks for."""

    @property
    def environment(self) -> dict[str, str]:
        return {"HF_ENDPOINT": self.url, "HF_HUB_OFFLINE": "0", "HF_TOKEN": ""}


@contextmanager
def serving_hub(**repositories: Repository) -> Iterator[Hub]:
    """Serve repositories, "tests/NAME" by keyword, on loopback until the block ends."""
    hub = Hub({f"tests/{name}": each for name, each in repositories.items()})
    servers = [ThreadingHTTPServer((host, 0), _speaking(hub)) for host in ("127.0.0.1", "127.0.0.2")]
    hub.url, hub.store = (f"http://{server.server_address[0]}:{server.server_address[1]}" for server in servers)
    threads = [threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}) for server in servers]
    for thread in threads:
        thread.start()
    try:
        yield hub
    finally:
        for server, thread in zip(servers, threads, strict=True):
            server.shutdown()
            server.server_close()
            thread.join(10)


def _speaking(told: Hub) -> type[BaseHTTPRequestHandler]:
    class Speaker(_Speaker):
        hub = told

    return Speaker


class _Speaker(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name in the standard library
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append(f"{self.command} {path}")
        if self.hub.refuses is not None:
            self._refuse(self.hub.refuses, "")
            return
        match path.strip("/").split("/"):
            case ["api", "models", owner, name, "revision", revision]:
                self._info(f"{owner}/{name}", revision)
            case ["store", owner, name, *file]:
                self.hub.to_the_store.append(dict(self.headers.items()))
                self._content(self.hub.repositories[f"{owner}/{name}"], "/".join(file), {})
            case [owner, name, "resolve", revision, *file]:
                self._resolve(f"{owner}/{name}", revision, "/".join(file))
            case _:
                self._refuse(404, "")

    def _allowed(self, name: str, revision: str, *, content: bool) -> Repository | None:
        """The repository, or None where the answer has been sent; an unknown one is 401 to who shows no token."""
        known = self.headers.get("authorization") == f"Bearer {TOKEN}"
        repository = self.hub.repositories.get(name)
        if repository is None or (repository.private and not known):
            self._refuse(404 if known else 401, "RepoNotFound")
        elif content and repository.gated and not known:
            self._refuse(403 if self.headers.get("authorization") else 401, "GatedRepo")
        elif revision not in ("main", "v1", repository.commit):
            self._refuse(404, "RevisionNotFound")
        else:
            return repository
        return None

    def _info(self, name: str, revision: str) -> None:
        repository = self._allowed(name, revision, content=False)
        if repository is None:
            return
        card = {"license": repository.licence} if repository.licence else {}
        siblings = [self._sibling(repository, file) for file in sorted(repository.files)]
        body = {"id": name, "modelId": name, "sha": repository.commit, "private": repository.private}
        body |= {"gated": "manual" if repository.gated else False, "cardData": card, "siblings": siblings, "tags": []}
        self._send(200, json.dumps(body).encode(), {"Content-Type": "application/json"})

    def _sibling(self, repository: Repository, name: str) -> dict[str, object]:
        content = repository.files[name]
        size = repository.sizes.get(name, len(content))
        told: dict[str, object] = {"rfilename": name, "size": size, "blobId": _blob(content)}
        if len(content) >= _LARGE:
            told["lfs"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": size, "pointerSize": 134}
        return told

    def _resolve(self, name: str, revision: str, file: str) -> None:
        repository = self._allowed(name, revision, content=True)
        if repository is None:
            return
        if file not in repository.files:
            self._refuse(404, "EntryNotFound")
            return
        content = repository.files[file]
        headers = {"X-Repo-Commit": repository.commit, "ETag": f'"{_blob(content)}"'}
        if len(content) < _LARGE:
            self._content(repository, file, headers)
            return
        headers |= {"X-Linked-Etag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Linked-Size": str(len(content))}
        self._send(302, b"", headers | {"Location": f"{self.hub.store}/store/{name}/{file}"})

    def _content(self, repository: Repository, file: str, headers: dict[str, str]) -> None:
        content = repository.files[file]
        if file in repository.broken:
            content = content[:-1] + bytes([content[-1] ^ 1])
        start = 0
        asked = self.headers.get("Range")
        if asked is not None:
            self.hub.ranges.append(asked)
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            headers = headers | {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
        cuts = repository.cut.get(file)
        cut = max(0, cuts.pop(0) - start) if cuts and self.command == "GET" else None
        self._send(206 if asked else 200, content[start:], headers, cut)

    def _refuse(self, status: int, code: str) -> None:
        self._send(status, b"{}", {"X-Error-Code": code} if code else {})

    def _send(self, status: int, body: bytes, headers: Mapping[str, str], cut: int | None = None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:cut])
            if cut is not None:
                self.close_connection = True


def _blob(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
