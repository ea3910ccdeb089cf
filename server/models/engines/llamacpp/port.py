"""llama.cpp's own HTTP port, on 127.0.0.1 and behind a key made up at load: for what its package offers no call.

Knows the way there and back, and nothing of what is said.
"""

import contextlib
import http.client
import json
import secrets
import socket
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from server.errors import InvalidValue, ServiceError

_PATIENCE_S = 60
_EVENT = b"data: "


class Port:
    """`key` is what llama.cpp is told to ask for; `address` what it says once it listens."""

    def __init__(self) -> None:
        self.key = secrets.token_urlsafe(32)
        self.number = 0

    def open(self, address: str) -> None:
        port = urlsplit(address).port
        assert port is not None, f"llama.cpp listens at {address}"
        self.number = port

    def asked(self, path: str, body: dict[str, Any]) -> Any:
        """What is answered to one request. Raises ServiceError where nothing is, InvalidValue where it is refused."""
        connection = http.client.HTTPConnection("127.0.0.1", self.number, timeout=_PATIENCE_S)
        try:
            connection.request("POST", path, json.dumps(body), self._headers())
            answer = connection.getresponse()
            said = json.loads(answer.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise ServiceError(f"llama.cpp did not tokenise the prompt: {error}") from error
        finally:
            connection.close()
        if answer.status != http.client.OK:
            raise InvalidValue("The prompt is not valid text.", param="messages")
        return said

    def stream(self) -> "Stream":
        return Stream(http.client.HTTPConnection("127.0.0.1", self.number), self._headers())

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}


class Stream:
    """One answer that comes in events. `hang_up` may be called by any thread, and ends it at llama.cpp's too."""

    def __init__(self, connection: http.client.HTTPConnection, headers: dict[str, str]) -> None:
        self._connection = connection
        self._headers = headers
        self._over = False

    def run(self, path: str, body: bytes, heard: Callable[[bytes], bool]) -> None:
        """Blocks until the last event, or until `heard` says of one that it is enough. A refusal is an event.

        Raises OSError or HTTPException where the connection breaks, and nobody hung up.
        """
        try:
            self._connection.connect()
            if self._over:
                return
            self._connection.request("POST", path, body, self._headers)
            answer = self._connection.getresponse()
            if answer.status != http.client.OK:
                heard(answer.read())
                return
            for line in answer:
                if line.startswith(_EVENT) and heard(line[len(_EVENT) :]):
                    return
        except (OSError, http.client.HTTPException):
            if not self._over:
                raise
        finally:
            self._connection.close()

    def hang_up(self) -> None:
        self._over = True
        connected = self._connection.sock
        if connected is not None:
            with contextlib.suppress(OSError):
                connected.shutdown(socket.SHUT_RDWR)
