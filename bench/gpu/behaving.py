"""Whether an engine behaves on a real device: cancelling, refusing, reading a prompt once, keeping to a grammar.

Each function drives an engine that is loaded, `room` tokens of context, and returns figures; it raises RuntimeError
where the engine does not come to an end.
"""

import json
import time
from collections.abc import Iterable, Sequence

import numpy as np

from bench.gpu.arithmetic import same_tokens
from bench.gpu.driving import engine_timed, prompts
from server.errors import HearthError
from server.models.engine import Delta, Engine, Event, Failed, Generate, Grammar, Sampling

ROOM = 2048
"""Tokens of context that these need."""
_STEPS = 20_000
_SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "count": {"type": "integer", "minimum": 0, "maximum": 999},
    },
    "required": ["name", "count"],
    "additionalProperties": False,
    # Random weights would fill an answer with spaces.
    "x-guidance": {"whitespace_flexible": False},
}


def cancelled(engine: Engine, vocabulary: int, tokens: int = 48) -> dict[str, float]:
    """One of two requests is cancelled midway: it gets nothing more, the other answers as it does alone, and a request
    for all the room there is can begin."""
    gone, stays = prompts(2, 300, vocabulary, seed=2)
    alone = engine_timed(engine, [stays], tokens).ids
    for key, prompt in ((0, gone), (1, stays)):
        engine.submit(key, _greedy(prompt, tokens))
    ids: list[int] = []
    heard, late = False, 0
    for key, event in _steps(engine):
        if isinstance(event, Failed):
            raise RuntimeError(f"request {key} failed: {event.message}")
        if key == 0:
            late += heard
            if not heard and isinstance(event, Delta) and event.tokens:
                engine.cancel(0)
                heard = True
        elif isinstance(event, Delta):
            ids += event.ids
    whole = prompts(1, ROOM - 16, vocabulary, seed=3)
    begun = engine_timed(engine, whole, 4).tokens
    return {"late": float(late), "same": same_tokens([ids], alone), "begun": float(begun == 4)}


def overlong(engine: Engine, vocabulary: int) -> dict[str, float]:
    """A prompt over the context is refused by a fault that says so, and the next request is answered."""
    refused = False
    try:
        engine.submit(0, _greedy(prompts(1, ROOM + 1, vocabulary)[0], 4))
    except HearthError as error:
        refused = error.code == "context_length_exceeded"
    else:
        refused = any(
            isinstance(event, Failed) and event.code == "context_length_exceeded" for _, event in _steps(engine)
        )
    idle = not engine.busy
    answered = engine_timed(engine, prompts(1, 16, vocabulary), 4).tokens
    return {"refused": float(refused and idle), "answered": float(answered == 4)}


def shared_prefix(engine: Engine, vocabulary: int) -> dict[str, float]:
    """Of a prompt that begins as an earlier one did: the share of the beginning that is not computed again, how long
    the first token takes beside the first time, and whether answers are those of a prompt that was never read."""
    beginning = prompts(1, ROOM // 2, vocabulary, seed=4)[0]
    tails = prompts(2, 24, vocabulary, seed=5)
    cold, _, _ = _asked(engine, [*beginning, *tails[0]])
    warm, cached, found = _asked(engine, [*beginning, *tails[1]])
    again, _, repeated = _asked(engine, [*beginning, *tails[1]])
    return {
        "kept": cached / len(beginning),
        "first": min(warm, again) / cold,
        "same": same_tokens([found], [repeated]),
    }


def grammar(engine: Engine, vocabulary: int, streams: int = 8) -> dict[str, float]:
    """The share of answers to random prompts, at temperature 1 and all at once, that conform to a schema."""
    said = [""] * streams
    for key, prompt in enumerate(prompts(streams, 24, vocabulary, seed=6)):
        rules = Grammar("json_schema", json.dumps(_SCHEMA))
        sampling = Sampling(temperature=1.0, seed=key)
        engine.submit(key, Generate(prompt=prompt, max_tokens=160, sampling=sampling, grammar=rules))
    for key, event in _steps(engine):
        if isinstance(event, Failed):
            raise RuntimeError(f"request {key} failed: {event.message}")
        if isinstance(event, Delta):
            said[key] += event.text
    return {"valid": float(np.mean([conforms(text) for text in said]))}


def conforms(text: str) -> bool:
    """Whether a text is an object of the schema that `grammar` asks for."""
    try:
        found = json.loads(text)
    except ValueError:
        return False
    if not isinstance(found, dict) or set(found) != {"name", "count"}:
        return False
    name, count = found["name"], found["count"]
    whole = isinstance(count, int) and not isinstance(count, bool) and 0 <= count <= 999
    return whole and isinstance(name, str) and len(name) <= 12


BEHAVIOURS = {each.__name__: each for each in (cancelled, overlong, shared_prefix, grammar)}

FIGURES: dict[str, dict[str, tuple[str, float | None, float | None]]] = {
    "cancelled": {
        "late": ("events of a request after it was cancelled", None, 0.0),
        "same": ("the request beside a cancelled one answers as alone, share of tokens", 0.95, None),
        "begun": ("a request for all the room begins after a cancelled one", 1.0, None),
    },
    "overlong": {
        "refused": ("a prompt over the context is refused by its fault", 1.0, None),
        "answered": ("the request after an over-long one is answered", 1.0, None),
    },
    "shared_prefix": {
        "kept": ("share of a beginning read before that is not computed again", 0.7, None),
        "first": ("first token after a beginning read before, beside the first time", None, None),
        "same": ("two answers after it alike, share of tokens", 0.95, None),
    },
    "grammar": {"valid": ("8 answers at once that conform to a JSON schema, share", 1.0, None)},
}
"""What each behaviour's figures are called, and their bars: at least, at most."""


def _greedy(prompt: Sequence[int], tokens: int) -> Generate:
    sampling = Sampling(temperature=0.0, ignore_eos=True)
    return Generate(prompt=list(prompt), max_tokens=tokens, sampling=sampling, token_ids=True)


def _asked(engine: Engine, prompt: Sequence[int]) -> tuple[float, int, list[int]]:
    """Seconds to the first token, how many of the prompt's had been computed before, and the answer."""
    started, first, cached = time.perf_counter(), 0.0, 0
    ids: list[int] = []
    engine.submit(0, _greedy(prompt, 16))
    for _, event in _steps(engine):
        if isinstance(event, Failed):
            raise RuntimeError(f"the request failed: {event.message}")
        if isinstance(event, Delta):
            first = first or (time.perf_counter() - started if event.ids else 0.0)
            cached += event.cached_tokens
            ids += event.ids
    return first, cached, ids


def _steps(engine: Engine) -> Iterable[tuple[int, Event]]:
    """The events until the engine is idle. Raises RuntimeError where it is not after many steps."""
    for _ in range(_STEPS):
        if not engine.busy:
            return
        yield from engine.step()
    raise RuntimeError("the engine was busy after many steps with nothing to do")
