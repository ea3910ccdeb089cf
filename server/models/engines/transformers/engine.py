"""The transformers engine: every architecture that library reads from a folder, on the processor. Workers only.

Each answer keeps a cache of its own and is computed by itself, so that whatever kind of cache an architecture has
works, and company never changes an answer. Faster, where they can: the engines openvino and llamacpp.
"""

import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from config.model import LocalModel
from server.errors import HearthError
from server.models.abilities import ABILITIES, infilling
from server.models.engine import (
    Admitted,
    Card,
    Delta,
    Detokenize,
    Event,
    Failed,
    Generate,
    Progress,
    Request,
    Scored,
    Spelled,
    Tokenize,
    TokenLogprob,
    Tokens,
    is_last,
)
from server.models.engines.sampling.admission import Desk
from server.models.engines.sampling.sampler import Chooser, Sampler
from server.models.engines.sampling.vocabulary import Speaking
from server.models.engines.transformers.model import Causal, words

_LONGEST_CONTEXT = 8192
"""Tokens where the recipe does not say; many models claim 131072."""
_STEP_SECONDS = 0.1
_LEAST, _MOST = 8, 1024
"""Bounds of a piece of a prompt, in tokens."""


@dataclass(eq=False)
class _Answer:
    """One request under way: the prompt's tokens, then those chosen. `past` of them are in `cache`."""

    key: int
    tokens: list[int]
    prompt: int
    limit: int
    chooser: Chooser
    speaking: Speaking
    scores: int | None
    """How many alternatives each of the prompt's tokens is wanted with; None once they were told, or never."""
    ids: bool
    cache: Any = None
    past: int = 0
    scored: list[TokenLogprob] = field(default_factory=list)

    @property
    def due(self) -> int:
        return len(self.tokens) - self.past


class TransformersEngine:
    """Serves Generate requests whose `prompt` is rendered; those beyond `parallel` wait their turn."""

    def __init__(self, spec: LocalModel, files: Path) -> None:
        self._spec = spec
        self._files = files
        self._waiting: deque[_Answer] = deque()
        self._running: deque[_Answer] = deque()
        self._model: Causal | None = None

    def load(self, progress: Progress) -> Card:
        spec = self._spec
        progress(f"reading {self._files.name} with transformers")
        model = Causal(self._files, spec.precision, spec.threads)
        self._words = words(self._files, model.vocabulary)
        self._model = model
        self._context = spec.context or min(model.context or _LONGEST_CONTEXT, _LONGEST_CONTEXT)
        if model.context is not None and self._context > model.context:
            raise ValueError(
                f"{self._files / 'config.json'}: the model reads {model.context} tokens, and the recipe's context is "
                f"{self._context}"
            )
        self._desk = Desk(self._words, self._context)
        self._sampler = Sampler(model.vocabulary)
        progress("computing once")
        self._rate = model.warm(max(4, min(32, self._context)))
        return Card(
            task="chat",
            description=f"A {model.family} model, computed by transformers.",
            context=self._context,
            honours=infilling(ABILITIES["transformers"], self._words.infill),
            precision=model.precision,
            weights_bytes=model.weights_bytes,
            cache_bytes=spec.parallel * self._context * model.bytes_per_token,
            rendered=True,
            family=model.family,
            template=self._words.template,
            special=self._words.special,
            control=self._words.control,
            infill=self._words.infill,
        )

    # ---- requests ---------------------------------------------------------------------------------------------------

    def submit(self, key: int, request: Request) -> Admitted:
        admitted = self._desk.admit(request)
        answer = _Answer(
            key,
            admitted.tokens,
            len(admitted.tokens),
            admitted.limit,
            admitted.chooser,
            admitted.speaking,
            admitted.scored,
            admitted.ids,
        )
        self._waiting.append(answer)
        return admitted.told

    def tokenize(self, request: Tokenize) -> Tokens:
        return self._desk.tokenize(request)

    def detokenize(self, request: Detokenize) -> Spelled:
        return self._desk.detokenize(request)

    def count(self, request: Generate) -> int:
        return self._desk.count(request)

    def cancel(self, key: int) -> None:
        for answers in (self._waiting, self._running):
            for answer in answers:
                if answer.key == key:
                    answers.remove(answer)
                    return

    @property
    def busy(self) -> bool:
        return bool(self._waiting or self._running)

    def close(self) -> None:
        self._waiting.clear()
        self._running.clear()
        self._model = None

    # ---- steps ------------------------------------------------------------------------------------------------------

    def step(self) -> list[tuple[int, Event]]:
        """A piece of a prompt or one token for each answer in turn, as many as the time allows."""
        while self._waiting and len(self._running) < self._spec.parallel:
            self._running.append(self._waiting.popleft())
        events: list[tuple[int, Event]] = []
        until = time.perf_counter() + _STEP_SECONDS
        for _ in range(len(self._running)):
            answer = self._running.popleft()
            seconds = until - time.perf_counter()
            count = min(answer.due, max(_LEAST, min(_MOST, int(self._rate * seconds))))
            found = self._advanced(answer, count)
            events += [(answer.key, event) for event in found]
            if not (found and is_last(found[-1])):
                self._running.append(answer)
            if time.perf_counter() >= until:
                break
        return events

    def _advanced(self, answer: _Answer, count: int) -> list[Event]:
        """What computing `count` more tokens brought; nothing where a prompt goes on."""
        assert self._model is not None
        if answer.cache is None:
            answer.cache = self._model.remembering()
        tokens = answer.tokens[answer.past : answer.past + count]
        started = time.perf_counter()
        wanted = count if answer.scores is not None else int(count == answer.due)
        logits = self._model.compute(tokens, answer.cache, answer.past, wanted)
        if count >= _LEAST:
            self._rate += 0.3 * (count / (time.perf_counter() - started) - self._rate)
        events: list[Event] = []
        if answer.scores is not None:
            self._score(answer, logits, count, answer.scores)
        answer.past += count
        if answer.due:
            return events
        if answer.scores is not None:
            events.append(Scored(answer.scored))
            answer.scores = None
        return [*events, self._chosen(answer, logits)]

    def _score(self, answer: _Answer, logits: NDArray[np.float32], count: int, alternatives: int) -> None:
        """Of a piece of the prompt: each row of logits tells of the token after it."""
        if answer.past == 0:
            answer.scored.append(self._desk.logprob(answer.tokens[0], None))
        after = answer.tokens[answer.past + 1 : answer.past + count + 1]
        for row, token in zip(logits, after, strict=False):  # nothing is known of what follows the last one
            answer.scored += self._desk.logprobs(self._sampler.told(row, token, alternatives))

    def _chosen(self, answer: _Answer, logits: NDArray[np.float32]) -> Event:
        """The answer's next token, from the last row."""
        if answer.limit == 0:
            return Delta(finish_reason="length")
        [choice] = self._sampler.choose(logits, [(len(logits) - 1, answer.chooser)])
        if isinstance(choice, HearthError):
            return Failed.of(choice)
        if choice.token in answer.chooser.ends:
            return Delta(answer.speaking.flush(), finish_reason="stop")
        answer.tokens.append(choice.token)
        text = answer.speaking.feed(choice.token)
        reason = None
        if answer.chooser.ended:
            reason = "stop"
        elif len(answer.tokens) - answer.prompt >= answer.limit:
            reason = "length"
        if reason is not None:
            text += answer.speaking.flush()
        ids = [choice.token] if answer.ids else []
        return Delta(text, 1, finish_reason=reason, logprobs=self._desk.logprobs(choice), ids=ids)
