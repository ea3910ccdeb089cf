"""The ring of keys as it changes, and the gate before routes that no test of the wire has yet."""

from datetime import UTC, datetime
from typing import Any, ClassVar

import msgspec
import pytest

from config.key import Key, Scope, digest
from config.server import Limits
from server.api.auth import Gate, KeyRing
from server.errors import NotAuthenticated, NotPermitted
from server.models.caller import CALLER

pytestmark = pytest.mark.anyio


def key(name: str, **more: Any) -> Key:
    return Key.model_validate({"name": name, "secret": f"sk-{name}-12345"} | more)


def bearer(name: str) -> dict[str, str]:
    return {"authorization": f"Bearer sk-{name}-12345"}


def ring(*keys: Key, limits: Limits | None = None, asks: bool = True) -> KeyRing:
    made = KeyRing()
    made.declare(keys, limits or Limits(), asks=asks)
    return made


def test_each_scope_opens_itself_and_admin_opens_all() -> None:
    scopes: tuple[Scope, ...] = ("infer", "retrieve", "ingest", "admin")
    made = ring(*(key(scope, scopes=[scope]) for scope in scopes))
    opened = {name: {scope for scope in scopes if made.opens(bearer(name), scope)} for name in scopes}
    assert opened == {name: {name} for name in scopes} | {"admin": set(scopes)}
    with pytest.raises(NotPermitted, match="`infer` does not have the scope `ingest`"):
        made.account(bearer("infer"), "ingest")


def test_without_keys_everybody_may_and_shares_one_limit() -> None:
    assert ring(asks=False).idle
    made = ring(limits=Limits(requests_per_minute=5), asks=False)
    assert not made.idle
    assert made.account({}, "infer") is made.account(bearer("anybody"), "admin") is not None


def test_a_ring_that_asks_has_no_way_back() -> None:
    made = ring(key("a"))
    made.declare((), Limits(), asks=False)
    with pytest.raises(NotAuthenticated):
        made.account({}, "infer")


def test_a_keys_file_without_keys_lets_nobody_in() -> None:
    with pytest.raises(NotAuthenticated):
        ring(asks=True).account({}, "infer")


def test_what_a_key_has_used_survives_a_new_secret_and_a_new_limit() -> None:
    made = ring(key("a", limits={"requests_per_minute": 10}))
    account = made.account(bearer("a"), "infer")
    assert account is not None
    for _ in range(4):
        account.admit()
    made.declare([key("a", secret="sk-another-12345", limits={"requests_per_minute": 20})], Limits(), asks=True)
    assert made.account(bearer("another"), "infer") is account
    assert account.told()["x-ratelimit-remaining-requests"] == "16"
    with pytest.raises(NotAuthenticated):
        made.account(bearer("a"), "infer")


def test_a_key_that_was_taken_away_ends_for_open_connections_too() -> None:
    made = ring(key("a"), key("b"))
    gone, kept = made.account(bearer("a"), "infer"), made.account(bearer("b"), "infer")
    assert gone is not None and kept is not None
    made.declare([key("b")], Limits(), asks=True)
    kept.admit()
    with pytest.raises(NotAuthenticated, match="`a` is not one of this server's keys any more"):
        gone.admit()


def test_a_key_ends_at_its_moment() -> None:
    made = ring(key("over", expires="2020-01-01"), key("good", expires=datetime(9999, 1, 1, tzinfo=UTC)))
    assert (made.opens(bearer("over"), "infer"), made.opens(bearer("good"), "infer")) == (False, True)


def test_a_hash_is_looked_up_as_its_secret_is() -> None:
    made = ring(Key.model_validate({"name": "a", "hash": digest("sk-a-12345").upper().replace("SHA", "sha")}))
    assert made.opens(bearer("a"), "infer")


# ---- the gate -------------------------------------------------------------------------------------------------------


class Route:
    opt: ClassVar = {"needs": "infer"}


async def shaken(headers: dict[str, str], extensions: dict[str, object]) -> list[dict[str, Any]]:
    """What a WebSocket's handshake is answered with; the route behind the gate accepts, under its caller's name."""
    sent: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept", "caller": CALLER.get().name})

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope: Any = {"type": "websocket", "route_handler": Route, "headers": pairs, "extensions": extensions, "state": {}}
    await Gate(app, ring(key("a"), key("b", limits={"requests_per_minute": 1})))(scope, receive, send)
    return sent


async def test_a_socket_with_a_key_opens_as_its_holder() -> None:
    assert await shaken(bearer("a"), {}) == [{"type": "websocket.accept", "caller": "a"}]
    assert CALLER.get().name == ""


async def test_a_socket_without_a_key_is_answered_401_where_the_server_can() -> None:
    start, body = await shaken(bearer("wrong"), {"websocket.http.response": {}})
    assert (start["type"], start["status"]) == ("websocket.http.response.start", 401)
    assert (b"www-authenticate", b"Bearer") in start["headers"]
    assert msgspec.json.decode(body["body"])["error"]["code"] == "invalid_api_key"


async def test_a_socket_without_a_key_is_closed_where_the_server_can_say_no_more() -> None:
    assert await shaken({}, {}) == [{"type": "websocket.close", "code": 1008, "reason": "invalid_api_key"}]
