"""Limits of keys, and places in a model's queue: what is refused, for whom, and what it says of when to come again."""

import asyncio

import httpx
import pytest

from tests.live import Live, wait_for

CHAT = "/v1/chat/completions"
PATIENCE = 30.0

pytestmark = pytest.mark.anyio


def asking(words: str, model: str = "echo", **more: object) -> dict[str, object]:
    return {"model": model, "messages": [{"role": "user", "content": words}], **more}


def left(reply: httpx.Response, what: str) -> int:
    return int(reply.headers[f"x-ratelimit-remaining-{what}"])


def caller(live: Live, key: str) -> httpx.AsyncClient:
    headers = {"authorization": f"Bearer {key}"}
    return httpx.AsyncClient(base_url=live.url, headers=headers, timeout=PATIENCE, trust_env=False)


async def queued(client: httpx.AsyncClient, model: str, count: int) -> None:
    """Wait until `count` requests wait for `model`."""
    async with asyncio.timeout(PATIENCE):
        while (await client.get("/health")).json()["models"][model]["queued"] != count:  # noqa: ASYNC110  # as below
            await asyncio.sleep(0.01)  # the state of another process, which has nothing to wait on


def test_requests_over_the_limit_are_told_when_to_come_again(limited: Live) -> None:
    with limited.client("sk-rated-12345") as client:
        replies = [client.post(CHAT, json=asking("hello")) for _ in range(4)]
    assert [reply.status_code for reply in replies] == [200, 200, 200, 429]
    assert [left(reply, "requests") for reply in replies] == [2, 1, 0, 0]
    refused = replies[-1]
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert refused.json()["error"]["type"] == "rate_limit_error"
    seconds, milliseconds = int(refused.headers["retry-after"]), int(refused.headers["retry-after-ms"])
    assert 0 < milliseconds <= 20_000 and seconds == -(-milliseconds // 1000)
    assert refused.headers["x-should-retry"] == "true"
    assert refused.headers["x-ratelimit-limit-requests"] == "3"
    assert refused.headers["x-ratelimit-reset-requests"].endswith("s")
    assert "x-ratelimit-limit-tokens" not in refused.headers


def test_tokens_are_those_that_were_used(limited: Live) -> None:
    with limited.client("sk-counted-12345") as client:
        first = client.post(CHAT, json=asking("one two three four five six seven eight nine ten"))
        assert first.json()["usage"]["total_tokens"] == 20
        assert first.headers["x-ratelimit-limit-tokens"] == "60"
        assert 40 <= left(first, "tokens") <= 45  # it fills while the answer is made
        second = client.post(CHAT, json=asking(" ".join(["word"] * 20)))
        assert (second.status_code, second.json()["usage"]["total_tokens"]) == (200, 40)
        third = client.post(CHAT, json=asking("word"))
    assert (third.status_code, left(third, "tokens")) == (429, 0)
    assert "60 tokens a minute" in third.json()["error"]["message"]


def test_a_streamed_answer_is_counted_at_its_end(limited: Live) -> None:
    with limited.client("sk-streamed-12345") as client:
        with client.stream("POST", CHAT, json=asking("word " * 25, stream=True)) as reply:
            assert reply.status_code == 200
            assert left(reply, "tokens") >= 60 - 125 // 4  # the guess by which it was let in
            reply.read()
        refused = client.post(CHAT, json=asking("word " * 25))
    assert refused.status_code == 429


def test_a_key_may_have_a_smaller_body(limited: Live) -> None:
    with limited.client("sk-small-12345") as client:
        said = client.post(CHAT, json=asking("x" * 2000))
        pieces = (b" " * 500 for _ in range(4))
        unsaid = client.post(CHAT, content=pieces, headers={"content-type": "application/json"})
        small = client.post(CHAT, json=asking("x" * 500))
    assert [reply.status_code for reply in (said, unsaid, small)] == [413, 413, 200]
    assert said.json()["error"]["code"] == "body_too_large"


def test_who_looks_after_the_server_is_not_locked_out(limited: Live) -> None:
    with limited.client("sk-ops-12345") as client:
        assert [client.get("/metrics").status_code for _ in range(3)] == [200] * 3


async def test_a_flood_waits_for_itself_and_not_others_for_it(limited: Live) -> None:
    ended: list[str] = []

    async def ask(client: httpx.AsyncClient, who: str) -> httpx.Response:
        reply = await client.post(CHAT, json=asking("a b", model="slow"))
        ended.append(f"{who} {reply.status_code}")
        return reply

    async with caller(limited, "sk-flood-12345") as flood, caller(limited, "sk-one-12345") as one:
        flooding = [asyncio.create_task(ask(flood, "flood")) for _ in range(12)]
        await queued(one, "slow", 6)
        reply = await ask(one, "one")
        before = [each for each in ended if each == "flood 200"]
        replies = await asyncio.gather(*flooding)
    assert reply.status_code == 200
    assert len(before) <= 2  # the one that was running, and one that may have ended meanwhile
    refused = [each for each in replies if each.status_code == 429]
    assert len(refused) == 5 and ended.count("flood 200") == 7
    assert all(each.json()["error"]["code"] == "overloaded" for each in refused)
    assert all("the key `flood`" in each.json()["error"]["message"] for each in refused)
    assert all(1 <= int(each.headers["retry-after"]) <= 60 for each in refused)


async def test_who_leaves_while_waiting_frees_the_place_at_once(limited: Live) -> None:
    async with caller(limited, "sk-one-12345") as client, caller(limited, "sk-ops-12345") as ops:
        long = asyncio.create_task(client.post(CHAT, json=asking("word " * 30, model="slow")))
        waiting = [asyncio.create_task(client.post(CHAT, json=asking("a", model="slow"))) for _ in range(2)]
        waiting.append(asyncio.create_task(client.post(CHAT, json=asking("a", model="slow", stream=True))))
        await queued(ops, "slow", 3)
        shown = (await ops.get("/metrics")).text
        assert 'hearth_model_queued{gen_ai_request_model="slow"' in shown
        for task in waiting:
            task.cancel()
        await queued(ops, "slow", 0)
        assert not long.done()
        long.cancel()
        await asyncio.gather(long, *waiting, return_exceptions=True)
        wait_for(lambda: _idle(limited), "the model is not free", limited.log)


def _idle(live: Live) -> bool:
    with live.client() as client:
        return bool(client.get("/health").json()["models"]["slow"]["in_flight"] == 0)


async def test_a_stream_that_waits_begins_before_its_turn(limited: Live) -> None:
    async with caller(limited, "sk-one-12345") as client, caller(limited, "sk-ops-12345") as ops:
        long = asyncio.create_task(client.post(CHAT, json=asking("word " * 200, model="slow")))
        async with asyncio.timeout(PATIENCE):
            while (await ops.get("/health")).json()["models"]["slow"]["in_flight"] != 1:  # noqa: ASYNC110  # as above
                await asyncio.sleep(0.01)
        too_long = client.post(CHAT, json=asking("word " * 9000, model="slow", stream=True))
        async with client.stream("POST", CHAT, json=asking("a b", model="slow", stream=True)) as reply:
            assert reply.status_code == 200
            assert (await ops.get("/health")).json()["models"]["slow"]["queued"] == 1
            refused = await too_long
            assert (refused.status_code, refused.json()["error"]["code"]) == (400, "context_length_exceeded")
            assert not long.done()
            long.cancel()  # and so its turn comes
            text = (await reply.aread()).decode()
        assert text.count('"role":"assistant"') == 1 and '"content":" b"' in text
        assert text.endswith("data: [DONE]\n\n")


async def test_a_deadline_counts_the_waiting(limited: Live) -> None:
    async with caller(limited, "sk-one-12345") as client:
        asked = [client.post(CHAT, json=asking("a b c d e f", model="late")) for _ in range(2)]
        replies = await asyncio.gather(*asked)
    assert [reply.status_code for reply in replies] == [504, 504]
    assert replies[1].json()["error"]["code"] == "deadline_exceeded"
    assert replies[1].headers["x-should-retry"] == "false"
