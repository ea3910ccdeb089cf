"""Answers from documents by a model that generates: a real server, a real search, and a model that reads what it finds.

The tiny model knows one sentence of facts when it sees it; nothing in its weights says which facts.
"""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import FACTS, OTHER
from tests.live import Live
from tests.making.oracle import needs_torch

pytestmark = needs_torch


@pytest.fixture
def client(grounded: Live) -> Iterator[httpx.Client]:
    with grounded.client() as opened:
        yield opened


def ask(client: httpx.Client, model: str, key: str) -> dict[str, Any]:
    messages = [{"role": "user", "content": f"answer {key}?"}]
    body = {"model": model, "messages": messages, "temperature": 0, "max_tokens": 8}
    answer: dict[str, Any] = client.post("/v1/chat/completions", json=body).raise_for_status().json()
    return answer


def said(answer: dict[str, Any]) -> str:
    return str(answer["choices"][0]["message"]["content"]).strip()


@pytest.mark.parametrize(("key", "value"), [pair for pairs in FACTS.values() for pair in pairs.items()])
def test_the_answer_is_what_the_documents_say(client: httpx.Client, key: str, value: str) -> None:
    assert said(ask(client, "guide", key)) == f"{key} {value}"


@pytest.mark.parametrize(("key", "value"), OTHER.items())
def test_other_documents_make_the_same_question_another_answer(client: httpx.Client, key: str, value: str) -> None:
    assert said(ask(client, "stranger", key)) == f"{key} {value}"


def test_the_passages_count_as_tokens_of_the_prompt(client: httpx.Client) -> None:
    page = client.post("/v1/retrieve", json={"query": "answer fox?", "collections": ["facts"]}).json()
    found = [chunk["content"][0]["text"] for chunk in page["data"]]
    assert len(found) == len(FACTS)
    alone, grounded = (ask(client, model, "fox")["usage"]["prompt_tokens"] for model in ("tiny", "guide"))
    assert grounded - alone > sum(len(text.split()) for text in found)
