"""What the real clients of `tests/clients` once stumbled over, and the older and other names they send."""

import json
from typing import Any

import httpx
import jsonschema_rs
import numpy as np
import pytest

from server.models.tool_formats.pieces import MOST_CALLS
from tests.live import Live
from tests.making import TEXT

HELLO: Any = [{"role": "user", "content": "Hello"}]
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 8}},
    "required": ["city"],
    "additionalProperties": False,
}
WEATHER: Any = {"name": "weather", "parameters": SCHEMA}


def ask(live: Live, route: str = "/v1/chat/completions", **body: Any) -> httpx.Response:
    with live.client() as client:
        return client.post(route, json={"model": "automaton", "messages": HELLO, "temperature": 0} | body)


def choice(reply: httpx.Response) -> Any:
    assert reply.status_code == 200, reply.text
    return reply.json()["choices"][0]


def chunks(reply: httpx.Response) -> list[Any]:
    """The deltas of a streamed answer's first choice."""
    lines = [line[6:] for line in reply.text.split("\n\n") if line.startswith("data: {")]
    return [json.loads(line)["choices"][0] for line in lines]


def refused(reply: httpx.Response) -> Any:
    assert reply.status_code == 400, reply.text
    return reply.json()["error"]


# ---- calls ----------------------------------------------------------------------------------------------------------


def test_a_chunk_has_one_delta_of_a_call(generating: Live) -> None:
    """LlamaIndex reads the first and drops the others."""
    tools = [{"type": "function", "function": WEATHER}]
    for model in ("automaton", "rebel"):
        told = chunks(ask(generating, model=model, tools=tools, tool_choice="required", stream=True, max_tokens=400))
        calls = [each["delta"]["tool_calls"] for each in told if "tool_calls" in each["delta"]]
        assert calls and all(len(each) == 1 for each in calls)
        arguments = [each[0]["function"]["arguments"] for each in calls if each[0]["index"] == 0]
        jsonschema_rs.validate(SCHEMA, json.loads("".join(arguments)))


def test_a_forced_turn_ends_though_the_model_would_call_for_ever(generating: Live) -> None:
    tools = [{"type": "function", "function": {"name": "now"}}]
    answer = choice(ask(generating, model="rebel", tools=tools, tool_choice="required", max_tokens=1900))
    assert answer["finish_reason"] == "tool_calls"
    assert 1 <= len(answer["message"]["tool_calls"]) <= MOST_CALLS


def test_the_automaton_makes_one_call_and_ends(generating: Live) -> None:
    tools = [{"type": "function", "function": WEATHER}]
    answer = choice(ask(generating, tools=tools, tool_choice="required"))
    assert answer["finish_reason"] == "tool_calls"
    assert len(answer["message"]["tool_calls"]) == 1


def test_functions_are_called_as_the_older_wire_has_it(generating: Live) -> None:
    asked = {"model": "rebel", "functions": [WEATHER], "function_call": {"name": "weather"}}
    answer = choice(ask(generating, **asked))
    assert answer["finish_reason"] == "function_call"
    assert "tool_calls" not in answer["message"]
    call = answer["message"]["function_call"]
    assert call["name"] == "weather"
    jsonschema_rs.validate(SCHEMA, json.loads(call["arguments"]))
    told = chunks(ask(generating, stream=True, **asked))
    deltas = [each["delta"]["function_call"] for each in told if "function_call" in each["delta"]]
    assert [each["name"] for each in deltas if "name" in each] == ["weather"]
    assert "".join(each["arguments"] for each in deltas) == call["arguments"]
    assert told[-1]["finish_reason"] == "function_call"
    back = [
        *HELLO,
        {"role": "assistant", "content": None, "function_call": call},
        {"role": "function", "name": "weather", "content": "Rain"},
    ]
    assert choice(ask(generating, messages=back, functions=[WEATHER]))["message"]["content"] == TEXT


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"functions": [WEATHER], "tools": []}, "functions"),
        ({"functions": []}, "functions"),
        ({"functions": [WEATHER], "function_call": "perhaps"}, "function_call"),
        ({"function_call": {"name": "weather"}}, "function_call"),
        ({"functions": [WEATHER], "function_call": {"name": "rain"}}, "tool_choice"),
    ],
)
def test_functions_that_cannot_be_are_refused(asked: Any, param: str, generating: Live) -> None:
    assert refused(ask(generating, **asked))["param"] == param


# ---- formats by other names -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "asked",
    [
        {"response_format": {"type": "json_object", "schema": SCHEMA}},
        {"json_schema": SCHEMA},
        {"guided_json": json.dumps(SCHEMA)},
        {"structured_outputs": {"json": SCHEMA}},
    ],
    ids=lambda asked: next(iter(asked)),
)
def test_a_schema_binds_by_each_of_its_names(asked: Any, generating: Live) -> None:
    jsonschema_rs.validate(SCHEMA, json.loads(choice(ask(generating, model="rebel", **asked))["message"]["content"]))


@pytest.mark.parametrize(
    ("asked", "answers"),
    [
        ({"guided_choice": ["yes", 'no "way"']}, {"yes", 'no "way"'}),
        ({"structured_outputs": {"choice": ["a", "b"]}}, {"a", "b"}),
        ({"guided_regex": "(on|off)!"}, {"on!", "off!"}),
    ],
)
def test_words_and_patterns_bind_by_vllms_names(asked: Any, answers: set[str], generating: Live) -> None:
    assert choice(ask(generating, model="rebel", **asked))["message"]["content"] in answers


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"structured_outputs": {}}, "structured_outputs"),
        ({"structured_outputs": {"json": SCHEMA, "regex": "a"}}, "structured_outputs"),
        ({"guided_json": "{"}, "guided_json"),
        ({"guided_choice": []}, "guided_choice"),
        ({"json_schema": SCHEMA, "response_format": {"type": "json_object"}}, "json_schema"),
        ({"guided_regex": "a", "guided_choice": ["a"]}, "guided_regex"),
    ],
)
def test_a_format_that_cannot_be_followed_is_refused(asked: Any, param: str, generating: Live) -> None:
    assert refused(ask(generating, **asked))["param"] == param


# ---- what newer clients send ----------------------------------------------------------------------------------------


def test_what_has_no_effect_is_named(generating: Live) -> None:
    newer: dict[str, Any] = {"service_tier": "flex", "verbosity": "low", "prediction": {}, "web_search_options": {}}
    reply = ask(generating, modalities=["text"], max_tokens=1, **newer)
    assert reply.status_code == 200
    assert set(newer) <= set(reply.headers["x-ignored-params"].split(","))


def test_an_answer_in_sound_is_refused(generating: Live) -> None:
    assert refused(ask(generating, modalities=["text", "audio"], audio={"voice": "x"}))["param"] == "modalities"


@pytest.mark.parametrize("kind", ["image_url", "input_audio", "file", "video_url"])
def test_a_part_that_is_no_text_is_refused_by_its_place(kind: str, generating: Live) -> None:
    parts = [{"type": "text", "text": "Look"}, {"type": kind, kind: {"url": "data:,"}}]
    error = refused(ask(generating, messages=[*HELLO, {"role": "user", "content": parts}]))
    assert (error["param"], error["code"]) == ("messages[1].content[1]", "unsupported_parameter")
    assert kind in error["message"]


def test_a_refusal_sent_back_is_read(generating: Live) -> None:
    def counted(text: str) -> int:
        refusal = {"role": "assistant", "content": [{"type": "refusal", "refusal": text}]}
        tokens: int = ask(generating, messages=[refusal, *HELLO], max_tokens=1).json()["usage"]["prompt_tokens"]
        return tokens

    assert counted("No, that is something I would rather not do.") > counted("No.")


# ---- embeddings -----------------------------------------------------------------------------------------------------


def test_vectors_are_cut_where_the_recipe_says_they_may_be(wire: Live) -> None:
    def vectors(**more: Any) -> Any:
        reply = ask(wire, "/v1/embeddings", model="embed", input=["a cat", "a kitten"], encoding_format="float", **more)
        assert reply.status_code == 200, reply.text
        return np.array([each["embedding"] for each in reply.json()["data"]])

    whole, short = vectors(), vectors(dimensions=128)
    assert short.shape == (2, 128)
    np.testing.assert_allclose(short, whole[:, :128] / np.linalg.norm(whole[:, :128], axis=1, keepdims=True), atol=1e-6)
    np.testing.assert_array_equal(vectors(dimensions=384), whole)
    error = refused(ask(wire, "/v1/embeddings", model="embed", input="a cat", dimensions=100))
    assert (error["param"], "128" in error["message"]) == ("dimensions", True)
