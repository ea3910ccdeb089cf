"""What quantising cost: perplexity and the likeliest token over a text, or right answers to questions, in our engines.

A text is read in windows, each from its own beginning; the engine tells how likely every token was (`prompt_logprobs`).
Perplexity is exp of the mean negative log-likelihood. Both models are computed in float32 with their weights as they
are stored, so that what is compared is the weights and not an engine's rounding.
"""

import json
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

import msgspec

from config.model import LocalModel
from server.models.engine import (
    Card,
    Delta,
    Engine,
    Failed,
    Generate,
    Sampling,
    Scored,
    Tokenize,
    TokenLogprob,
    is_last,
)
from server.models.engines import create
from server.models.header import parts
from server.models.quantization.fault import QuantizeError, Told
from server.models.quantization.work import digest

WINDOW = 512
"""Tokens read at a time."""
MOST_TOKENS = 16_384
_ANSWER_ROOM = 8
"""Tokens an answer may have beyond those of the right one."""
_FLOAT = 4
_SHARE = 0.6
"""Of the memory of this machine, what the weights of one model may take as floats."""


@dataclass(frozen=True)
class Question:
    """`prompt` is read as it is; right is an answer that is `answer`, but for white space around it."""

    prompt: str
    answer: str


@dataclass(frozen=True)
class Scores:
    """Of one model: over the tokens of a text, or over questions. `exact` says that weights were floats in float32."""

    tokens: int
    loss: float
    """Mean negative log-likelihood of a token; 0 for questions."""
    right: list[bool]
    """Whether each token was the likeliest one, or each answer right."""
    likeliest: list[bytes]
    """Of each place the text of the likeliest token, or the answer."""
    exact: bool

    @property
    def perplexity(self) -> float:
        return math.exp(self.loss)

    @property
    def accuracy(self) -> float:
        return sum(self.right) / len(self.right)


@dataclass(frozen=True)
class Data:
    """What is asked: a text, or questions. `name` is what the card calls it."""

    name: str
    text: str = ""
    questions: Sequence[Question] = ()


def read(file: Path, option: str = "--data") -> Data:
    """A .jsonl file of objects with `prompt` and `answer`, or a text. Raises QuantizeError, which names the option."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise QuantizeError(f"{option} {file}: {error}") from error
    if file.suffix != ".jsonl":
        if not text.strip():
            raise QuantizeError(f"{option} {file}: is empty")
        return Data(file.name, text)
    questions = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            match json.loads(line):
                case {"prompt": str(prompt), "answer": str(answer)}:
                    questions.append(Question(prompt, answer))
                case _:
                    raise ValueError("is no object with the texts `prompt` and `answer`")
        except ValueError as error:
            raise QuantizeError(f"{option} {file}, line {number}: {error}") from error
    if not questions:
        raise QuantizeError(f"{option} {file}: holds no question")
    return Data(file.name, questions=questions)


def score_kept(path: Path, data: Data, room: Path, told: Told, *, count: int, engine: str = "auto") -> Scores:
    """`score`, which is kept in `room` and taken from there while neither the weights nor the data changed."""
    files = [(file.name, (found := file.stat()).st_size, found.st_mtime_ns) for file in parts(path)]
    asked = [asdict(each) for each in data.questions] or data.text
    by = metadata.version("openvino" if engine == "auto" else engine)
    plan = digest([str(path.resolve()), files, asked, WINDOW, MOST_TOKENS, engine, by])
    file = room / "cache" / "scores" / f"{plan[:32]}.json"
    try:
        return msgspec.json.decode(file.read_bytes(), type=Scores)
    except (OSError, msgspec.DecodeError):
        found_scores = score(path, data, room, told, count=count, engine=engine)
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_suffix(".new")
    fresh.write_bytes(msgspec.json.encode(found_scores))
    fresh.replace(file)
    return found_scores


def score(path: Path, data: Data, room: Path, told: Told, *, count: int, engine: str = "auto") -> Scores:
    """Of the model at `path`, of `count` weights. `room` is a data directory. Raises QuantizeError."""
    exact = engine in ("auto", "openvino") and count * _FLOAT < _SHARE * _memory()
    with _loaded(path, room, engine, exact=exact, parallel=16 if data.questions else 1) as (ready, card):
        if data.questions:
            return _answers(ready, data.questions, told, exact=exact)
        if "prompt_logprobs" not in card.honours:
            raise QuantizeError(
                f"{path}: {card.family} is computed by an engine that tells no log-probabilities of a text"
            )
        return _text(ready, data.text, min(WINDOW, card.context - 1), told, exact=exact)


@contextmanager
def _loaded(path: Path, room: Path, engine: str, *, exact: bool, parallel: int) -> Iterator[tuple[Engine, Card]]:
    keys: dict[str, object] = {"engine": engine, "source": str(path), "parallel": parallel}
    # An engine that does not take these is one whose arithmetic has no choice.
    wished = {"precision": "f32", "weights": "float", "cache": "f32"} if exact else {}
    for each in ({**keys, **wished}, {**keys, "precision": "f32"} if exact else keys, keys):
        try:
            ready, _ = create(LocalModel.model_validate(each, context={}), room)
            break
        except ValueError as error:
            fault = error
    else:
        raise QuantizeError(f"{path}: cannot be evaluated: {fault}")
    try:
        yield ready, ready.load(lambda _: None)
    except (ValueError, OSError) as error:
        raise QuantizeError(f"{path}: cannot be evaluated: {error}") from error
    finally:
        ready.close()


def _text(engine: Engine, text: str, window: int, told: Told, *, exact: bool) -> Scores:
    ids = engine.tokenize(Tokenize(text, add_special=False, parse_special=False)).ids[:MOST_TOKENS]
    first = engine.tokenize(Tokenize("", add_special=True)).ids[:1]
    loss, right, likeliest = 0.0, [], []
    for start in range(0, len(ids), window - len(first)):
        told("reading the text", start, len(ids))
        read = [*first, *ids[start : start + window - len(first)]]
        if len(read) < 2:
            continue
        for token in _scored(engine, read):
            if token.logprob is None or not token.top:
                continue
            loss -= token.logprob
            right.append(token.top[0].data == token.data)
            likeliest.append(token.top[0].data)
    told("reading the text", len(ids), len(ids))
    if not right:
        raise QuantizeError("--data: the text is shorter than two tokens")
    return Scores(len(right), loss / len(right), right, likeliest, exact)


def _scored(engine: Engine, ids: list[int]) -> Sequence[TokenLogprob]:
    engine.submit(0, Generate(prompt=ids, max_tokens=0, prompt_logprobs=1))
    tokens: Sequence[TokenLogprob] = ()
    while engine.busy:
        for _, event in engine.step():
            if isinstance(event, Failed):
                raise QuantizeError(f"the text could not be read: {event.message}")
            if isinstance(event, Scored):
                tokens = event.tokens
    return tokens


def _answers(engine: Engine, questions: Sequence[Question], told: Told, *, exact: bool) -> Scores:
    said = [""] * len(questions)
    for key, question in enumerate(questions):
        most = len(engine.tokenize(Tokenize(question.answer, add_special=False)).ids) + _ANSWER_ROOM
        asked = Generate(prompt=question.prompt, max_tokens=most, sampling=Sampling(temperature=0.0))
        engine.submit(key, asked)
    left = len(questions)
    while left and engine.busy:
        for key, event in engine.step():
            if isinstance(event, Failed):
                raise QuantizeError(f"question {key + 1} was not answered: {event.message}")
            if isinstance(event, Delta):
                said[key] += event.text
            left -= is_last(event)
        told("answering questions", len(questions) - left, len(questions))
    right = [text.strip() == each.answer.strip() for text, each in zip(said, questions, strict=True)]
    return Scores(len(questions), 0.0, right, [text.strip().encode() for text in said], exact)


def agreement(before: Scores, after: Scores) -> float:
    """The share of places where both find the same token likeliest, or say the same."""
    same = [one == other for one, other in zip(before.likeliest, after.likeliest, strict=True)]
    return sum(same) / len(same)


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
