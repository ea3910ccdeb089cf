"""Who may ask, and how much: API keys, their scopes and limits, checked after routing and before a body is read."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from litestar.datastructures import Headers
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, ReceiveMessage, Scope, Send

from config.key import Key, KeyLimits, digest
from config.key import Scope as Scoped
from config.server import Limits
from server.api import faults
from server.api.limits import Account
from server.errors import BodyTooLarge, HearthError, NotAuthenticated, NotPermitted
from server.models.caller import CALLER

Needed = Scoped | Literal["any"]
"""What a route needs: a scope, or any key, where what is asked says which scope that needs."""

_UNAUTHORISED = 1008
"""WebSocket's close code for a policy that was not kept."""


@dataclass(frozen=True)
class _Held:
    """A key and the account of its holder."""

    key: Key
    account: Account


class KeyRing:
    """The keys in force, by their SHA-256, so that looking one up takes as long for a near miss as for a far one.

    `declare` changes them while requests run: those under way go on, new ones meet the new keys.
    """

    def __init__(self) -> None:
        self._held: dict[str, _Held] = {}
        self._all: Account | None = None
        self._asks = False

    def declare(self, keys: Iterable[Key], limits: Limits, *, asks: bool) -> None:
        """`asks` says whether a key is needed, even where there is none; once one was, it stays so until the end.

        What a holder of the same name has used this minute stays used.
        """
        before = {held.key.name: held.account for held in self._held.values()}
        after = {}
        for key in keys:
            account = before.get(key.name) or Account(key.name, key.limits, limits)
            account.set(key.limits, limits)
            account.scopes = key.scopes
            after[key.digest] = _Held(key, account)
        left = {held.key.name for held in after.values()}
        for name, account in before.items():
            account.revoked = name not in left
        self._held = after
        self._asks = self._asks or asks
        everybody = self._all or Account("", KeyLimits(), limits)
        everybody.set(KeyLimits(), limits)
        self._all = everybody if everybody.limited else None

    @property
    def idle(self) -> bool:
        """Whether there is nothing to check: anybody may ask, as often as they like."""
        return not self._asks and self._all is None

    def account(self, headers: Mapping[str, str], scope: Needed) -> Account | None:
        """Whose request it is; None for anybody's, without limits.

        Raises NotAuthenticated for no or a wrong key, NotPermitted for one without `scope`.
        """
        if not self._asks:
            return self._all
        secrets = secrets_of(headers)
        if not secrets:
            raise NotAuthenticated("This server needs an API key: send it as `Authorization: Bearer KEY`.")
        held = next((held for secret in secrets if (held := self._held.get(digest(secret)))), None)
        if held is None:
            raise NotAuthenticated("The API key is not one of this server's keys.")
        key = held.key
        if key.expires is not None and key.expires <= datetime.now(UTC):
            raise NotAuthenticated(f"The key `{key.name}` expired at {key.expires.isoformat()}.")
        if scope != "any" and scope not in key.scopes and "admin" not in key.scopes:
            raise NotPermitted(f"The key `{key.name}` does not have the scope `{scope}`.")
        return held.account

    def opens(self, headers: Mapping[str, str], scope: Scoped) -> bool:
        """Whether a request may see what needs `scope`."""
        try:
            self.account(headers, scope)
        except (NotAuthenticated, NotPermitted):
            return False
        return True


def secrets_of(headers: Mapping[str, str]) -> list[str]:
    """The keys a request carries: OpenAI's clients send a bearer token, Anthropic's an x-api-key, some send both."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    bearer = token.strip() if scheme.lower() == "bearer" else ""
    return [secret for secret in (bearer, headers.get("x-api-key", "")) if secret]


class Gate:
    """Checks the scope that a route's handler declares as `opt["needs"]`; handlers without it are open to all.

    Middleware and not a guard of the framework, which copies the handler for every request and check.
    """

    def __init__(self, app: ASGIApp, keys: KeyRing) -> None:
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        needs: Needed | None = scope["route_handler"].opt.get("needs")
        if needs is None or self._keys.idle:
            await self._app(scope, receive, send)
            return
        headers = Headers.from_scope(scope)
        try:
            account = self._keys.account(headers, needs)
            if account is not None and needs != "admin":  # who looks after a server is not locked out by its limits
                account.admit()
                receive = _bounded(receive, headers, account)
        except HearthError as error:
            if scope["type"] != ScopeType.WEBSOCKET:
                raise
            await _refuse(scope, receive, send, error)
            return
        if account is None:
            await self._app(scope, receive, send)
            return
        token = CALLER.set(account)
        try:
            await self._app(scope, receive, _telling(send, account) if account.limited else send)
        finally:
            CALLER.reset(token)


def _telling(send: Send, account: Account) -> Send:
    """Adds what is left of the limits to an answer."""

    async def told(message: Message) -> None:
        if message["type"] == "http.response.start":
            added = [(name.encode(), value.encode()) for name, value in account.told().items()]
            message["headers"] = [*(pair for pair in message["headers"] if not _limits(pair)), *added]
        await send(message)

    return told


def _limits(header: tuple[bytes, bytes]) -> bool:
    """Whether it stands there already: a fault tells the limits as they were when it was raised."""
    return header[0].startswith(b"x-ratelimit-")


def _bounded(receive: Receive, headers: Headers, account: Account) -> Receive:
    """Holds a body to the key's own limit, whether it says its length or not."""
    limit = account.body
    if limit is None:
        return receive
    error = BodyTooLarge(f"The request body is larger than the {limit} bytes that the key `{account.name}` may send.")
    said = headers.get("content-length", "")
    if said.isdecimal() and int(said) > limit:
        raise error
    read = 0

    async def counted() -> ReceiveMessage:
        nonlocal read
        message = await receive()
        if message["type"] == "http.request":
            read += len(message["body"])
            if read > limit:
                raise error
        return message

    return counted


async def _refuse(scope: Scope, receive: Receive, send: Send, error: HearthError) -> None:
    """Answer a handshake with the fault where the server can, else close it."""
    await receive()  # the handshake itself, which has to be heard before it is answered
    if "websocket.http.response" not in (scope.get("extensions") or {}):
        await send({"type": "websocket.close", "code": _UNAUTHORISED, "reason": error.code})
        return
    body = faults.body(error)
    headers = {"content-type": "application/json", "content-length": str(len(body)), **faults.headers(error)}
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "websocket.http.response.start", "status": error.status, "headers": pairs})
    await send({"type": "websocket.http.response.body", "body": body, "more_body": False})
