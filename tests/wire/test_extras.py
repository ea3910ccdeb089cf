"""What other servers' own clients and test suites ask beyond OpenAI's wire: llama.cpp's, vLLM's and TEI's words."""

import itertools
import json
import re
from typing import Any

import httpx
import pytest

from server.models.made.automaton import Automaton
from tests.live import Live
from tests.making import TEXT

HELLO = [{"role": "user", "content": "Hello"}]
DIGIT = {"type": "object", "properties": {"x": {"enum": [1, 2]}}, "required": ["x"], "additionalProperties": False}
CHAT, COMPLETION = "/v1/chat/completions", "/v1/completions"
both = pytest.mark.parametrize("path", [CHAT, COMPLETION])


def post(live: Live, path: str, **body: Any) -> httpx.Response:
    usual: dict[str, Any] = {"messages": HELLO} if path == CHAT else {"prompt": "Hello"}
    with live.client() as client:
        return client.post(path, json={"model": "rebel", "max_tokens": 40, **usual, **body})


def told(live: Live, path: str, **body: Any) -> dict[str, Any]:
    reply = post(live, path, **body)
    assert reply.status_code == 200, reply.text
    answer: dict[str, Any] = reply.json()
    return answer


def text(choice: dict[str, Any]) -> str:
    said: str = choice["text"] if "text" in choice else choice["message"]["content"]
    return said


def streamed(live: Live, path: str, **body: Any) -> list[dict[str, Any]]:
    reply = post(live, path, stream=True, **body)
    assert reply.status_code == 200, reply.text
    lines = [line.removeprefix("data: ") for line in reply.text.splitlines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def refused(live: Live, path: str, **body: Any) -> dict[str, Any]:
    reply = post(live, path, **body)
    assert reply.status_code == 400, reply.text
    error: dict[str, Any] = reply.json()["error"]
    return error


# ---- formats --------------------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("model", ["rebel", "rebel-llamacpp"])
@pytest.mark.parametrize(
    ("asked", "pattern"),
    [
        ({"grammar": 'root ::= "a"{5,5}'}, "aaaaa"),
        ({"guided_grammar": 'root ::= word "!"\nword ::= [a-c]'}, "[abc]!"),
        ({"structured_outputs": {"grammar": 'start: "on" | "off"'}}, "on|off"),
        ({"guided_choice": ["joy", "sad(ness"]}, r"joy|sad\(ness"),
        ({"structured_outputs": {"regex": "[0-9]{3}"}}, "[0-9]{3}"),
        ({"response_format": {"type": "grammar", "grammar": 'root ::= "yes"'}}, "yes"),
        ({"response_format": {"type": "json_schema", "schema": DIGIT}}, r'\{"x": ?[12]\}'),
        ({"response_format": {"type": "json_object", "value": DIGIT}}, r'\{"x": ?[12]\}'),
        ({"response_format": {"type": "json_object", "schema": {"const": "42"}}}, '"42"'),
        ({"json_schema": DIGIT, "response_format": {"type": "text"}, "grammar": ""}, r'\{"x": ?[12]\}'),
    ],
    ids=lambda asked: None if isinstance(asked, str) else json.dumps(asked)[:40],
)
def test_formats_bind_by_each_servers_name(path: str, model: str, asked: Any, pattern: str, generating: Live) -> None:
    [choice] = told(generating, path, model=model, **asked)["choices"]
    assert re.fullmatch(pattern, text(choice))
    assert choice["finish_reason"] == "stop"


@both
@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"grammar": "root ::= nothing"}, "grammar"),
        ({"guided_grammar": "no grammar at all"}, "guided_grammar"),
        ({"grammar": 'root ::= "a"', "response_format": {"type": "json_object"}}, "grammar"),
        ({"json_schema": {"type": "hiccup"}}, "json_schema"),
        ({"structured_outputs": {"json": {"properties": {"a": "b"}}}}, "structured_outputs.json"),
        ({"structured_outputs": {"regex": "[.*"}}, "structured_outputs.regex"),
        ({"structured_outputs": {"regex": {"1": "a"}}}, "structured_outputs.regex"),
        ({"response_format": {"type": "json_object", "schema": 123}}, "response_format.schema"),
        ({"response_format": {"type": "json_object", "schema": {"type": 123}}}, "response_format.schema"),
    ],
)
def test_a_format_that_cannot_be_is_refused_by_its_name(path: str, asked: Any, param: str, generating: Live) -> None:
    assert refused(generating, path, **asked)["param"] == param


# ---- streams --------------------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("options", [{}, {"include_usage": True}, {"continuous_usage_stats": True}])
def test_options_of_a_stream_need_a_stream(path: str, options: Any, generating: Live) -> None:
    assert refused(generating, path, stream_options=options)["param"] == "stream_options"
    assert refused(generating, path, stream_options=options, stream=False)["param"] == "stream_options"
    assert post(generating, path, stream_options=None, max_tokens=1).status_code == 200


@both
def test_every_chunk_counts_when_asked_to(path: str, generating: Live) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True, "include_obfuscation": True}
    *chunks, last = streamed(generating, path, max_tokens=12, ignore_eos=True, stream_options=options)
    counts = [chunk["usage"]["completion_tokens"] for chunk in chunks]
    assert all(before == 0 or before < after for before, after in itertools.pairwise(counts))
    assert counts[-1] == 12
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"
    assert (last["choices"], last["usage"]["completion_tokens"]) == ([], 12)
    assert {chunk["usage"]["prompt_tokens"] for chunk in chunks} == {last["usage"]["prompt_tokens"]}
    quiet = streamed(generating, path, max_tokens=3, stream_options={"continuous_usage_stats": True})
    assert not any(chunk.get("usage") for chunk in quiet)


# ---- where an answer begins and ends --------------------------------------------------------------------------------


@both
def test_an_answer_has_at_least_the_tokens_asked_for(path: str, generating: Live) -> None:
    usual = told(generating, path, model="automaton", max_tokens=200)["usage"]["completion_tokens"]
    longer = told(generating, path, model="automaton", max_tokens=200, min_tokens=usual + 5)
    assert longer["usage"]["completion_tokens"] >= usual + 5
    assert refused(generating, path, min_tokens=50)["param"] == "min_tokens"
    assert refused(generating, path, model="automaton-llamacpp", min_tokens=5)["param"] == "min_tokens"


@both
def test_an_answer_ends_before_a_token_that_stops_it(path: str, generating: Live) -> None:
    whole = text(told(generating, path, model="automaton", temperature=0)["choices"][0])
    word = whole.split()[4]
    token = Automaton().vocabulary.id(f"Ġ{word}")
    [choice] = told(generating, path, model="automaton", temperature=0, stop_token_ids=[token])["choices"]
    assert text(choice) == whole[: whole.index(f" {word}")]
    assert choice["finish_reason"] == "stop"
    foreign = refused(generating, path, stop_token_ids=[9_999_999])
    assert foreign["param"] == "stop_token_ids"
    assert re.search(r"9999999 is out of vocabulary: this model has \d+ tokens", foreign["message"])
    assert refused(generating, path, stop_token_ids=[-1])["param"].startswith("stop_token_ids")


def test_the_last_message_is_continued_when_asked_to(generating: Live) -> None:
    begun = [*HELLO, {"role": "assistant", "content": "Hello this is"}]
    with generating.client() as client:
        body = {"model": "automaton", "messages": HELLO}
        opened = client.post("/apply-template", json=body).json()["prompt"]
        bare = client.post("/apply-template", json=body | {"add_generation_prompt": False}).json()["prompt"]
        counts = {
            prompt: client.post("/tokenize", json={"model": "automaton", "prompt": prompt}).json()["count"]
            for prompt in (f"{opened}Hello this is", bare)
        }
    answer = told(generating, CHAT, model="automaton", messages=begun, continue_final_message=True, temperature=0)
    assert TEXT.startswith(f"Hello this is{text(answer['choices'][0])}")
    assert answer["usage"]["prompt_tokens"] == counts[f"{opened}Hello this is"]
    free = told(generating, CHAT, model="automaton", messages=HELLO, add_generation_prompt=False)
    assert free["usage"]["prompt_tokens"] == counts[bare]
    for wrong in ({"messages": HELLO}, {"messages": begun, "add_generation_prompt": True}):
        assert refused(generating, CHAT, continue_final_message=True, **wrong)["param"] == "continue_final_message"


@both
def test_token_ids_are_told_when_asked_for(path: str, generating: Live) -> None:
    asked = {"model": "automaton", "max_tokens": 6, "temperature": 0, "return_token_ids": True}
    answer = told(generating, path, **asked)
    [choice] = answer["choices"]
    where = answer if path == CHAT else choice
    assert len(where["prompt_token_ids"]) == answer["usage"]["prompt_tokens"]
    with generating.client() as client:
        spelled = client.post("/detokenize", json={"model": "automaton", "tokens": choice["token_ids"]})
    assert spelled.json()["prompt"] == text(choice)
    first, *later = streamed(generating, path, **asked)
    where = first if path == CHAT else first["choices"][0]
    assert len(where["prompt_token_ids"]) == answer["usage"]["prompt_tokens"]
    assert "prompt_token_ids" not in json.dumps(later)
    ids = [token for chunk in (first, *later) for token in chunk["choices"][0].get("token_ids", [])]
    assert ids == choice["token_ids"]
    assert "token_ids" not in json.dumps(told(generating, path, **asked | {"return_token_ids": False}))
    assert refused(generating, path, **asked | {"model": "automaton-llamacpp"})["param"] == "return_token_ids"


@both
def test_an_adapter_is_refused_where_the_engine_has_none(path: str, generating: Live) -> None:
    fault = refused(generating, path, model="automaton", max_tokens=1, adapter="formal")
    assert fault["param"] == "adapter"


# ---- log-probabilities and faults -----------------------------------------------------------------------------------


def test_a_completions_likeliest_tokens_have_the_chosen_one(generating: Live) -> None:
    for wanted in (0, 5):
        found = told(generating, COMPLETION, logprobs=wanted, temperature=1.5)["choices"][0]["logprobs"]
        # Halves of characters are all written U+FFFD, so there may be fewer names than tokens.
        assert all(1 <= len(top) <= wanted + 1 for top in found["top_logprobs"])
        assert all(token in top for token, top in zip(found["tokens"], found["top_logprobs"], strict=True))


def test_a_chats_chosen_tokens_come_without_others_when_none_are_asked_for(generating: Live) -> None:
    answer = told(generating, CHAT, logprobs=True, top_logprobs=0, n=2)
    for choice in answer["choices"]:
        tokens = choice["logprobs"]["content"]
        assert [token["top_logprobs"] for token in tokens] == [[]] * len(tokens)
        data = b"".join(bytes(token["bytes"]) for token in tokens)
        assert data.decode(errors="replace") == text(choice)


def test_all_wrong_keys_of_a_bias_are_told(generating: Live) -> None:
    message = refused(generating, CHAT, logit_bias={"bad1": 1, "bad2": 2, "5": 1})["message"]
    assert "bad1" in message and "bad2" in message and "logit_bias" in message
    assert "9999999 is out of vocabulary" in refused(generating, CHAT, logit_bias={"9999999": 1})["message"]
    assert "9999999 is out of vocabulary" in refused(generating, COMPLETION, prompt=[9999999])["message"]


def test_a_tools_message_says_which_call_it_answers(generating: Live) -> None:
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    said = [*HELLO, {"role": "assistant", "content": None, "tool_calls": [call]}, {"role": "tool", "content": "x"}]
    assert refused(generating, CHAT, messages=said)["param"] == "messages[2].tool_call_id"


def test_a_null_length_is_the_usual_one(generating: Live) -> None:
    assert told(generating, COMPLETION, max_tokens=None, ignore_eos=True)["usage"]["completion_tokens"] == 16


# ---- routes ---------------------------------------------------------------------------------------------------------


def test_probes_of_other_servers_are_answered(wire: Live) -> None:
    with wire.client() as client:
        assert client.get("/ping").json() == {"status": "ok"}
        assert client.get("/version").json() == {"version": client.get("/").json()["version"]}
        assert client.request("GET", "/health", content=b"a body").status_code == 200
