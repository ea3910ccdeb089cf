"""Token ids over the wire: counts that generation agrees with, in vLLM's shape and in llama.cpp's."""

from typing import Any

import pytest

from tests.live import Live
from tests.wire.asking import post, told

AUTOMATA = ["automaton", "automaton-llamacpp"]
HELLO = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello, naïve 漢字!"}]
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
TEXT = "Hello this é <|im_end|>"


@pytest.mark.parametrize("model", AUTOMATA)
@pytest.mark.parametrize("extra", [{}, {"tools": [WEATHER]}, {"chat_template_kwargs": {"enable_thinking": False}}])
def test_a_conversation_is_counted_as_generation_counts_it(model: str, extra: dict[str, Any], generating: Live) -> None:
    counted = told(generating, "/v1/tokenize", model=model, messages=HELLO, **extra)
    answer = told(generating, "/v1/chat/completions", model=model, messages=HELLO, max_tokens=1, **extra)
    assert counted["count"] == len(counted["tokens"]) == answer["usage"]["prompt_tokens"]
    assert counted["max_model_len"] == 2048
    assert "token_strs" not in counted


@pytest.mark.parametrize("model", AUTOMATA)
def test_a_text_is_counted_as_a_completion_counts_it(model: str, generating: Live) -> None:
    counted = told(generating, "/tokenize", model=model, prompt=TEXT)
    answer = told(generating, "/v1/completions", model=model, prompt=TEXT, max_tokens=1)
    by_ids = told(generating, "/v1/completions", model=model, prompt=counted["tokens"], max_tokens=1)
    assert counted["count"] == answer["usage"]["prompt_tokens"] == by_ids["usage"]["prompt_tokens"]
    assert answer["choices"][0]["text"] == by_ids["choices"][0]["text"]


@pytest.mark.parametrize("model", AUTOMATA)
def test_tokens_are_shown_with_their_texts(model: str, generating: Live) -> None:
    shown = told(generating, "/tokenize", model=model, content=TEXT, with_pieces=True, return_token_strs=True)
    assert [piece["piece"] for piece in shown["tokens"][:2]] == ["Hello", " this"]
    assert [195] in [piece["piece"] for piece in shown["tokens"]]  # half of a character is no text
    said = b"".join(
        piece["piece"].encode() if isinstance(piece["piece"], str) else bytes(piece["piece"])
        for piece in shown["tokens"]
    )
    assert said.decode() == TEXT
    assert len(shown["token_strs"]) == shown["count"]
    plain = told(generating, "/tokenize", model=model, content=TEXT)
    assert plain["tokens"] == [piece["id"] for piece in shown["tokens"]]


@pytest.mark.parametrize("model", AUTOMATA)
def test_control_tokens_are_letters_where_that_is_asked(model: str, generating: Live) -> None:
    read = told(generating, "/tokenize", model=model, content=TEXT)
    spelled = told(generating, "/tokenize", model=model, content=TEXT, parse_special=False)
    assert spelled["count"] > read["count"]
    for tokens in (read["tokens"], spelled["tokens"]):
        back = told(generating, "/detokenize", model=model, tokens=tokens)
        assert back == {"prompt": TEXT, "content": TEXT}


@pytest.mark.parametrize("model", AUTOMATA)
def test_a_rendered_conversation_is_the_prompt_a_chat_reads(model: str, generating: Live) -> None:
    prompt = told(generating, "/v1/apply-template", model=model, messages=HELLO, tools=[WEATHER])["prompt"]
    assert "weather" in prompt
    assert prompt.endswith("<|im_start|>assistant\n")
    chat = told(generating, "/v1/chat/completions", model=model, messages=HELLO, tools=[WEATHER], max_tokens=3)
    bare = told(generating, "/v1/completions", model=model, prompt=prompt, max_tokens=3)
    assert bare["usage"]["prompt_tokens"] == chat["usage"]["prompt_tokens"]
    assert bare["choices"][0]["text"] == chat["choices"][0]["message"]["content"]
    open_ended = told(generating, "/apply-template", model=model, messages=HELLO, add_generation_prompt=False)
    assert not open_ended["prompt"].endswith("assistant\n")


def test_an_embedder_counts_as_embedding_counts(wire: Live) -> None:
    text = "The library opens at nine."
    counted = told(wire, "/v1/tokenize", model="embed", prompt=text)
    embedded = told(wire, "/v1/embeddings", model="embed", input=text)
    assert counted["count"] == embedded["usage"]["prompt_tokens"]
    bare = told(wire, "/tokenize", model="embed", content=text)
    assert bare["tokens"] == counted["tokens"][1:-1]
    assert told(wire, "/v1/detokenize", model="embed", tokens=bare["tokens"])["prompt"] == text.lower()


def test_faults_name_the_field(generating: Live) -> None:
    both = post(generating, "/v1/tokenize", model="automaton", prompt="a", content="b")
    neither = post(generating, "/v1/tokenize", model="automaton")
    foreign = post(generating, "/v1/detokenize", model="automaton", tokens=[1, 10_000_000])
    negative = post(generating, "/v1/detokenize", model="automaton", tokens=[-1])
    unknown = post(generating, "/v1/tokenize", model="automat", prompt="a")
    rendered = post(generating, "/v1/apply-template", model="late", messages=HELLO)
    faults = [(each.status_code, each.json()["error"]["param"]) for each in (both, neither, foreign, negative)]
    assert faults == [(400, "prompt"), (400, "prompt"), (400, "tokens"), (400, "tokens[0]")]
    assert unknown.status_code == 404
    assert (rendered.status_code, rendered.json()["error"]["param"]) == (400, "messages")


def test_a_model_without_token_ids_says_so(wire: Live) -> None:
    for path, body in (("/tokenize", {"prompt": "a"}), ("/detokenize", {"tokens": [1]})):
        reply = post(wire, path, model="echo", **body)
        assert reply.status_code == 400
        assert "no token ids" in reply.json()["error"]["message"]


def test_the_model_may_be_left_out_where_there_is_one(wire: Live, keyed: Live) -> None:
    several = post(wire, "/tokenize", prompt="a")
    assert (several.status_code, several.json()["error"]["param"]) == (400, "model")
    assert "echo, other, slow" in several.json()["error"]["message"]
    with keyed.client("sk-infer-12345") as client:
        only = client.post("/tokenize", json={"prompt": "a"})
    assert "no token ids" in only.json()["error"]["message"]  # the echo model's own words
