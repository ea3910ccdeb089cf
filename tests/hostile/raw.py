"""Plain sockets and answers read byte by byte, for requests that no HTTP library would send."""

import json
import socket
import struct
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit

from tests.live import Live

CHAT = "/v1/chat/completions"
PATIENCE = 10.0


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> dict[str, Any]:
        """OpenAI's error object; fails where the answer is none."""
        assert self.headers["content-type"] == "application/json", self
        assert self.headers["x-request-id"]
        told = json.loads(self.body)
        assert set(told) == {"error"}
        assert set(told["error"]) == {"message", "type", "param", "code"}
        error: dict[str, Any] = told["error"]
        return error


class Raw:
    """One connection. Every wait ends after `PATIENCE` seconds, with TimeoutError."""

    def __init__(self, live: Live) -> None:
        url = urlsplit(live.url)
        self._socket = socket.create_connection((url.hostname, url.port), timeout=PATIENCE)
        self._read = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    @property
    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def send(self, *parts: bytes) -> Self:
        for part in parts:
            self._socket.sendall(part)
        return self

    def send_if_open(self, part: bytes) -> bool:
        """False where the server has closed."""
        try:
            self._socket.sendall(part)
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    def end(self) -> Self:
        """Say that nothing more will be sent, and go on reading."""
        self._socket.shutdown(socket.SHUT_WR)
        return self

    def reset(self) -> None:
        """Leave at once, as a process that is killed over unread data."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def small_window(self) -> Self:
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        return self

    # ---- reading ------------------------------------------------------------------------------------------------

    def _more(self) -> bool:
        try:
            part = self._socket.recv(65536)
        except ConnectionResetError:
            part = b""
        self._read += part
        return bool(part)

    def until(self, mark: bytes) -> bytes:
        """Everything up to and with `mark`."""
        while mark not in self._read:
            assert self._more(), f"the connection ended before {mark!r}: {self._read[-500:]!r}"
        before, _, self._read = self._read.partition(mark)
        return before + mark

    def rest(self) -> bytes:
        """Everything until the server closes."""
        while self._more():
            pass
        rest, self._read = self._read, b""
        return rest

    def answer(self, *, head_only: bool = False) -> Answer:
        status_line, *lines = self.until(b"\r\n\r\n").decode("latin-1").strip().split("\r\n")
        status = int(status_line.split()[1])
        if status == 100:
            return self.answer(head_only=head_only)
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        return Answer(status, headers, b"" if head_only else self._body(headers))

    def _body(self, headers: dict[str, str]) -> bytes:
        if headers.get("transfer-encoding") != "chunked":
            size = int(headers.get("content-length", 0))
            while len(self._read) < size:
                assert self._more(), "the connection ended in a body"
            body, self._read = self._read[:size], self._read[size:]
            return body
        body = b""
        while size := int(self.until(b"\r\n"), 16):
            while len(self._read) < size + 2:
                assert self._more(), "the connection ended in a chunk"
            body, self._read = body + self._read[:size], self._read[size + 2 :]
        self.until(b"\r\n")
        return body

    @property
    def closed(self) -> bool:
        """Whether the server has nothing more to say and closes."""
        return self.rest() == b""


def head(method: str, path: str, *headers: str, host: str = "localhost") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", *headers]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def get(path: str = "/healthz", *headers: str, host: str = "localhost") -> bytes:
    return head("GET", path, *headers, host=host)


def post(body: bytes, *headers: str, path: str = CHAT) -> bytes:
    return head("POST", path, "Content-Type: application/json", f"Content-Length: {len(body)}", *headers) + body


def chat(model: str = "echo", text: str = "one two", **more: Any) -> bytes:
    return json.dumps({"model": model, "messages": [{"role": "user", "content": text}], **more}).encode()


def exchange(live: Live, *parts: bytes) -> Answer:
    """One request and its answer on a connection of its own."""
    with Raw(live) as raw:
        return raw.send(*parts).answer()
