"""A small IPFS node for tests: it imports, pins and serves real blocks, and knows nothing that is not in them."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import parse_qs, urlsplit

from server.policies.backup import car, unixfs
from server.policies.backup import cid as cids
from server.policies.backup.cid import Cid


class Node:
    """`blocks` are those it has, `pins` the CIDs it keeps; `imports` counts the CAR files it was given."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.blocks: dict[Cid, bytes] = {}
        self.pins: set[str] = set()
        self.imports = 0

    def take(self, data: bytes) -> None:
        """Raises ValueError for a block whose name is not its sum's."""
        for cid, _, block in car.blocks(memoryview(data)):
            if cids.of(cid.codec, block) != cid:
                raise ValueError(f"{cid} is not its block")
            self.blocks[cid] = bytes(block)
        self.imports += 1

    def below(self, cid: Cid) -> Iterator[Cid]:
        """A block and all it links to. Raises KeyError where one is missing."""
        yield cid
        block = self.blocks[cid]
        if cid.codec == cids.DAG_PB:
            for _, link in unixfs.read(block).links:
                yield from self.below(link)

    def file(self, cid: Cid) -> bytes:
        if cid.codec == cids.RAW:
            return self.blocks[cid]
        return b"".join(self.file(link) for _, link in unixfs.read(self.blocks[cid]).links)

    def collect(self) -> None:
        """Let go of every block that no pin needs."""
        kept = {cid for pin in self.pins for cid in self.below(cids.parse(pin))}
        self.blocks = {cid: block for cid, block in self.blocks.items() if cid in kept}


class _Answer(BaseHTTPRequestHandler):
    server: "_Server"
    protocol_version = "HTTP/1.1"

    def log_message(self, *told: object) -> None:
        """Nothing: the tests look at the node."""

    def do_POST(self) -> None:
        node = self.server.node
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        asked = parse_qs(urlsplit(self.path).query)
        path = urlsplit(self.path).path
        try:
            if path == "/api/v0/dag/import":
                boundary = b"--" + self.headers["content-type"].partition("boundary=")[2].encode()
                node.take(body.partition(b"\r\n\r\n")[2].rpartition(b"\r\n" + boundary)[0])
                self._reply(200, {})
            elif path == "/api/v0/pin/add":
                list(node.below(cids.parse(asked["arg"][0])))
                node.pins.add(asked["arg"][0])
                self._reply(200, {"Pins": asked["arg"]})
            elif path == "/api/v0/pin/rm":
                node.pins.remove(asked["arg"][0])
                self._reply(200, {"Pins": asked["arg"]})
            else:
                self._reply(404, {"Message": "no such command"})
        except (KeyError, ValueError) as fault:
            self._reply(500, {"Message": f"not pinned or not found: {fault!r}", "Type": "error"})

    def do_GET(self) -> None:
        try:
            self._send(200, self.server.node.file(cids.parse(self.path.removeprefix("/ipfs/"))))
        except (KeyError, ValueError):
            self._send(404, b"not here")

    def _reply(self, status: int, body: object) -> None:
        self._send(status, json.dumps(body).encode())

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class _Server(ThreadingHTTPServer):
    node: Node


@contextmanager
def ipfs_node() -> Iterator[Node]:
    """A node on a free port, RPC and gateway at one address, until the block ends."""
    server = _Server(("127.0.0.1", 0), _Answer)
    server.node = Node(f"http://127.0.0.1:{server.server_address[1]}")
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.node
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
