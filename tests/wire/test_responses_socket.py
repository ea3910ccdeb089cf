"""The Responses API over WebSocket, by the real SDK and by a plain client."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from openai import OpenAI
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from server.api.responses import websocket
from tests.live import Live, wait_for
from tests.making import TEXT
from tests.wire.conftest import Forwarding

URL = "/v1/responses"


@contextmanager
def socket(live: Live, key: str | None = None) -> Iterator[ClientConnection]:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    with connect(f"{live.url.replace('http', 'ws', 1)}{URL}", additional_headers=headers, proxy=None) as each:
        yield each


def turn(each: ClientConnection, **body: Any) -> list[dict[str, Any]]:
    """The events of one turn."""
    each.send(json.dumps({"type": "response.create", "model": "automaton", "input": "Hello"} | body))
    return list(ended(each))


def ended(each: ClientConnection) -> Iterator[dict[str, Any]]:
    """Events up to the one that ends a turn."""
    last = ("response.completed", "response.incomplete", "response.failed", "error")
    while True:
        event: dict[str, Any] = json.loads(each.recv(timeout=60))
        yield event
        if event["type"] in last:
            return


def test_a_socket_gives_the_events_of_a_stream_turn_after_turn(generating: Live) -> None:
    with socket(generating) as each:
        turns = [turn(each), turn(each)]
    for events in turns:
        assert [event["sequence_number"] for event in events] == list(range(len(events)))
        assert (events[0]["type"], events[-1]["type"]) == ("response.created", "response.completed")
        text = "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")
        assert text == events[-1]["response"]["output"][0]["content"][0]["text"] == TEXT


@pytest.mark.filterwarnings("ignore:connect:DeprecationWarning:openai")  # the SDK calls websockets the older way
def test_the_sdk_connects_and_is_answered(generating: Live) -> None:
    with OpenAI(base_url=f"{generating.url}/v1", api_key="none", max_retries=0) as sdk, sdk.responses.connect() as each:
        each.send({"type": "response.create", "model": "automaton", "input": "Hello"})
        for event in each:
            if event.type == "response.completed":
                assert event.response.output_text == TEXT
                break


def test_a_socket_goes_on_with_what_is_not_stored(generating: Live) -> None:
    with socket(generating) as each:
        first = turn(each, store=False)[-1]["response"]
        second = turn(each, store=False, input="again", previous_response_id=first["id"])[-1]["response"]
    assert second["usage"]["input_tokens"] > first["usage"]["total_tokens"]
    with socket(generating) as each:
        (error,) = turn(each, store=False, previous_response_id=second["id"])
        assert (error["type"], error["status"]) == ("error", 400)
        assert error["error"]["code"] == "previous_response_not_found"
        assert turn(each)[-1]["type"] == "response.completed", "the connection goes on"


def test_a_socket_continues_what_is_stored(generating: Live) -> None:
    with socket(generating) as each:
        first = turn(each)[-1]["response"]
    with socket(generating) as each:
        assert turn(each, previous_response_id=first["id"])[-1]["type"] == "response.completed"


def test_a_turn_that_fails_forgets_what_it_continued(generating: Live) -> None:
    orphan = [{"type": "function_call_output", "call_id": "call_none", "output": "x"}]
    with socket(generating) as each:
        first = turn(each, store=False)[-1]["response"]["id"]
        (failed,) = turn(each, store=False, previous_response_id=first, input=orphan)
        (again,) = turn(each, store=False, previous_response_id=first)
    assert failed["error"]["param"] == "input[0].call_id"
    assert again["error"]["code"] == "previous_response_not_found"


@pytest.mark.parametrize(
    ("message", "code", "param"),
    [
        ("{", "invalid_request", None),
        ('{"type": "response.steer", "model": "automaton"}', "invalid_value", "type"),
        ('{"type": "response.create", "model": "nobody"}', "model_not_found", "model"),
        ('{"type": "response.create", "model": "automaton", "background": true, "input": "x"}', None, "background"),
        (
            '{"type": "response.create", "model": "automaton", "local_only": 3, "input": "x"}',
            "invalid_value",
            "local_only",
        ),
    ],
)
def test_a_bad_message_is_an_error_and_the_connection_lives(
    message: str, code: str | None, param: str | None, generating: Live
) -> None:
    with socket(generating) as each:
        each.send(message)
        (error,) = ended(each)
        assert error["error"]["code"] == (code or "unsupported_parameter")
        assert error["error"]["param"] == param
        assert turn(each)[-1]["type"] == "response.completed"


def test_a_fault_in_the_middle_fails_the_response(generating: Live) -> None:
    with socket(generating) as each:
        events = turn(each, model="late", input="one two three")
        assert events[-1]["error"]["code"] == "deadline_exceeded"
        (failed,) = ended(each)
    assert (failed["type"], failed["response"]["status"]) == ("response.failed", "failed")


def test_an_input_is_read_without_an_answer(generating: Live) -> None:
    with socket(generating) as each:
        warmed = turn(each, generate=False, store=False)[-1]
        assert (warmed["type"], warmed["response"]["output"]) == ("response.completed", [])
        assert warmed["response"]["usage"]["output_tokens"] == 0
        after = turn(each, input="and now?", previous_response_id=warmed["response"]["id"])[-1]
    assert after["response"]["usage"]["input_tokens"] > warmed["response"]["usage"]["input_tokens"]


def test_a_client_that_leaves_its_socket_frees_the_model(generating: Live) -> None:
    with socket(generating) as each:
        each.send(json.dumps({"type": "response.create", "model": "rebel", "input": "x", "max_output_tokens": 1500}))
        each.recv(timeout=60)

    def idle() -> bool:
        health = httpx.get(f"{generating.url}/health", timeout=5, trust_env=False).json()
        return bool(health["models"]["rebel"]["in_flight"] == 0)

    wait_for(idle, "the model stayed busy", generating.log, generating.process)


def test_a_message_over_the_limit_of_a_body_closes_the_socket(wire: Live) -> None:
    with socket(wire) as each, pytest.raises(ConnectionClosed) as closed:
        each.send(json.dumps({"type": "response.create", "model": "echo", "input": "x" * 300 * 1024}))
        each.recv(timeout=60)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1009


def test_a_socket_needs_a_key(keyed: Live) -> None:
    with pytest.raises(InvalidStatus) as refused, socket(keyed):
        pass
    assert refused.value.response.status_code == 401
    assert json.loads(refused.value.response.body or b"{}")["error"]["code"] == "invalid_api_key"
    with socket(keyed, "sk-infer-12345") as each:
        assert turn(each, model="echo")[-1]["type"] == "response.completed"


@pytest.mark.anyio
async def test_a_socket_lives_for_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []

    class Quiet:
        """A client that never says anything."""

        async def receive_data(self, mode: str) -> str:
            return str(await websocket.asyncio.Event().wait())

        async def send_text(self, data: str) -> None:
            sent.append(data)

        async def close(self) -> None:
            sent.append("closed")

    assert websocket.LONGEST_SECONDS == 3600
    monkeypatch.setattr(websocket, "LONGEST_SECONDS", 0.0)
    await websocket.Connection(Quiet()).serve()  # type: ignore[arg-type]  # as much of a socket as is used
    assert json.loads(sent[0])["error"]["code"] == "websocket_connection_limit_reached"
    assert sent[1] == "closed"


def test_what_is_local_only_stays_here_over_a_socket_too(forwarding: Forwarding) -> None:
    with socket(forwarding.live) as each:
        (refused,) = turn(each, model="echo", local_only=True)
        assert refused["error"]["param"] == "local_only"
        assert turn(each, model="echo")[-1]["type"] == "response.completed", "it held for one turn"
        assert turn(each, model="near", local_only=True)[-1]["type"] == "response.completed"
