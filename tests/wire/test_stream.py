"""Streams: signs of life, headers before the model has read its prompt, and work that ends with its reader.

What slow and departing readers do to a stream stands in tests/hostile/test_slow.py.
"""

import json
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.live import Live, serving, wait_for

CHAT = "/v1/chat/completions"

RECIPE = """\
version: 1
server:
  keep_alive: 100ms
models:
  late: {engine: echo, tokens_per_second: 1}
  failing: {engine: echo, tokens_per_second: 2, deadline: 300ms}
"""


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("stream")
    recipe = folder / "stream.yaml"
    recipe.write_text(RECIPE, encoding="utf-8")
    with serving(recipe, folder / "data") as live:
        yield live


def asked(model: str, text: str = "one two three", *, stream: bool = True) -> dict[str, object]:
    return {"model": model, "messages": [{"role": "user", "content": text}], "stream": stream}


def cancelled(live: Live) -> float:
    with live.client() as client:
        lines = client.get("/metrics").text.splitlines()
    counts = [
        line.split()[-1]
        for line in lines
        if line.startswith('hearth_requests_cancelled_total{gen_ai_request_model="late"')
    ]
    return float(counts[0]) if counts else 0.0


def test_a_stream_that_has_nothing_to_say_sends_comments(live: Live) -> None:
    with live.client() as client, client.stream("POST", CHAT, json=asked("late", "one")) as reply:
        lines = list(reply.iter_lines())
    first = next(index for index, line in enumerate(lines) if '"content":"one"' in line)
    assert lines[:first].count(": keep-alive") >= 2
    assert lines[-2] == "data: [DONE]"


def test_headers_and_the_role_come_before_the_first_token(live: Live) -> None:
    """The model's first token comes a second after its prompt; what came before it was there by then."""
    with live.client() as client, client.stream("POST", CHAT, json=asked("late", "one two three")) as reply:
        assert reply.status_code == 200
        assert reply.headers["cache-control"] == "no-cache"
        assert reply.headers["x-accel-buffering"] == "no"
        first = next(line for line in reply.iter_lines() if line.startswith("data: "))
        assert json.loads(first.removeprefix("data: "))["choices"][0]["delta"]["role"] == "assistant"
        health = client.get("/health").json()["models"]["late"]
        assert health["in_flight"] == 1


def test_a_fault_in_a_stream_is_an_event_that_sdks_raise(live: Live) -> None:
    with live.client() as client:
        lines = client.post(CHAT, json=asked("failing")).text.split("\n\n")
    events = [line for line in lines if line.startswith("data: ")]
    error = json.loads(events[-1].removeprefix("data: "))["error"]
    assert error["code"] == "deadline_exceeded"
    assert set(error) == {"message", "type", "param", "code"}


def test_work_ends_when_its_reader_leaves(live: Live) -> None:
    before = cancelled(live)
    with live.client() as client, client.stream("POST", CHAT, json=asked("late", "word " * 1000)) as reply:
        next(reply.iter_lines())
    _wait_until_cancelled(live, before)


def test_work_on_a_whole_answer_ends_when_its_client_leaves(live: Live) -> None:
    before = cancelled(live)
    with pytest.raises(httpx.ReadTimeout), live.client() as client:
        client.post(CHAT, json=asked("late", "word " * 1000, stream=False), timeout=0.5)
    _wait_until_cancelled(live, before)


def _wait_until_cancelled(live: Live, before: float) -> None:
    started = time.monotonic()

    def done() -> bool:
        assert time.monotonic() - started < 20, "not cancelled"
        with live.client() as client:
            running = client.get("/health").json()["models"]["late"]["in_flight"]
        return cancelled(live) == before + 1 and not running

    wait_for(done, "not cancelled", live.log)
