"""The starter recipe as a user meets it: a real server, the real SDK, real answers from the handbook."""

import base64
import struct

import openai
import pytest

from tests.live import Live

pytestmark = pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20")


@pytest.fixture(scope="module")
def sdk(starter: Live) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{starter.url}/v1", api_key="none", max_retries=0, timeout=60)


QUESTION = "How do I add my own documents?"


def test_the_starter_answers_about_itself_with_a_quote_and_its_source(sdk: openai.OpenAI) -> None:
    answer = sdk.chat.completions.create(model="starter", messages=[{"role": "user", "content": QUESTION}])
    choice = answer.choices[0]
    content = choice.message.content or ""
    assert "ingest" in content or "sources" in content
    assert choice.finish_reason == "stop"
    cited = answer.model_dump(warnings=False)["choices"][0]["message"]["annotations"][0]
    assert cited["type"] == "file_citation"
    assert cited["filename"].endswith(".md")
    assert content[cited["start_index"] : cited["end_index"]] == cited["quote"]
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.usage.completion_tokens > 5


def test_the_citation_marks_the_words_that_answer(sdk: openai.OpenAI) -> None:
    asked = "How many numbers does a vector of embed have?"
    answer = sdk.chat.completions.create(model="starter", messages=[{"role": "user", "content": asked}])
    message = answer.model_dump(warnings=False)["choices"][0]["message"]
    [cited] = message["annotations"]
    assert "384" in cited["answer"]
    assert len(cited["answer"]) < len(cited["quote"])
    assert message["content"][cited["answer_start_index"] : cited["answer_end_index"]] == cited["answer"]


def test_a_stream_brings_the_same_text_as_the_whole_answer(sdk: openai.OpenAI) -> None:
    asked = {"model": "starter", "messages": [{"role": "user", "content": QUESTION}]}
    whole = sdk.chat.completions.create(**asked).choices[0].message.content
    chunks = list(sdk.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == whole
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].usage is not None
    assert len({chunk.id for chunk in chunks}) == 1


def test_what_the_documents_do_not_say_is_not_answered(sdk: openai.OpenAI) -> None:
    asked = "Who won the football world cup in 1974?"
    answer = sdk.chat.completions.create(model="starter", messages=[{"role": "user", "content": asked}])
    assert "did not find" in (answer.choices[0].message.content or "")


@pytest.mark.parametrize("said", ["hello", "What can you do?", "thanks!"])
def test_small_talk_gets_an_honest_description(sdk: openai.OpenAI, said: str) -> None:
    answer = sdk.chat.completions.create(model="starter", messages=[{"role": "user", "content": said}])
    assert "built-in reader" in (answer.choices[0].message.content or "")


def test_the_bare_reader_says_that_it_has_no_knowledge(sdk: openai.OpenAI) -> None:
    answer = sdk.chat.completions.create(model="reader", messages=[{"role": "user", "content": QUESTION}])
    assert "no collection is attached" in (answer.choices[0].message.content or "")


def test_max_tokens_and_stop_are_honoured(sdk: openai.OpenAI) -> None:
    asked = {"model": "starter", "messages": [{"role": "user", "content": QUESTION}]}
    short = sdk.chat.completions.create(**asked, max_tokens=3)
    assert short.choices[0].finish_reason == "length"
    assert short.usage is not None
    assert short.usage.completion_tokens <= 3
    stopped = sdk.chat.completions.create(**asked, stop=[" — "])
    assert stopped.choices[0].finish_reason == "stop"
    assert (stopped.choices[0].message.content or "").endswith("”")


def test_embeddings_are_the_same_as_numbers_and_as_base64(sdk: openai.OpenAI, starter: Live) -> None:
    by_sdk = sdk.embeddings.create(model="embed", input=["a cat", "a dog", "tax law"])
    assert [row.index for row in by_sdk.data] == [0, 1, 2]
    assert len(by_sdk.data[0].embedding) == 384
    with starter.client() as client:
        body = {"model": "embed", "input": "a cat"}
        numbers = client.post("/v1/embeddings", json=body).json()["data"][0]["embedding"]
        packed = client.post("/v1/embeddings", json=body | {"encoding_format": "base64"}).json()["data"][0]["embedding"]
    assert numbers == pytest.approx(by_sdk.data[0].embedding, abs=2e-3)
    assert list(struct.unpack("<384f", base64.b64decode(packed))) == pytest.approx(numbers, abs=1e-6)
    assert sum(value * value for value in numbers) == pytest.approx(1, abs=1e-3)


def test_models_tell_their_true_context(sdk: openai.OpenAI) -> None:
    listed = {model.id: model.model_dump() for model in sdk.models.list()}
    assert {"starter", "reader", "embed"} <= set(listed)
    assert listed["embed"]["context_length"] == listed["embed"]["max_model_len"] == 512
    assert listed["starter"]["knowledge"] == ["handbook"]
    assert sdk.models.retrieve("starter").id == "starter"


def test_retrieve_finds_the_page_and_its_characters(starter: Live) -> None:
    asked = {"query": QUESTION, "collections": ["handbook"], "k": 3}
    with starter.client() as client:
        for mode in ("hybrid", "vector", "text"):
            page = client.post("/v1/retrieve", json=asked | {"mode": mode}).json()
            assert page["object"] == "retrieval.page"
            assert 1 <= len(page["data"]) <= 3
            for chunk in page["data"]:
                assert 0 <= chunk["score"] <= 1
                assert chunk["span"]["end"] - chunk["span"]["start"] == len(chunk["content"][0]["text"])
        only = asked | {"filters": {"type": "eq", "key": "filename", "value": "recipes.md"}}
        assert {chunk["filename"] for chunk in client.post("/v1/retrieve", json=only).json()["data"]} == {"recipes.md"}


def test_state_routes(starter: Live) -> None:
    with starter.client() as client:
        assert client.get("/healthz").json() == {"status": "ok"}
        assert client.head("/healthz").status_code == 200
        assert client.get("/readyz").json() == {"ready": True, "waiting": []}
        health = client.get("/health").json()
        assert health["status"] == "ok"
        assert health["knowledge"]["handbook"]["documents"] >= 5
        metrics = client.get("/metrics").text
        assert "gen_ai_server_request_duration_seconds_bucket" in metrics
        assert 'hearth_model_ready{gen_ai_request_model="embed"' in metrics
        assert 'hearth_model_info{gen_ai_request_model="embed",hearth_device="cpu",hearth_engine="openvino"' in metrics
