"""How these tests load an engine and read its answers: in float32, where the same request gets the same tokens."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from config.model import LocalModel
from server.models.engine import Delta, Event, Failed, Generate, Sampling, Scored, TokenLogprob
from server.models.engines.paged import PagedEngine

_MOST_STEPS = 20_000


def opened(path: Path, drafter: Path | None = None, **keys: Any) -> PagedEngine:
    """An engine with its weights in, exact unless `keys` of the recipe say otherwise."""
    told = {"engine": "openvino", "source": str(path), "precision": "f32", "weights": "float", "context": 512, **keys}
    if drafter is not None:
        told["draft"] = str(drafter)
    engine = PagedEngine(LocalModel.model_validate(told), path, drafter)
    engine.load(lambda _: None)
    return engine


def asking(prompt: str | Sequence[int], most: int | None = 24, **sampling: Any) -> Generate:
    """Greedy unless `sampling` says otherwise."""
    prompt = prompt if isinstance(prompt, str) else list(prompt)
    return Generate(prompt=prompt, max_tokens=most, sampling=Sampling(**{"temperature": 0.0, **sampling}))


class Answer(msgspec.Struct):
    """What one request got."""

    text: str = ""
    tokens: int = 0
    cached: int = 0
    reason: str | None = None
    logprobs: list[TokenLogprob] = []
    scored: list[TokenLogprob] | None = None
    failed: Failed | None = None

    def hear(self, event: Event) -> None:
        match event:
            case Delta():
                self.text += event.text
                self.tokens += event.tokens
                self.cached += event.cached_tokens
                self.reason = event.finish_reason
                self.logprobs = self.logprobs + event.logprobs
            case Scored(tokens):
                assert self.tokens == 0 and self.scored is None
                self.scored = tokens
            case Failed():
                self.failed = event


def stepped(engine: PagedEngine, answers: dict[int, Answer], steps: int = _MOST_STEPS) -> None:
    """Go on until there is no more work, or for so many steps."""
    for _ in range(steps):
        if not engine.busy:
            return
        for key, event in engine.step():
            answers.setdefault(key, Answer()).hear(event)
    assert steps < _MOST_STEPS, "the engine never became idle"


def answered(engine: PagedEngine, *requests: Generate) -> list[Answer]:
    """What each got when all were submitted at once."""
    answers = {key: Answer() for key in range(len(requests))}
    for key, request in enumerate(requests):
        engine.submit(key, request)
    stepped(engine, answers)
    return [answers[key] for key in range(len(requests))]


def alone(engine: PagedEngine, *requests: Generate) -> list[Answer]:
    """What each got when it was the only one."""
    return [answered(engine, request)[0] for request in requests]


def same(found: Sequence[Answer], expected: Sequence[Answer]) -> bool:
    """Whether texts, counts and ends are equal; how much was found computed may differ."""
    return [(each.text, each.tokens, each.reason) for each in found] == [
        (each.text, each.tokens, each.reason) for each in expected
    ]
