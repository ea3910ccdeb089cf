"""Models of other servers over the wire: a scripted one that errs in every way, and real Hearths."""

import base64
import json
import struct
from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema_rs
import openai
import pytest
from openai import OpenAI

from tests.live import Live, wait_for
from tests.making import TEXT
from tests.upstream import CITED, KEY
from tests.wire.conftest import Forwarding
from tests.wire.test_generating import HELLO, SCHEMA, WEATHER


@pytest.fixture(scope="module")
def sdk(forwarding: Forwarding) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{forwarding.live.url}/v1", api_key="none", max_retries=0, timeout=30) as client:
        yield client


def post(forwarding: Forwarding, model: str, path: str = "chat/completions", **fields: Any) -> httpx.Response:
    asked = {"model": model} | ({"messages": HELLO} if path == "chat/completions" else {}) | fields
    with forwarding.live.client() as client:
        return client.post(f"/v1/{path}", json=asked)


def events(reply: httpx.Response) -> list[dict[str, Any]]:
    lines = [line.removeprefix("data: ") for line in reply.text.split("\n") if line.startswith("data: {")]
    return [json.loads(line) for line in lines]


# ---- a real Hearth --------------------------------------------------------------------------------------------------


def test_an_answer_of_another_hearth_is_the_same_answer(forwarding: Forwarding, generating: Live) -> None:
    ours = post(forwarding, "automaton").json()
    with generating.client() as client:
        theirs = client.post("/v1/chat/completions", json={"model": "automaton", "messages": HELLO}).json()
    assert ours["choices"] == theirs["choices"]
    assert ours["choices"][0]["message"]["content"] == TEXT
    assert ours["usage"] | {"prompt_tokens_details": 0} == theirs["usage"] | {"prompt_tokens_details": 0}


def test_its_stream_comes_piece_by_piece_with_usage(sdk: OpenAI) -> None:
    with sdk.chat.completions.create(
        model="automaton", messages=HELLO, stream=True, stream_options={"include_usage": True}
    ) as stream:
        chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == TEXT
    assert len(chunks) > 10
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage is not None and chunks[-1].usage.completion_tokens > 10
    assert chunks[-1].usage.prompt_tokens > 0


def test_its_log_probabilities_and_choices_pass(sdk: OpenAI) -> None:
    told = sdk.chat.completions.create(
        model="automaton", messages=HELLO, max_tokens=3, n=2, logprobs=True, top_logprobs=2
    )
    for choice in told.choices:
        assert choice.logprobs is not None and choice.logprobs.content is not None
        assert "".join(token.token for token in choice.logprobs.content) == choice.message.content
        assert all(len(token.top_logprobs) == 2 for token in choice.logprobs.content)
        assert choice.finish_reason == "length"
    assert [choice.index for choice in told.choices] == [0, 1]


def test_its_grammars_and_forced_calls_bind(sdk: OpenAI) -> None:
    called = sdk.chat.completions.create(
        model="rebel", messages=HELLO, tools=[WEATHER], tool_choice="required", parallel_tool_calls=False
    )
    [call] = called.choices[0].message.tool_calls or []
    assert call.type == "function" and call.function.name == "weather"
    assert called.choices[0].finish_reason == "tool_calls"
    wanted: Any = {"type": "json_schema", "json_schema": {"name": "trip", "schema": SCHEMA, "strict": True}}
    said = sdk.chat.completions.create(model="rebel", messages=HELLO, response_format=wanted)
    jsonschema_rs.validator_for(SCHEMA).validate(json.loads(said.choices[0].message.content or ""))


def test_prompts_are_gone_on_with(forwarding: Forwarding, generating: Live) -> None:
    asked: dict[str, Any] = {"prompt": ["Hello", "Hello"], "max_tokens": 5, "logprobs": 1}
    ours = post(forwarding, "automaton", "completions", **asked).json()
    with generating.client() as client:
        theirs = client.post("/v1/completions", json=asked | {"model": "automaton"}).json()
    assert ours["choices"] == theirs["choices"]
    assert ours["usage"]["completion_tokens"] == theirs["usage"]["completion_tokens"]


def test_every_wire_works_over_a_remote_model(forwarding: Forwarding) -> None:
    told = post(forwarding, "automaton", "messages", max_tokens=100, messages=HELLO).json()
    assert told["content"][0]["text"] == TEXT
    assert told["usage"]["input_tokens"] > 0
    told = post(forwarding, "automaton", "responses", input="Hello").json()
    assert told["output"][-1]["content"][0]["text"] == TEXT


def test_vectors_are_those_of_its_server(forwarding: Forwarding, wire: Live) -> None:
    asked: dict[str, Any] = {"input": ["tea", "coffee"]}
    with wire.client() as client:
        theirs = client.post("/v1/embeddings", json=asked | {"model": "embed"}).json()
    ours = post(forwarding, "embed", "embeddings", **asked).json()
    assert ours["data"] == theirs["data"] and ours["usage"] == theirs["usage"]
    packed = post(forwarding, "embed", "embeddings", **asked, encoding_format="base64").json()["data"][0]["embedding"]
    vector = base64.b64decode(packed)
    assert list(struct.unpack(f"<{len(vector) // 4}f", vector)) == pytest.approx(theirs["data"][0]["embedding"])


def test_the_type_of_an_input_puts_the_models_words_before_it(forwarding: Forwarding) -> None:
    def vector(text: object, **fields: Any) -> tuple[list[float], str]:
        reply = post(forwarding, "prompted", "embeddings", input=text, **fields)
        return reply.json()["data"][0]["embedding"], reply.headers.get("x-ignored-params", "")

    expected, _ = vector("Find: tea")
    for kind in ("query", "search_query"):
        assert vector("tea", input_type=kind) == (expected, "")
    plain, _ = vector("tea")
    assert plain != expected
    for kind in ("document", "passage", "search_document"):
        assert vector("tea", input_type=kind) == (plain, "input_type")
    wrong = post(forwarding, "prompted", "embeddings", input="tea", input_type="image")
    ids = post(forwarding, "prompted", "embeddings", input=[5572], input_type="query")
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "input_type")
    assert (ids.status_code, ids.json()["error"]["param"]) == (400, "input")


def test_a_client_that_leaves_is_left_there_too(forwarding: Forwarding, wire: Live) -> None:
    asked = {"model": "slow", "stream": True, "messages": [{"role": "user", "content": "word " * 400}]}

    def busy() -> int:
        with wire.client() as client:
            count: int = client.get("/health").json()["models"]["slow"]["in_flight"]
            return count

    before = busy()
    with forwarding.live.client() as client, client.stream("POST", "/v1/chat/completions", json=asked) as reply:
        lines = reply.iter_lines()
        next(line for line in lines if '"word"' in line)
        assert busy() == before + 1
    wait_for(lambda: busy() == before, "the other server still answers", wire.log)


def test_a_deadline_holds(forwarding: Forwarding) -> None:
    reply = post(forwarding, "late", messages=[{"role": "user", "content": "word " * 50}])
    assert reply.status_code == 504
    assert reply.json()["error"]["code"] == "deadline_exceeded"


# ---- what is sent there ---------------------------------------------------------------------------------------------


def test_fields_travel_as_they_were_sent(forwarding: Forwarding) -> None:
    messages = [
        {"role": "developer", "content": "Be brief.", "cache_control": {"type": "ephemeral"}},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]},
    ]
    fields: dict[str, Any] = {
        "service_tier": "flex",
        "user": "me",
        "metadata": {"a": "b"},
        "reasoning_effort": "low",
        "seed": 7,
    }
    tools = [{"type": "function", "function": {"name": "f", "strict": True}}, {"type": "web_search"}]
    reply = post(forwarding, "s-said", messages=messages, tools=tools, response_format={"type": "new_kind"}, **fields)
    assert reply.status_code == 200
    assert "x-ignored-params" not in reply.headers
    sent = forwarding.upstream.bodies["said"]
    told = {"messages": messages, "tools": tools, "response_format": {"type": "new_kind"}, "model": "said"} | fields
    assert sent == told | {"stream": True, "stream_options": {"include_usage": True}}
    assert forwarding.upstream.keys == {f"Bearer {KEY}", None}


def test_what_was_found_ends_the_system_message(forwarding: Forwarding) -> None:
    asked = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Where is the tea kept?"}]
    assert post(forwarding, "librarian", messages=asked).status_code == 200
    system, user = forwarding.upstream.bodies["said"]["messages"]
    assert system["content"].startswith("Be brief.\n\n")
    assert "The tea is kept in the blue tin." in system["content"]
    assert user == asked[1]


def test_connections_are_kept(forwarding: Forwarding) -> None:
    post(forwarding, "s-said")
    before = len(forwarding.upstream.connections)
    for _ in range(3):
        post(forwarding, "s-said")
    assert len(forwarding.upstream.connections) == before


# ---- what comes back ------------------------------------------------------------------------------------------------


def test_everything_an_answer_has_comes_through(forwarding: Forwarding) -> None:
    told = post(forwarding, "s-said").json()
    [choice] = told["choices"]
    assert choice["message"]["content"] == "Yes\u2028no"
    assert choice["message"]["reasoning_content"] == "Hm. "
    assert choice["message"]["annotations"] == [CITED]
    assert choice["finish_reason"] == "content_filter"
    assert told["usage"]["prompt_tokens"] == 11 and told["usage"]["completion_tokens"] == 7
    assert told["usage"]["prompt_tokens_details"]["cached_tokens"] == 5
    assert told["usage"]["completion_tokens_details"]["reasoning_tokens"] == 3


def test_odd_chunks_become_right_ones(forwarding: Forwarding) -> None:
    told = post(forwarding, "s-odd", stream=True)
    deltas = [each["choices"][0] for each in events(told)]
    calls = [call for each in deltas for call in each["delta"].get("tool_calls", [])]
    assert [(call["index"], call["id"], call["function"]["name"]) for call in calls if "id" in call] == [
        (0, "one", "f"),
        (1, "two", "g"),
    ]
    said = ["".join(call["function"]["arguments"] for call in calls if call["index"] == index) for index in (0, 1)]
    assert [json.loads(each) for each in said] == [{"a": 1}, {"b": 2}]
    assert "".join(each["delta"].get("reasoning_content", "") for each in deltas) == "Hm."
    assert deltas[-1]["finish_reason"] == "tool_calls"


def test_a_whole_answer_to_a_streamed_request_is_heard(forwarding: Forwarding) -> None:
    assert post(forwarding, "s-whole").json()["choices"][0]["message"]["content"] == "All at once"


@pytest.mark.parametrize(
    ("model", "kind", "code"),
    [
        ("401", "invalid_request_error", "invalid_api_key"),
        ("404", "not_found_error", "model_not_found"),
        ("429", "tokens", "rate_limit_exceeded"),
        ("500", "server_error", "oops"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_its_refusals_pass_as_they_were(forwarding: Forwarding, model: str, kind: str, code: str, stream: bool) -> None:
    reply = post(forwarding, f"s-{model}", stream=stream)
    error = reply.json()["error"]
    assert (reply.status_code, error["type"], error["code"], error["param"]) == (int(model), kind, code, "model")
    assert f"`s-{model}`" in error["message"]
    assert reply.headers.get("retry-after") == ("17" if model == "429" else None)
    assert KEY not in reply.text


def test_its_refusals_are_the_sdks_own_exceptions(sdk: OpenAI) -> None:
    with pytest.raises(openai.RateLimitError, match="Slow down"):
        sdk.chat.completions.create(model="s-429", messages=HELLO)


def test_a_page_for_an_error_is_told_as_text(forwarding: Forwarding) -> None:
    reply = post(forwarding, "s-html")
    assert reply.status_code == 502
    assert "Bad Gateway" in reply.json()["error"]["message"]


@pytest.mark.parametrize(
    ("model", "code", "message"),
    [
        ("mid", "burnt", "burnt down"),
        ("named", "upstream_error", "burnt down too"),
        ("dropped", "upstream_error", "broke off"),
        ("unfinished", "upstream_error", "in the middle"),
    ],
)
def test_an_answer_that_breaks_is_a_fault_in_the_stream(
    forwarding: Forwarding, model: str, code: str, message: str
) -> None:
    reply = post(forwarding, f"s-{model}", stream=True)
    *said, last = events(reply)
    assert reply.status_code == 200
    assert said[1]["choices"][0]["delta"]["content"] == "Yes"
    assert last["error"]["code"] == code and message in last["error"]["message"]
    assert "[DONE]" not in reply.text
    assert post(forwarding, f"s-{model}").status_code == 502


def test_leaving_closes_the_connection_at_once(forwarding: Forwarding) -> None:
    asked = {"model": "s-hang", "stream": True, "messages": HELLO}
    with forwarding.live.client() as client, client.stream("POST", "/v1/chat/completions", json=asked) as reply:
        next(line for line in reply.iter_lines() if '"Yes"' in line)
    assert forwarding.upstream.left.wait(20)


def test_vectors_are_read_in_their_order_and_refused_when_ragged(forwarding: Forwarding) -> None:
    told = post(forwarding, "s-vectors", "embeddings", input=["a", "b"]).json()
    assert [row["embedding"] for row in told["data"]] == [pytest.approx([0.6, 0.8, 0.0]), [1.0, 0.0, 0.0]]
    assert told["usage"] == {"prompt_tokens": 4, "total_tokens": 4}
    assert forwarding.upstream.bodies["vectors"]["encoding_format"] == "base64"
    post(forwarding, "s-vectors", "embeddings", input=["a", "b"], dimensions=3)
    assert forwarding.upstream.bodies["vectors"]["dimensions"] == 3
    ragged = post(forwarding, "s-ragged", "embeddings", input=["a", "b"])
    assert ragged.status_code == 502 and ragged.json()["error"]["code"] == "upstream_error"


# ---- what is known of it --------------------------------------------------------------------------------------------


def test_its_context_is_told_by_its_server_or_the_recipe(forwarding: Forwarding) -> None:
    with forwarding.live.client() as client:
        listed = {card["id"]: card for card in client.get("/v1/models").json()["data"]}
    assert listed["s-said"]["context_length"] == 4321
    assert listed["automaton"]["context_length"] == 999
    assert listed["rebel"]["context_length"] == 2048
    assert listed["away"]["context_length"] is None
    assert listed["s-said"]["engine"] == "remote"


def test_a_server_that_is_away_is_told_and_keeps_nobody_waiting(forwarding: Forwarding) -> None:
    reply = post(forwarding, "away")
    assert reply.status_code == 503 and reply.json()["error"]["code"] == "model_unavailable"
    assert "retry-after" in reply.headers
    with forwarding.live.client() as client:
        health = client.get("/health").json()["models"]["away"]
        assert client.get("/readyz").json()["waiting"] == ["models.gone"]
    assert "cannot be reached" in health["error"]


def test_the_key_is_in_no_log(forwarding: Forwarding) -> None:
    post(forwarding, "s-401")
    post(forwarding, "s-mid", stream=True)
    assert KEY not in forwarding.live.log.read_text(encoding="utf-8")
