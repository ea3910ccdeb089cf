"""Generation over the wire, by the real SDK: an automaton whose answer is known, random weights that obey nothing."""

import json
from typing import Any

import httpx
import jsonschema_rs
import openai
import pytest
from openai import OpenAI

from server.models.made.automaton import Automaton
from tests.live import Live, wait_for
from tests.making import TEXT
from tests.wire.trip import SCHEMA, Trip

HELLO: Any = [{"role": "user", "content": "Hello"}]
WEATHER: Any = {"type": "function", "function": {"name": "weather", "description": "Tells it.", "parameters": SCHEMA}}
TIME: Any = {"type": "function", "function": {"name": "time"}}
AUTOMATA = ["automaton", "automaton-llamacpp"]
REBELS = ["rebel", "rebel-llamacpp"]


def say(sdk: OpenAI, model: str = "automaton", **changes: Any) -> Any:
    return sdk.chat.completions.create(**{"model": model, "messages": HELLO, "temperature": 0} | changes)


def streamed(sdk: OpenAI, model: str, **changes: Any) -> tuple[str, str | None, int]:
    """The text, the reason, and the tokens that usage counts."""
    text, reason, tokens = "", None, 0
    for chunk in say(sdk, model, stream=True, stream_options={"include_usage": True}, **changes):
        if chunk.usage is not None:
            tokens = chunk.usage.completion_tokens
        for choice in chunk.choices:
            text += choice.delta.content or ""
            reason = choice.finish_reason or reason
    return text, reason, tokens


# ---- text -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", AUTOMATA)
def test_an_answer_is_exact_whole_and_streamed(model: str, sdk: OpenAI) -> None:
    whole = say(sdk, model)
    assert (whole.choices[0].message.content, whole.choices[0].finish_reason) == (TEXT, "stop")
    assert whole.choices[0].message.tool_calls is None
    assert streamed(sdk, model) == (TEXT, "stop", whole.usage.completion_tokens)
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens


@pytest.mark.parametrize("model", AUTOMATA)
def test_the_limit_and_stop_strings_end_it(model: str, sdk: OpenAI) -> None:
    short = say(sdk, model, max_tokens=3)
    assert short.choices[0].finish_reason == "length"
    assert short.usage.completion_tokens == 3
    assert TEXT.startswith(short.choices[0].message.content)
    before = TEXT[: TEXT.index("very small")]
    stopped = say(sdk, model, stop=["very sm", "never"])
    assert (stopped.choices[0].message.content, stopped.choices[0].finish_reason) == (before, "stop")
    assert streamed(sdk, model, stop="very sm")[:2] == (before, "stop")


@pytest.mark.parametrize("model", AUTOMATA)
def test_log_probabilities_spell_the_answer(model: str, sdk: OpenAI) -> None:
    answer = say(sdk, model, logprobs=True, top_logprobs=3)
    tokens = answer.choices[0].logprobs.content
    assert len(tokens) == answer.usage.completion_tokens
    assert b"".join(bytes(token.bytes) for token in tokens).decode() == TEXT
    for token in tokens:
        assert token.top_logprobs[0].token == token.token
        assert [top.logprob for top in token.top_logprobs] == sorted(
            (t.logprob for t in token.top_logprobs), reverse=True
        )
        assert token.logprob <= 0 and len(token.top_logprobs) == 3


@pytest.mark.parametrize("model", AUTOMATA)
def test_a_logit_bias_changes_the_answer(model: str, sdk: OpenAI) -> None:
    first = str(Automaton().vocabulary.id("Hello"))
    answer = say(sdk, model, logit_bias={first: -100}, max_tokens=3)
    assert not answer.choices[0].message.content.startswith("Hello")


@pytest.mark.parametrize("model", REBELS)
def test_a_seed_gives_the_same_answer_again_and_choices_of_it_differ(model: str, sdk: OpenAI) -> None:
    asked = {"temperature": 1.0, "max_tokens": 12, "seed": 7}
    first, again = say(sdk, model, **asked), say(sdk, model, **asked)
    assert first.choices[0].message.content == again.choices[0].message.content
    several = [choice.message.content for choice in say(sdk, model, n=3, **asked).choices]
    if "llamacpp" not in model:  # whose last digits depend on what is computed together
        assert several[0] == first.choices[0].message.content
    assert len(set(several)) > 1


def test_a_prompt_asked_again_is_not_computed_again(sdk: OpenAI) -> None:
    long: Any = [{"role": "user", "content": "Some words to fill more than one page of the cache. " * 12}]
    say(sdk, messages=long, max_tokens=1)
    usage = say(sdk, messages=long, max_tokens=1).usage
    assert usage.prompt_tokens_details.cached_tokens >= usage.prompt_tokens // 2


def test_ignore_eos_goes_on_to_the_limit(sdk: OpenAI) -> None:
    answer = say(sdk, max_tokens=120, extra_body={"ignore_eos": True})
    assert (answer.usage.completion_tokens, answer.choices[0].finish_reason) == (120, "length")


# ---- formats --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [*AUTOMATA, *REBELS])
def test_a_schema_binds_weights_that_would_never_obey(model: str, sdk: OpenAI) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "trip", "schema": SCHEMA, "strict": True}}
    for seed in range(4):
        answer = say(sdk, model, response_format=wanted, temperature=1.0, seed=seed)
        assert answer.choices[0].finish_reason == "stop"
        jsonschema_rs.validate(SCHEMA, json.loads(answer.choices[0].message.content))


@pytest.mark.parametrize("model", REBELS)
def test_the_sdks_parse_gets_its_model(model: str, sdk: OpenAI) -> None:
    schema: Any = Trip
    parsed = sdk.chat.completions.parse(model=model, messages=HELLO, response_format=schema, temperature=0)
    assert isinstance(parsed.choices[0].message.parsed, Trip)


@pytest.mark.parametrize("model", [*AUTOMATA, *REBELS])
def test_json_objects_regular_expressions_and_lark(model: str, sdk: OpenAI) -> None:
    anything = say(sdk, "automaton", response_format={"type": "json_object"}).choices[0].message.content
    assert isinstance(json.loads(anything), dict)
    wanted = {"type": "regex", "pattern": "[0-9]{3}-[a-c]{1,9}x"}
    regex = say(sdk, model, response_format=wanted, temperature=0.7, seed=1)
    head, _, tail = regex.choices[0].message.content.partition("-")
    assert len(head) == 3 and head.isdigit() and tail.endswith("x") and set(tail[:-1]) <= set("abc")
    lark = say(sdk, model, response_format={"type": "lark", "grammar": 'start: ("yes" | "no") "!"'}, temperature=1)
    assert lark.choices[0].message.content in ("yes!", "no!")


@pytest.mark.parametrize("model", REBELS)
@pytest.mark.parametrize(
    ("wanted", "param"),
    [
        ({"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "wrong"}}}, "response_format"),
        ({"type": "json_schema"}, "response_format.json_schema"),
        ({"type": "regex", "pattern": "("}, "response_format.pattern"),
        ({"type": "lark", "grammar": "start: nothing_there"}, "response_format.grammar"),
        ({"type": "xml"}, "response_format.type"),
    ],
)
def test_a_format_that_does_not_compile_is_refused(model: str, wanted: Any, param: str, sdk: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        say(sdk, model, response_format=wanted)
    assert str(refused.value.param).startswith(param)
    assert say(sdk, model, max_tokens=1).usage.completion_tokens == 1, "the worker lives on"


# ---- tools ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [*AUTOMATA, *REBELS])
@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}])
def test_a_forced_call_is_made_and_fits_its_schema(model: str, choice: Any, sdk: OpenAI) -> None:
    asked = {"tools": [WEATHER], "tool_choice": choice, "parallel_tool_calls": False, "temperature": 1.0, "seed": 3}
    answer = say(sdk, model, **asked).choices[0]
    assert answer.finish_reason == "tool_calls"
    assert answer.message.content is None
    [call] = answer.message.tool_calls
    assert (call.type, call.function.name) == ("function", "weather")
    jsonschema_rs.validate(SCHEMA, json.loads(call.function.arguments))
    back = [
        *HELLO,
        answer.message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": "Rain"},
    ]
    assert say(sdk, model, messages=back, tools=[WEATHER], max_tokens=2).usage.completion_tokens == 2


@pytest.mark.parametrize("model", REBELS)
def test_calls_stream_as_the_sdk_puts_them_together(model: str, sdk: OpenAI) -> None:
    with sdk.chat.completions.stream(
        model=model, messages=HELLO, tools=[WEATHER], tool_choice="required", parallel_tool_calls=False, temperature=0
    ) as stream:
        names = [event.name for event in stream if event.type == "tool_calls.function.arguments.delta"]
        final = stream.get_final_completion().choices[0]
    assert set(names) == {"weather"}
    [call] = final.message.tool_calls or []
    jsonschema_rs.validate(SCHEMA, json.loads(call.function.arguments))
    assert final.finish_reason == "tool_calls"


def test_a_name_stands_in_a_calls_first_delta_alone(generating: Live) -> None:
    body = {
        "model": "rebel",
        "messages": HELLO,
        "tools": [WEATHER],
        "tool_choice": "required",
        "stream": True,
        "seed": 1,
    }
    with generating.client() as client:
        lines = client.post("/v1/chat/completions", json=body).text.split("\n\n")
    chunks = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    deltas = [call for chunk in chunks for choice in chunk["choices"] for call in choice["delta"].get("tool_calls", ())]
    first = [delta for delta in deltas if "id" in delta]
    assert {delta["index"] for delta in deltas} == {delta["index"] for delta in first}
    assert all({"name", "arguments"} == set(delta["function"]) and delta["type"] == "function" for delta in first)
    assert all(set(delta["function"]) == {"arguments"} for delta in deltas if "id" not in delta)


@pytest.mark.parametrize("model", AUTOMATA)
def test_a_model_that_does_not_call_answers(model: str, sdk: OpenAI) -> None:
    answer = say(sdk, model, tools=[WEATHER, TIME, {"type": "web_search"}]).choices[0]
    assert (answer.message.content, answer.finish_reason) == (TEXT, "stop")


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "rain"}}}, "tool_choice"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
        ({"tools": [WEATHER], "tool_choice": "perhaps"}, "tool_choice"),
        ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"logit_bias": {"99999999": 1}}, "logit_bias"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"messages": [{"role": "user", "content": "word " * 3000}]}, "messages"),
        ({"extra_body": {"chat_template_kwargs": {"messages": []}}}, "chat_template_kwargs.messages"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(changes: Any, param: str, sdk: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        say(sdk, **changes)
    assert refused.value.param == param


def test_a_prompt_over_the_context_has_the_code_clients_know(sdk: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="maximum context length is 2048 tokens") as refused:
        say(sdk, messages=[{"role": "user", "content": "word " * 3000}])
    assert refused.value.code == "context_length_exceeded"


# ---- completions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", AUTOMATA)
def test_a_prompt_is_gone_on_with(model: str, sdk: OpenAI) -> None:
    answer = sdk.completions.create(model=model, prompt="Hello this", temperature=0, max_tokens=3)
    assert TEXT.startswith("Hello this" + answer.choices[0].text)
    assert answer.choices[0].finish_reason == "length"
    chunks = sdk.completions.create(
        model=model, prompt="Hello this", temperature=0, max_tokens=3, stream=True, echo=True
    )
    assert "".join(chunk.choices[0].text for chunk in chunks) == "Hello this" + answer.choices[0].text


def test_an_echo_brings_the_prompts_own_log_probabilities(sdk: OpenAI) -> None:
    answer = sdk.completions.create(
        model="automaton", prompt="Hello this is", temperature=0, max_tokens=2, echo=True, logprobs=2
    ).choices[0]
    assert answer.logprobs is not None
    tokens, scores = answer.logprobs.tokens or [], answer.logprobs.token_logprobs or []
    assert "".join(tokens) == answer.text
    assert TEXT.startswith(answer.text)
    assert scores[0] is None
    assert all(score is not None and score > -0.01 for score in scores[1:]), "it knows every next word"
    assert [
        answer.text[at:].startswith(token) for token, at in zip(tokens, answer.logprobs.text_offset or [], strict=True)
    ]


def test_prompts_may_be_several_and_token_ids(sdk: OpenAI) -> None:
    vocabulary = Automaton().vocabulary
    ids = [vocabulary.id("Hello"), vocabulary.id("Ġthis")]
    by_ids = sdk.completions.create(model="automaton", prompt=ids, temperature=0, max_tokens=1, echo=True)
    assert by_ids.choices[0].text == "Hello this is"
    several = sdk.completions.create(
        model="automaton", prompt=["Hello", "Hello this"], temperature=0, max_tokens=1, n=2
    )
    assert [choice.index for choice in several.choices] == [0, 1, 2, 3]
    assert [choice.text for choice in several.choices] == [" this", " this", " is", " is"]


def test_a_prompt_is_scored_without_an_answer(sdk: OpenAI) -> None:
    answer = sdk.completions.create(model="automaton", prompt="Hello this is", max_tokens=0, echo=True, logprobs=0)
    assert answer.choices[0].text == "Hello this is"
    assert answer.usage is not None and answer.usage.completion_tokens == 0
    assert answer.choices[0].finish_reason == "length"


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"model": "automaton-llamacpp", "echo": True, "logprobs": 1}, "echo"),
        ({"suffix": "x"}, "suffix"),
        ({"best_of": 1, "n": 2}, "best_of"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [1, "a"]}, "prompt"),
        ({"prompt": [99999999]}, "prompt"),
        ({"prompt": ["a"] * 100, "n": 2}, "prompt"),
    ],
)
def test_a_completion_that_cannot_be_is_refused_by_name(changes: Any, param: str, sdk: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        sdk.completions.create(**{"model": "automaton", "prompt": "Hello"} | changes)
    assert refused.value.param == param


# ---- what surrounds it ----------------------------------------------------------------------------------------------


def test_the_list_of_models_says_which_engine_and_why(sdk: OpenAI) -> None:
    listed = {model.id: model.model_dump() for model in sdk.models.list()}
    assert listed["automaton"]["engine"] == "openvino"
    assert listed["automaton"]["engine_reason"]
    assert listed["automaton"]["context_length"] == listed["automaton"]["max_model_len"] == 2048
    assert (listed["rebel-llamacpp"]["engine"], listed["rebel-llamacpp"]["engine_reason"]) == ("llamacpp", None)


@pytest.mark.parametrize("model", REBELS)
def test_a_client_that_leaves_frees_the_model(model: str, generating: Live) -> None:
    body = {"model": model, "messages": HELLO, "stream": True, "ignore_eos": True, "max_tokens": 1500}
    with generating.client() as client, client.stream("POST", "/v1/chat/completions", json=body) as reply:
        next(reply.iter_lines())

    def idle() -> bool:
        health = httpx.get(f"{generating.url}/health", timeout=5, trust_env=False).json()
        return bool(health["models"][model]["in_flight"] == 0)

    wait_for(idle, "the model stayed busy", generating.log, generating.process)


def test_a_request_that_outlasts_the_models_deadline_ends_with_a_fault(generating: Live) -> None:
    body = {"model": "late", "messages": [{"role": "user", "content": "one two three"}]}
    with generating.client() as client:
        whole = client.post("/v1/chat/completions", json=body)
        lines = client.post("/v1/chat/completions", json=body | {"stream": True}).text.split("\n\n")
    assert whole.status_code == 504
    assert whole.json()["error"]["code"] == "deadline_exceeded"
    assert whole.headers["x-should-retry"] == "false", "asking again would cost as much again"
    assert json.loads(lines[-2].removeprefix("data: "))["error"]["code"] == "deadline_exceeded"
