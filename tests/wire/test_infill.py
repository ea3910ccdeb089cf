"""Filling in the middle, as editors ask for it: OpenAI's suffix, Mistral's route, llama.cpp's own."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from server.models.made import TEMPLATE
from server.models.made.gguf_file import write_gguf
from server.models.made.shapes import random_shape
from server.models.made.vocabulary import Vocabulary, trained
from server.models.made.weights import Random
from tests.live import Live, serving
from tests.wire.asking import post, told

CODERS = ["coder", "coder-llamacpp"]
NAMES = ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|repo_name|>", "<|file_sep|>")
BEFORE, AFTER = "def add(a, b):\n    return ", "\n\nprint(add(1, 2))\n"


@dataclass(frozen=True)
class Coding(Vocabulary):
    """Its unused names are those of Qwen's code models."""

    def padded(self, size: int) -> list[str]:
        used = len(self.tokens)
        return [*self.tokens, *NAMES, *super().padded(size)[used + len(NAMES) :]]


VOCABULARY = trained(1900, "qwen2")
PREFIX, SUFFIX, MIDDLE, REPOSITORY, FILE = range(len(VOCABULARY.tokens), len(VOCABULARY.tokens) + len(NAMES))


@pytest.fixture(scope="module")
def coding(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """Random weights with tokens for filling in, on two engines: what they say depends on all that they read."""
    folder = tmp_path_factory.mktemp("coding")
    shape = random_shape("small", "qwen2")
    vocabulary = Coding(VOCABULARY.tokens, VOCABULARY.merges, VOCABULARY.pre)
    weights = Random(shape, 1, vocabulary.special, len(vocabulary.tokens), quantised=False)
    template = TEMPLATE.read_text(encoding="utf-8")
    write_gguf(folder / "coder.gguf", "coder", "f32", shape, vocabulary, weights, template)
    recipe = folder / "coding.yaml"
    recipe.write_text(
        "version: 1\n"
        "models:\n"
        "  coder: {engine: openvino, source: ./coder.gguf, context: 512, precision: f32, weights: float}\n"
        "  coder-llamacpp: {engine: llamacpp, source: ./coder.gguf, context: 512, parallel: 2}\n"
        "  echo: {engine: echo}\n",
        encoding="utf-8",
    )
    with serving(recipe, folder / "data") as live:
        yield live


def events(live: Live, path: str, **body: Any) -> list[str]:
    reply = post(live, path, stream=True, **body)
    assert reply.status_code == 200, reply.text
    return [line.removeprefix("data: ") for line in reply.text.splitlines() if line.startswith("data: ")]


def ids(live: Live, model: str, text: str) -> list[int]:
    tokens: list[int] = told(live, "/tokenize", model=model, content=text, parse_special=False)["tokens"]
    return tokens


def said(live: Live, model: str, prompt: list[int], most: int = 8) -> str:
    """What the model says after a prompt, token by token as given."""
    body = {"model": model, "prompt": prompt, "max_tokens": most, "temperature": 0, "ignore_eos": True}
    text: str = told(live, "/v1/completions", **body)["choices"][0]["text"]
    return text


@pytest.mark.parametrize("model", CODERS)
def test_a_suffix_makes_the_prompt_the_model_was_taught(model: str, coding: Live) -> None:
    before, after = ids(coding, model, BEFORE), ids(coding, model, AFTER)
    prompt = [PREFIX, *before, SUFFIX, *after, MIDDLE]
    body = {"model": model, "prompt": BEFORE, "suffix": AFTER, "max_tokens": 8, "temperature": 0, "ignore_eos": True}
    filled = told(coding, "/v1/completions", **body)
    assert filled["choices"][0]["text"] == said(coding, model, prompt)
    assert filled["usage"]["prompt_tokens"] == len(prompt)
    assert said(coding, model, [SUFFIX, *after, PREFIX, *before, MIDDLE]) != said(coding, model, prompt)
    echoed = told(coding, "/completions", **body, echo=True)
    assert echoed["choices"][0]["text"] == BEFORE + filled["choices"][0]["text"]


@pytest.mark.parametrize("model", CODERS)
def test_what_looks_like_a_control_token_in_code_is_letters(model: str, coding: Live) -> None:
    code = "end = '<|im_end|>'"
    filled = told(coding, "/v1/completions", model=model, prompt=code, suffix=code, max_tokens=1)
    assert filled["usage"]["prompt_tokens"] == 3 + 2 * len(ids(coding, model, code))
    assert len(ids(coding, model, code)) > told(coding, "/tokenize", model=model, content=code)["count"]


@pytest.mark.parametrize("model", CODERS)
def test_mistrals_route_answers_as_continue_reads_it(model: str, coding: Live) -> None:
    body = {"model": model, "prompt": BEFORE, "suffix": AFTER, "max_tokens": 8, "temperature": 0}
    body |= {"stop": [f"word {index}" for index in range(20)], "random_seed": 7, "min_tokens": 0}
    whole = told(coding, "/v1/fim/completions", **body)
    choice = whole["choices"][0]
    assert (whole["object"], choice["message"]["role"]) == ("chat.completion", "assistant")
    assert choice["text"] == choice["message"]["content"]
    assert whole["usage"]["completion_tokens"] <= 8
    *chunks, done = events(coding, "/fim/completions", **body)
    read = [json.loads(chunk) for chunk in chunks]
    assert done == "[DONE]"
    assert "".join(chunk["choices"][0]["delta"]["content"] for chunk in read) == choice["text"]
    assert read[0]["choices"][0]["delta"]["role"] == "assistant"
    assert [chunk["choices"][0]["finish_reason"] for chunk in read][-1] == choice["finish_reason"]
    assert read[-1]["usage"]["completion_tokens"] == whole["usage"]["completion_tokens"]
    assert read[-1]["usage"]["prompt_tokens"] == whole["usage"]["prompt_tokens"]


@pytest.mark.parametrize("model", CODERS)
def test_infill_fills_in_as_llama_cpp_does(model: str, coding: Live) -> None:
    said_before = {"input_prefix": "def add(a, b):\n", "prompt": "    return ", "input_suffix": AFTER}
    body = {"model": model, **said_before, "n_predict": 8, "temperature": 0, "ignore_eos": True}
    whole = told(coding, "/infill", **body)
    prompt = [PREFIX, *ids(coding, model, BEFORE), SUFFIX, *ids(coding, model, AFTER), MIDDLE]
    assert whole["content"] == said(coding, model, prompt)
    assert (whole["stop"], whole["stop_type"], whole["tokens_predicted"]) == (True, "limit", 8)
    assert whole["tokens_evaluated"] == len(prompt)
    read = [json.loads(event) for event in events(coding, "/infill", **body)]
    assert "".join(event["content"] for event in read) == whole["content"]
    assert [event["stop"] for event in read] == [False] * (len(read) - 1) + [True]
    assert read[-1]["tokens_predicted"] == 8


@pytest.mark.parametrize("model", CODERS)
def test_other_files_are_read_first_as_many_as_fit(model: str, coding: Live) -> None:
    files = [{"filename": f"{name}.py", "text": f"{name} = 1\n"} for name in ("one", "two")]
    body = {"model": model, "input_prefix": BEFORE, "input_suffix": AFTER, "n_predict": 8, "temperature": 0}
    body |= {"ignore_eos": True}
    named = [[FILE, *ids(coding, model, f"{each['filename']}\n{each['text']}")] for each in files]
    head = [REPOSITORY, *ids(coding, model, "project\n")]
    tail = [FILE, *ids(coding, model, "current file\n")]
    plain = [PREFIX, *ids(coding, model, BEFORE), SUFFIX, *ids(coding, model, AFTER), MIDDLE]
    both = told(coding, "/infill", **body, input_extra=files)
    assert both["content"] == said(coding, model, [*head, *named[0], *named[1], *tail, *plain])
    large = {"filename": "large.py", "text": "x = 1\n" * 400}
    last = told(coding, "/infill", **body, input_extra=[large, files[1]])
    assert last["content"] == said(coding, model, [*head, *named[1], *tail, *plain])
    none = told(coding, "/infill", **body, input_extra=[files[0], large])
    assert none["tokens_evaluated"] == len(plain)


def test_a_plugin_is_told_the_fields_it_names(coding: Live) -> None:
    fields = ["content", "timings/prompt_n", "generation_settings/n_ctx", "nothing/there"]
    body = {"model": "coder", "input_prefix": BEFORE, "n_predict": 0, "response_fields": fields, "n_indent": 4}
    reply = post(coding, "/infill", **body)
    assert reply.json() == {
        "content": "",
        "timings/prompt_n": reply.json()["timings/prompt_n"],
        "generation_settings/n_ctx": 512,
    }
    assert reply.headers["x-ignored-params"] == "n_indent"


@pytest.mark.parametrize("model", CODERS)
def test_llama_cpps_completion_goes_on_with_a_prompt(model: str, coding: Live) -> None:
    text = said(coding, model, ids(coding, model, BEFORE), 12)
    stop = text[len(text) // 2 :][:2]
    body = {"model": model, "prompt": BEFORE, "n_predict": 12, "temperature": 0, "ignore_eos": True}
    cut = told(coding, "/completion", **body, stop=[stop, "never met"])
    assert cut["content"] == text[: text.index(stop)]
    assert (cut["stop_type"], cut["stopping_word"]) == ("word", stop)
    by_ids = told(coding, "/completion", **body | {"prompt": ids(coding, model, BEFORE)})
    assert (by_ids["content"], by_ids["stop_type"], by_ids["tokens_predicted"]) == (text, "limit", 12)
    assert by_ids["timings"]["predicted_n"] == 12
    read = told(coding, "/completion", **body | {"n_predict": 0})
    assert (read["content"], read["tokens_predicted"], read["truncated"]) == ("", 0, False)
    full = told(coding, "/completion", **body | {"n_predict": -1})
    assert full["truncated"]
    assert full["tokens_evaluated"] + full["tokens_predicted"] == 512


def test_continues_request_is_understood(coding: Live) -> None:
    body = {"prompt": "Say this", "n_predict": 50, "frequency_penalty": 0, "mirostat": 0, "stop": ["</s>"], "top_k": 5}
    reply = post(coding, "/completion", model="echo", **body, temperature=0.5)
    assert reply.json()["content"] == "Say this"
    assert reply.json()["stop_type"] == "eos"
    ignored = set(reply.headers["x-ignored-params"].split(","))
    assert ignored == {"mirostat", "frequency_penalty", "top_k", "temperature"}


def test_what_llama_cpps_wire_has_and_this_server_has_not_is_refused(coding: Live) -> None:
    asked: list[dict[str, Any]] = [{"grammar": "root ::= [0-9"}, {"n_probs": 3}, {"prompt": ["one", "two"]}]
    for extra in asked:
        reply = post(coding, "/completion", **{"model": "coder", "prompt": "a", "n_predict": 1} | extra)
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, next(iter(extra)))
    schema = {"type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"]}
    bound = told(coding, "/completion", model="coder", prompt="a", json_schema=schema | {"additionalProperties": False})
    assert json.loads(bound["content"])["n"] in (1, 2)
    assert bound["stop_type"] == "eos"
    assert told(coding, "/completion", model="coder", prompt="a", grammar='root ::= "yes"')["content"] == "yes"


def test_a_model_without_the_tokens_refuses_by_name(coding: Live) -> None:
    asked = {
        "/v1/completions": ({"prompt": "a", "suffix": "b"}, "suffix"),
        "/v1/fim/completions": ({"prompt": "a", "suffix": "b"}, "suffix"),
        "/infill": ({"input_prefix": "a"}, "input_suffix"),
    }
    for path, (body, param) in asked.items():
        reply = post(coding, path, model="echo", **body)
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, param), path
    assert post(coding, "/v1/completions", model="echo", prompt="a", suffix="").status_code == 200


def test_the_list_of_models_tells_who_fills_in(coding: Live) -> None:
    with coding.client() as client:
        listed = {each["id"]: each for each in client.get("/v1/models").json()["data"]}
        props = client.get("/props", params={"model": "coder"}).json()
    assert {name: each["capabilities"]["completion_fim"] for name, each in listed.items()} == {
        "coder": True,
        "coder-llamacpp": True,
        "echo": False,
    }
    assert "suffix" in listed["coder"]["supported_parameters"]
    assert props["default_generation_settings"]["n_ctx"] == listed["coder"]["context_length"] == 512
    assert props["default_generation_settings"]["params"]["temperature"] == 0.8
    assert "<|im_start|>" in props["chat_template"]


def test_best_of_gives_the_likeliest_and_counts_all(coding: Live) -> None:
    body = {"model": "coder", "prompt": BEFORE, "max_tokens": 6, "seed": 3, "logprobs": 0, "ignore_eos": True}
    every = told(coding, "/v1/completions", **body, n=4)
    best = told(coding, "/v1/completions", **body, best_of=4, n=2)

    def mean(choice: dict[str, Any]) -> float:
        scores: list[float] = choice["logprobs"]["token_logprobs"]
        return sum(scores) / len(scores)

    ranked = sorted(every["choices"], key=mean, reverse=True)
    assert [choice["text"] for choice in best["choices"]] == [choice["text"] for choice in ranked[:2]]
    assert [choice["index"] for choice in best["choices"]] == [0, 1]
    assert best["usage"] == every["usage"] | {"prompt_tokens_details": best["usage"]["prompt_tokens_details"]}
    assert every["usage"]["completion_tokens"] == 24
    assert every["usage"]["prompt_tokens"] == told(coding, "/tokenize", model="coder", prompt=BEFORE)["count"]
    plain = told(coding, "/v1/completions", **{**body, "logprobs": None}, best_of=4)
    assert plain["choices"][0]["logprobs"] is None
    asked: list[dict[str, Any]] = [{"best_of": 2, "n": 3}, {"best_of": 3, "stream": True}]
    for wrong in [*asked, {"best_of": 3, "model": "echo", "logprobs": None}]:
        reply = post(coding, "/v1/completions", **body | wrong)
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, "best_of")


def test_an_empty_prompt_is_refused_by_name(coding: Live) -> None:
    prompts: list[Any] = ["", [], [[]], ["", 1], [10_000_000], [2**40], [-1]]
    for prompt in prompts:
        reply = post(coding, "/v1/completions", model="coder", prompt=prompt, max_tokens=1)
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, "prompt"), prompt
    several = post(coding, "/v1/completions", model="coder", prompt="", n=16)
    assert (several.status_code, several.json()["error"]["param"]) == (400, "prompt")


def test_a_seed_of_any_size_is_taken(coding: Live) -> None:
    for seed in (-1, -(2**40), 2**63 - 1):
        body = {"prompt": BEFORE, "max_tokens": 2, "seed": seed}
        for model in CODERS:
            assert told(coding, "/v1/completions", model=model, **body)["usage"]["completion_tokens"] <= 2
    with coding.client() as client:
        assert [each["restarts"] for each in client.get("/health").json()["models"].values()] == [0, 0, 0]
