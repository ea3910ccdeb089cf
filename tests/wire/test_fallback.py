"""Requests that another model answers: because its own is full, not ready or down; and those that never go over."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.making import TEXT
from tests.wire.conftest import Forwarding
from tests.wire.test_generating import SCHEMA

CHAT = "/v1/chat/completions"
PATIENCE = 30.0
LOCAL = {"x-local-only": "true"}

pytestmark = pytest.mark.anyio


@pytest.fixture
async def client(forwarding: Forwarding) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=forwarding.live.url, timeout=PATIENCE, trust_env=False) as client:
        yield client


def asking(model: str, words: str = "hi", **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": words}], **more}


def went(reply: httpx.Response) -> tuple[str | None, str | None]:
    return reply.headers.get("x-hearth-model"), reply.headers.get("x-hearth-fallback")


async def until(client: httpx.AsyncClient, model: str, key: str, value: object) -> None:
    """Wait until /health says of `model` that `key` is `value`."""
    async with asyncio.timeout(PATIENCE):
        while (await client.get("/health")).json()["models"][model][key] != value:  # noqa: ASYNC110  # as below
            await asyncio.sleep(0.01)  # the state of another process, which has nothing to wait on


async def hold(client: httpx.AsyncClient, model: str, queued: int) -> list[asyncio.Task[httpx.Response]]:
    """One long answer in the model and `queued` behind it, one after the other."""
    held = []
    for place in range(queued + 1):
        held.append(asyncio.create_task(client.post(CHAT, json=asking(model, "word " * 400), headers=LOCAL)))
        await until(client, model, "in_flight", place + 1)
    await until(client, model, "queued", queued)
    return held


async def leave(held: list[asyncio.Task[httpx.Response]]) -> None:
    for task in held:
        task.cancel()
    await asyncio.gather(*held, return_exceptions=True)


async def test_requests_go_over_at_the_queues_limit_and_come_back_at_half(client: httpx.AsyncClient) -> None:
    assert went(await client.post(CHAT, json=asking("busy"))) == (None, None)
    held = await hold(client, "busy", 3)
    over = await client.post(CHAT, json=asking("busy"))
    assert went(over) == ("near", "queue")
    assert over.json()["model"] == "busy" and over.json()["choices"][0]["message"]["content"] == "hi"
    await leave([held.pop()])
    await until(client, "busy", "queued", 2)
    assert went(await client.post(CHAT, json=asking("busy"))) == ("near", "queue")
    await leave([held.pop()])
    await until(client, "busy", "queued", 1)
    back = asyncio.create_task(client.post(CHAT, json=asking("busy")))
    await until(client, "busy", "queued", 2)
    await leave([*held, back])
    await until(client, "busy", "in_flight", 0)


async def test_a_full_model_hands_over_what_it_would_refuse(client: httpx.AsyncClient) -> None:
    held = await hold(client, "full", 1)
    assert went(await client.post(CHAT, json=asking("full"))) == ("near", "queue")
    refused = await client.post(CHAT, json=asking("full"), headers=LOCAL)
    assert refused.status_code == 429 and went(refused) == (None, None)
    await leave(held)
    await until(client, "full", "in_flight", 0)


async def test_every_wire_tells_which_model_answered(client: httpx.AsyncClient) -> None:
    held = await hold(client, "full", 1)
    message = [{"role": "user", "content": "hi"}]
    asked: dict[str, dict[str, Any]] = {
        CHAT: {"messages": message, "stream": True},
        "/v1/completions": {"prompt": "hi"},
        "/v1/responses": {"input": "hi"},
        "/v1/messages": {"messages": message, "max_tokens": 9},
    }
    for route, body in asked.items():
        reply = await client.post(route, json={"model": "full"} | body)
        assert (reply.status_code, went(reply)) == (200, ("near", "queue")), route
    await leave(held)
    await until(client, "full", "in_flight", 0)


async def test_a_model_that_cannot_load_hands_over_down_the_chain(client: httpx.AsyncClient) -> None:
    reply = await client.post(CHAT, json=asking("gone"))
    assert reply.headers["x-hearth-model"] in ("away-first", "near")
    assert reply.json()["choices"][0]["message"]["content"] == "hi"
    again = await client.post(CHAT, json=asking("gone"))
    assert again.headers["x-hearth-model"] == "near", "a server that was just found away is not asked again"
    assert again.headers["x-hearth-fallback"] in ("loading", "down")


async def test_a_crash_before_the_first_word_is_answered_elsewhere(
    client: httpx.AsyncClient, forwarding: Forwarding
) -> None:
    asked = asyncio.create_task(client.post(CHAT, json=asking("mortal")))
    await until(client, "mortal", "in_flight", 1)
    os.kill(forwarding.workers["mortal"], signal.SIGKILL)
    reply = await asked
    assert (reply.status_code, went(reply)) == (200, ("near", "down"))
    assert reply.json()["usage"]["prompt_tokens"] == 1
    await until(client, "mortal", "state", "ready")


async def test_a_stream_that_was_told_to_begin_does_not_go_over(
    client: httpx.AsyncClient, forwarding: Forwarding
) -> None:
    async with client.stream("POST", CHAT, json=asking("mortal-too", stream=True)) as reply:
        assert went(reply) == (None, None)
        os.kill(forwarding.workers["mortal-too"], signal.SIGKILL)
        lines = [line async for line in reply.aiter_lines() if line.startswith("data: ")]
    assert json.loads(lines[-1].removeprefix("data: "))["error"]["code"] == "model_crashed"
    await until(client, "mortal-too", "state", "ready")


async def test_what_another_server_refuses_or_breaks_goes_over_before_its_first_word(
    client: httpx.AsyncClient,
) -> None:
    limited = await client.post(CHAT, json=asking("over"))
    assert went(limited) == ("automaton", "queue")
    assert limited.json()["choices"][0]["message"]["content"] == TEXT
    assert limited.json()["usage"]["prompt_tokens"] > 0
    broken = await client.post(CHAT, json=asking("breaks"))
    assert (broken.status_code, went(broken)) == (502, (None, None)), "it had begun to speak"


async def test_a_model_that_cannot_do_what_is_asked_is_no_fallback(client: httpx.AsyncClient) -> None:
    limited = await client.post(CHAT, json=asking("over", logprobs=True, max_tokens=1))
    assert went(limited) == ("automaton", "queue")
    assert limited.json()["choices"][0]["logprobs"] is not None
    schema = {"type": "json_schema", "json_schema": {"name": "trip", "schema": SCHEMA}}
    gone = await client.post(CHAT, json=asking("gone", response_format=schema))
    assert gone.status_code == 503 and went(gone)[0] != "near", "the one that honours it was tried, or known to be away"


async def test_what_has_no_effect_there_is_named(client: httpx.AsyncClient) -> None:
    reply = await client.post(CHAT, json=asking("gone", temperature=0.5, user="me", foo=1))
    assert went(reply)[0] == "near"
    assert {"temperature", "user", "foo"} == set(reply.headers["x-ignored-params"].split(","))


@pytest.mark.parametrize("how", ["header", "field"])
async def test_what_is_local_only_stays(client: httpx.AsyncClient, how: str) -> None:
    headers = LOCAL if how == "header" else {}
    field: dict[str, Any] = {} if how == "header" else {"local_only": True}
    gone = await client.post(CHAT, json=asking("gone", **field), headers=headers)
    assert gone.status_code == 503 and went(gone) == (None, None)
    remote = await client.post(CHAT, json=asking("echo", **field), headers=headers)
    assert remote.status_code == 400 and remote.json()["error"]["param"] == "local_only"
    vectors = await client.post("/v1/embeddings", json={"model": "embed", "input": "a", **field}, headers=headers)
    assert vectors.status_code == 400 and vectors.json()["error"]["param"] == "local_only"
    near = await client.post(CHAT, json=asking("near", **field), headers=headers)
    assert near.status_code == 200 and "x-ignored-params" not in near.headers


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("/v1/completions", {"prompt": "hi"}),
        ("/v1/responses", {"input": "hi"}),
        ("/v1/messages", {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 9}),
        ("/api/chat", {"messages": [{"role": "user", "content": "hi"}], "stream": False}),
        ("/v1/retrieve", {"query": "tea", "collections": ["handbook"]}),
    ],
)
async def test_local_only_holds_on_every_route(client: httpx.AsyncClient, route: str, body: dict[str, Any]) -> None:
    if "query" in body:  # searches take no field that they do not know
        reply = await client.post(route, json=body, headers=LOCAL)
    else:
        reply = await client.post(route, json=body | {"model": "echo", "local_only": True})
    assert reply.status_code == 400 and "may not leave" in reply.text


async def test_local_only_is_true_or_false(client: httpx.AsyncClient) -> None:
    wrong = await client.post(CHAT, json=asking("near", local_only="yes"))
    assert wrong.status_code == 400 and wrong.json()["error"]["param"] == "local_only"
    plain = await client.post(CHAT, json=asking("echo", local_only=False), headers={"x-local-only": "false"})
    assert plain.status_code == 200


async def test_what_went_over_is_counted(client: httpx.AsyncClient) -> None:
    await client.post(CHAT, json=asking("over"))
    shown = (await client.get("/metrics")).text
    [line] = [line for line in shown.splitlines() if line.startswith("hearth_fallback_total") and 'from="over"' in line]
    assert 'to="automaton"' in line and 'reason="queue"' in line
    assert float(line.rpartition(" ")[2]) >= 1


async def test_vectors_go_over_to_a_model_of_as_many_dimensions(client: httpx.AsyncClient) -> None:
    asked = {"input": ["a cat", "a kitten"], "encoding_format": "float"}
    for path in ("/v1/embeddings", "/api/embed"):
        over = await client.post(path, json=asked | {"model": "vec-away"})
        assert (over.status_code, went(over)) == (200, ("embed", "down"))
    own = await client.post("/v1/embeddings", json=asked | {"model": "embed"})
    over = await client.post("/v1/embeddings", json=asked | {"model": "vec-away"})
    assert over.json()["data"] == own.json()["data"] and over.json()["model"] == "vec-away"
    tokens = await client.post("/v1/embeddings", json={"model": "vec-away", "input": [1, 2, 3]})
    assert tokens.status_code == 503 and went(tokens) == (None, None), "token ids are of one vocabulary"
    stays = await client.post("/v1/embeddings", json=asked | {"model": "vec-away"}, headers=LOCAL)
    assert stays.status_code == 400 and went(stays) == (None, None)


async def test_ranking_goes_over_whole(client: httpx.AsyncClient) -> None:
    asked = {"query": "How do I change the port?", "documents": ["Set server.listen.", "The reader quotes."]}
    over = await client.post("/v1/rerank", json=asked | {"model": "rank-away"})
    assert (over.status_code, went(over)) == (200, ("rank", "down"))
    own = await client.post("/v1/rerank", json=asked | {"model": "rank"})
    assert over.json()["results"] == own.json()["results"]
    pairs = {"text_1": ["a", "b"], "text_2": ["c", "d"]}
    scored = await client.post("/v1/score", json=pairs | {"model": "rank-away"})
    assert went(scored) == ("rank", "down") and len(scored.json()["data"]) == 2
