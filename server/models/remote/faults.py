"""What another server says went wrong, as an UpstreamFault: its status, type, code, message and Retry-After as told."""

import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec

from server.errors import UpstreamFault

_MOST_CHARACTERS = 2000


class Teller:
    """Words faults of one model's server, with the model's name, and with *** wherever the key for it would stand."""

    def __init__(self, model: str, url: str, secret: str | None) -> None:
        self._model = model
        self._url = url
        self._secret = secret

    def refused(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamFault:
        """For an answer that is not 200: the server's own error object, or what can be made out of another body."""
        told = _object(body)
        error = told.get("error", told)
        if status < 400:
            return UpstreamFault(self._noted(f"{self._url} answered with status {status}, no answer and no error"))
        fault = self.told(error, status) if error else None
        if fault is None:
            text = body.decode("utf-8", "replace").strip()
            fault = self._fault(text or f"status {status} without a word", status)
        fault.retry_after = _retry_after(headers)
        return fault

    def told(self, error: object, status: int = 502) -> UpstreamFault | None:
        """For an error object, or a bare message; None where there is neither."""
        match error:
            case str(message) if message:
                return self._fault(message, status)
            case {"message": str(message)} | {"detail": str(message)} | {"error": str(message)}:
                assert isinstance(error, Mapping)
                said = error.get("status", status) if status == 502 else status
                sound = isinstance(said, int) and 400 <= said < 600
                return self._fault(message, said if sound else status, error)
            case {"detail": list(found)}:
                return self._fault(msgspec.json.encode(found).decode(), status)
            case _:
                return None

    def broken(self, how: str) -> UpstreamFault:
        """For a server that broke off, or said what nobody can read."""
        return UpstreamFault(self._clean(f"The server behind the model `{self._model}` {how}."))

    def reason(self, error: Exception) -> str:
        """What an exception of the HTTP client says, fit to be shown."""
        return self._clean(str(error).strip() or type(error).__name__)

    def _fault(self, message: str, status: int, error: Mapping[str, Any] | None = None) -> UpstreamFault:
        told = error or {}
        code = told.get("code")
        return UpstreamFault(
            self._noted(message),
            status=status,
            kind=told["type"] if isinstance(told.get("type"), str) and told["type"] else None,
            code=str(code) if isinstance(code, str | int) and code != "" else None,
            param=told["param"] if isinstance(told.get("param"), str) else None,
        )

    def _noted(self, message: str) -> str:
        return f"{self._clean(message)} (told by the server behind the model `{self._model}`)"

    def _clean(self, text: str) -> str:
        text = text if self._secret is None else text.replace(self._secret, "***")
        return text[:_MOST_CHARACTERS]


def _object(body: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds, from either form of the header."""
    value = headers.get("retry-after", "").strip()
    if value.replace(".", "", 1).isdigit() and len(value) < 12:
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None
