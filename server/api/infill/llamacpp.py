"""llama.cpp's own wire: `/completion`, `/infill` and `/props`, as its editor plugins and Continue speak it.

What a request leaves out is as llama.cpp has it: temperature 0.8, top_k 40, top_p 0.95, min_p 0.05.
"""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any, Literal

import msgspec
from litestar import Request, get, post
from msgspec import Meta

from server import chat
from server.api import sse
from server.api.decode import decode, ignored
from server.api.document import documented
from server.api.formats import written
from server.api.models import chosen
from server.api.reply import Direct, Reply, json
from server.api.sampled import SAMPLED, require
from server.api.turns import Turn, added, admit, whole
from server.api.wire import Name, Natural, Penalty, Probability
from server.chat import Asked, Part
from server.chat.infill import File, filled_with, infill_of
from server.errors import InvalidValue, ModelUnavailable, UnsupportedParameter
from server.models.engine import Card, Grammar, Sampling
from server.runtime import VERSION, Runtime, Target

_json = msgspec.json.Encoder()
_MOST_STOPS = 64

DEFAULTS: dict[str, float | int] = {"temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.05}


class _Options(msgspec.Struct, kw_only=True):
    """`n_predict` -1 leaves the length to the model, 0 reads the prompt and says nothing. `seed` -1 is a random one."""

    model: Name | None = None
    n_predict: Annotated[int, Meta(ge=-2, le=2**31 - 1)] = -1
    stream: bool = False
    temperature: Annotated[float, Meta(ge=0)] | None = None
    top_k: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None
    top_p: Probability | None = None
    min_p: Probability | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    repeat_penalty: Annotated[float, Meta(ge=0.01, le=10)] | None = None
    seed: Annotated[int, Meta(ge=-1, le=2**63 - 1)] | None = None
    ignore_eos: bool | None = None
    stop: Annotated[str, Meta(min_length=1)] | Annotated[list[Name], Meta(max_length=_MOST_STOPS)] | None = None
    json_schema: dict[str, Any] | None = None
    grammar: str | None = None
    n_probs: Natural | None = None
    response_fields: list[str] | None = None


class NativeRequest(_Options, kw_only=True):
    """`prompt`: a text, or token ids."""

    prompt: str | list[Any]


class InfillRequest(_Options, kw_only=True):
    """The model writes what stands between `input_prefix` with `prompt`, and `input_suffix`. `input_extra` are other
    files; the last ones are read, as many as the context holds.
    """

    input_prefix: str = ""
    input_suffix: str = ""
    input_extra: list[File] = []
    prompt: str = ""


class Timings(msgspec.Struct):
    """Measured in the gateway: the prompt up to the first token, then the tokens after it."""

    prompt_n: int
    prompt_ms: float
    prompt_per_second: float
    predicted_n: int
    predicted_ms: float
    predicted_per_second: float
    cache_n: int


class NativeReply(msgspec.Struct):
    """A whole answer, or the last event of a streamed one, whose `content` is what came last.

    `truncated` says that the context was full. Where the request has `response_fields`, these alone stand here.
    """

    content: str = ""
    index: int = 0
    stop: bool = True
    model: str = ""
    stop_type: Literal["eos", "word", "limit"] = "eos"
    stopping_word: str = ""
    tokens_predicted: int = 0
    tokens_evaluated: int = 0
    tokens_cached: int = 0
    truncated: bool = False
    has_new_line: bool = False
    generation_settings: dict[str, Any] = {}
    timings: Timings | None = None


class NativeChunk(msgspec.Struct):
    """One event of a streamed answer, but for the last."""

    content: str
    tokens_predicted: int
    tokens_evaluated: int
    index: int = 0
    stop: bool = False


class PropsSettings(msgspec.Struct):
    n_ctx: int
    params: dict[str, float]


class Modalities(msgspec.Struct):
    vision: bool
    audio: bool


class Props(msgspec.Struct):
    """`total_slots` is how many answers the model computes at once."""

    default_generation_settings: PropsSettings
    total_slots: int
    model_alias: str
    chat_template: str
    modalities: Modalities
    build_info: str
    is_sleeping: bool


@post(
    "/completion",
    status_code=200,
    opt={"needs": "infer"},
    operation_class=documented(NativeRequest, NativeReply, stream=NativeChunk, summary="Go on with a prompt"),
)
async def completion(request: Request[Any, Any, Any]) -> Direct:
    asked, unknown = await decode(request, NativeRequest)
    target = chosen(request.app.state["runtime"], asked.model)
    return await _answer(request, target, asked, _prompt(asked.prompt), unknown)


@post(
    ["/infill", "/v1/infill"],
    status_code=200,
    opt={"needs": "infer"},
    operation_class=documented(InfillRequest, NativeReply, stream=NativeChunk, summary="Fill in code"),
)
async def infill(request: Request[Any, Any, Any]) -> Direct:
    asked, unknown = await decode(request, InfillRequest)
    target = chosen(request.app.state["runtime"], asked.model)
    infill_of(target, "input_suffix")
    before = asked.input_prefix + asked.prompt
    prompt = await filled_with(target, before, asked.input_suffix, asked.input_extra, max(0, asked.n_predict))
    return await _answer(request, target, asked, prompt, unknown)


@get(
    "/props",
    opt={"needs": "infer"},
    operation_class=documented(
        None, Props, summary="What the only chat model is like", faults=("400", "401", "403", "429", "503")
    ),
)
async def props(request: Request[Any, Any, Any]) -> Reply:
    target = chosen(request.app.state["runtime"], request.query_params.get("model"))
    card, spec = target.model.card, target.model.spec
    if card is None:
        raise ModelUnavailable(f"Model {target.id} is loading; try again soon.", retry_after=2)
    said = Props(
        PropsSettings(card.context, {name: float(value) for name, value in DEFAULTS.items()}),
        getattr(spec, "parallel", 1),
        target.id,
        card.template or "",
        Modalities("images" in card.honours, "audio" in card.honours),
        f"hearth-{VERSION}",
        target.model.state == "stopped",
    )
    return json(said)


# ---- asking ---------------------------------------------------------------------------------------------------------


def _prompt(prompt: str | list[Any]) -> str | list[int]:
    if isinstance(prompt, str):
        return prompt
    if prompt and all(isinstance(each, int) and not isinstance(each, bool) and 0 <= each < 2**31 for each in prompt):
        return prompt
    raise InvalidValue("`prompt` is a text or a list of token ids.", param="prompt")


async def _answer(
    request: Request[Any, Any, Any], target: Target, asked: _Options, prompt: str | list[int], unknown: list[str]
) -> Direct:
    runtime: Runtime = request.app.state["runtime"]
    target.model.dialect()  # raises ModelUnavailable where the model has never been ready
    card = target.model.card
    assert card is not None, "a model that was ready has sent its card"
    wanted = _asked(asked, prompt, target, card)
    headers = ignored(unknown + _without_effect(asked, card))
    began = time.perf_counter()
    turn = chat.turn(runtime, target, wanted)
    [started] = await admit([turn])
    answer = _Answer(asked, target.id, card, wanted.sampling, started.prompt_tokens, began)
    if asked.stream:
        return sse.EventStream(_events(answer, turn), headers)
    [said] = await whole([turn])
    answer.add(said)
    return Reply(answer.whole("".join(answer.said)), headers=headers)


def _asked(asked: _Options, prompt: str | list[int], target: Target, card: Card) -> Asked:
    """Raises for what this model, or this server, cannot honour."""
    if card.task != "chat":
        raise InvalidValue(f"The model `{target.id}` is for {card.task}, not for completions.", param="model")
    if asked.n_probs:
        raise UnsupportedParameter("Probabilities are told by /v1/completions, with `logprobs`.", param="n_probs")
    return Asked(
        prompt=prompt,
        max_tokens=None if asked.n_predict < 0 else asked.n_predict,
        stop=(asked.stop,) if isinstance(asked.stop, str) else tuple(asked.stop or ()),
        sampling=_sampling(asked),
        grammar=_format(asked, target, card),
    )


def _format(asked: _Options, target: Target, card: Card) -> Grammar | None:
    """What the answer has to conform to; llama.cpp's clients send an empty grammar for none."""
    if asked.json_schema is None and not asked.grammar:
        return None
    field = "grammar" if asked.json_schema is None else "json_schema"
    if asked.json_schema is not None and asked.grammar:
        raise InvalidValue("`json_schema` and `grammar` both say what the answer is to be.", param="grammar")
    require({field: "response_format"}, target.id, card)
    if asked.json_schema is None:
        return written(asked.grammar or "", field)
    return Grammar("json_schema", _json.encode(asked.json_schema).decode(), field)


def _sampling(asked: _Options) -> Sampling:
    given = {name: getattr(asked, name) for name in _sampled() if getattr(asked, name) is not None}
    return Sampling(
        **{**DEFAULTS, **given},
        repetition_penalty=1.0 if asked.repeat_penalty is None else asked.repeat_penalty,
        seed=None if asked.seed is None or asked.seed == -1 else asked.seed,
    )


def _sampled() -> list[str]:
    return [name for name in SAMPLED if name in _Options.__struct_fields__ and name != "seed"]


def _without_effect(asked: _Options, card: Card) -> list[str]:
    named = {**{name: name for name in (*_sampled(), "seed")}, "repeat_penalty": "repetition_penalty"}
    return [name for name, ability in named.items() if getattr(asked, name) is not None and ability not in card.honours]


# ---- answering ------------------------------------------------------------------------------------------------------


class _Answer:
    """One answer on its way, counted and timed."""

    def __init__(self, asked: _Options, model: str, card: Card, sampling: Sampling, read: int, began: float) -> None:
        self.said: list[str] = []
        self._asked = asked
        self._model = model
        self._card = card
        self._sampling = sampling
        self._read = read
        self._began = began
        self._first: float | None = None
        self._written = self._cached = 0
        self._last: Part | None = None

    def add(self, parts: list[Part]) -> None:
        for part in parts:
            self.said.append(part.text)
            self._written += part.tokens
            self._cached = max(self._cached, part.cached_tokens)
            self._last = part
        if self._first is None and self._written:
            self._first = time.perf_counter()

    def chunk(self, text: str) -> bytes:
        return _json.encode(NativeChunk(text, self._written, self._read))

    def whole(self, content: str) -> bytes:
        """All that is told at the end, as JSON."""
        last = self._last
        stopped = "limit" if last is None or last.finish_reason == "length" else "word" if last.stop else "eos"
        reply = NativeReply(
            content,
            model=self._model,
            stop_type=stopped,  # type: ignore[arg-type]  # one of the three words
            stopping_word=(last.stop if last else None) or "",
            tokens_predicted=self._written,
            tokens_evaluated=self._read,
            tokens_cached=self._cached,
            truncated=stopped == "limit" and 0 < self._card.context <= self._read + self._written,
            has_new_line=any("\n" in text for text in self.said),
            generation_settings=self._settings(),
            timings=self._timings(),
        )
        fields = self._asked.response_fields
        return _json.encode(reply if fields is None else _selected(msgspec.to_builtins(reply), fields))

    def _settings(self) -> dict[str, Any]:
        settings: dict[str, Any] = {name: getattr(self._sampling, name) for name in (*_sampled(), "seed")}
        return {**settings, "n_predict": self._asked.n_predict, "n_ctx": self._card.context}

    def _timings(self) -> Timings:
        now = time.perf_counter()
        first = now if self._first is None else self._first
        reading, writing = 1000 * (first - self._began), 1000 * (now - first)
        later = max(0, self._written - 1)
        return Timings(
            prompt_n=self._read - self._cached,
            prompt_ms=reading,
            prompt_per_second=1000 * (self._read - self._cached) / reading if reading else 0.0,
            predicted_n=self._written,
            predicted_ms=writing,
            predicted_per_second=1000 * later / writing if writing else 0.0,
            cache_n=self._cached,
        )


def _selected(whole: dict[str, Any], fields: list[str]) -> dict[str, Any]:
    """The fields named; a slash leads into one, and stays in the name. Those there are not are left out."""
    found: dict[str, Any] = {}
    for name in fields:
        value: Any = whole
        for step in name.split("/"):
            value = value.get(step) if isinstance(value, dict) else None
        if value is not None:
            found[name] = value
    return found


async def _events(answer: _Answer, turn: Turn) -> AsyncGenerator[bytes, None]:
    async with aclosing(turn):
        async for step in turn:
            parts = added(step)
            answer.add(parts)
            if text := "".join(part.text for part in parts):
                yield sse.event(answer.chunk(text))
    yield sse.event(answer.whole(""))
