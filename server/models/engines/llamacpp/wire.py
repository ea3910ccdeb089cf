"""What is said to llama.cpp and what it says back: completion requests and streamed chunks.

Both are described in the README of llama.cpp's server (tools/server). Nothing here needs llama.cpp itself.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec
from llguidance import LLMatcher, LLTokenizer

from server.errors import InvalidValue, ServiceError, UnsupportedParameter
from server.models.engine import Delta, Event, Failed, Generate, Grammar, TokenLogprob
from server.models.engines.compiling import NAMES, compiled

_NAMES_TOKENS = re.compile(r"<\[|<\|")
_IMPOSSIBLE = -9999.0
"""OpenAI's own figure for a token of probability zero; JSON has no infinity."""


# ---- the request ----------------------------------------------------------------------------------------------------


def completion(request: Generate, room: int, context: int) -> dict[str, Any]:
    """The body of a streamed completion of at most `room` tokens, without its prompt. Raises a RequestError for a
    grammar it cannot hold.

    The samplers stand in the order of `Sampling`. Every value is said, so that llama.cpp's own defaults never count.
    Penalties look at the whole prompt and answer, `context` tokens; llama.cpp has one window for all three.
    """
    sampling = request.sampling
    body: dict[str, Any] = {
        "stream": True,
        "timings_per_token": True,  # counts the tokens, of which several may make one character
        "return_progress": True,  # a chunk for each batch of the prompt, so that a cancelled one ends there
        "n_predict": room,
        "samplers": ["penalties", "temperature", "top_k", "top_p", "min_p"],
        "temperature": sampling.temperature,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "min_p": sampling.min_p,
        "repeat_last_n": context,
        "repeat_penalty": sampling.repetition_penalty,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "logit_bias": [[token, bias] for token, bias in sampling.logit_bias.items()],
        "ignore_eos": sampling.ignore_eos,
        "n_probs": 0 if sampling.top_logprobs is None else max(1, sampling.top_logprobs),
        "post_sampling_probs": False,
        "preserved_tokens": request.markers,  # of these, those that are control tokens show in the text
    }
    if sampling.seed is not None:
        body["seed"] = sampling.seed % (2**32 - 1)  # the one seed left out is llama.cpp's word for a random one
    if request.grammar is not None:
        body["grammar"] = _constraint(request.grammar)
    return body


def _constraint(grammar: Grammar) -> str:
    """The grammar as llama.cpp hands it to llguidance.

    Checked here, since llama.cpp answers freely, without a word, where a grammar does not compile.
    """
    try:
        return compiled(grammar, lambda: _valid(_lark(grammar)))
    except RecursionError:
        why = "it is nested too deeply"
    except ValueError as error:
        why = str(error).strip().splitlines()[0]
    raise InvalidValue(f"The {NAMES[grammar.kind]} cannot be used: {why}", param=grammar.param)


def _valid(source: str) -> str:
    """Raises ValueError, saying what is wrong, where it does not compile."""
    if why := LLMatcher.validate_grammar(source):
        raise ValueError(why)
    return source


def _lark(grammar: Grammar) -> str:
    match grammar.kind:
        case "json_schema":
            schema = json.loads(grammar.text)
            if isinstance(schema, dict):
                # Where white space is free, a weak model pads with it until its tokens are used up.
                schema.setdefault("x-guidance", {"whitespace_flexible": False})
            text = f"start: %json {json.dumps(schema)}"
        case "regex":
            [rule] = json.loads(LLMatcher.grammar_from_regex(grammar.text))["grammars"]
            text = rule["lark_grammar"]
        case "lark":
            text = grammar.text
        case other:
            raise UnsupportedParameter(f"This model follows no grammar of kind `{other[:60]}`.", param=grammar.param)
    return text if text.startswith("%llguidance") else f"%llguidance {{}}\n{text}"


def held(grammar: Grammar) -> LLMatcher | None:
    """What sees that an answer conforms: llama.cpp brings an older llguidance, and answers freely where that fails.

    It reads bytes. None for a grammar that names tokens, which it would take for others;
    llama.cpp is trusted with those.
    """
    if grammar.kind == "lark" and _NAMES_TOKENS.search(grammar.text):
        return None
    source = _constraint(grammar)
    matcher = compiled(grammar, lambda: LLMatcher(LLTokenizer("byte"), source, log_level=0))
    return None if matcher.is_error() else matcher


# ---- the chunks -----------------------------------------------------------------------------------------------------


class _Probability(msgspec.Struct):
    id: int
    bytes: list[int]
    logprob: float | None = None
    top_logprobs: list["_Probability"] = []


class _Probabilities(msgspec.Struct):
    content: list[_Probability] = []


class _Choice(msgspec.Struct):
    text: str
    finish_reason: str | None = None
    logprobs: _Probabilities | None = None


class _Timings(msgspec.Struct):
    predicted_n: int = 0
    cache_n: int = 0


class _Error(msgspec.Struct):
    message: str = ""
    code: int = 500


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []
    timings: _Timings = msgspec.field(default_factory=_Timings)
    error: _Error | None = None


class _Event(msgspec.Struct):
    """A chunk of llama.cpp's own route /completion."""

    content: str = ""
    stop: bool = False
    stop_type: str = ""
    completion_probabilities: list[_Probability] = []
    timings: _Timings = msgspec.field(default_factory=_Timings)
    error: _Error | None = None

    def chunk(self) -> _Chunk:
        """The same as OpenAI's route would say it."""
        if self.error is not None:
            return _Chunk(error=self.error)
        reason = None if not self.stop else "length" if self.stop_type == "limit" else "stop"
        choice = _Choice(self.content, reason, _Probabilities(self.completion_probabilities))
        return _Chunk([choice], self.timings)


_decoder = msgspec.json.Decoder(_Chunk)
_events = msgspec.json.Decoder(_Event)


@dataclass
class Answer:
    """Turns the chunks of one completion into events.

    The token that ends an answer is no part of it: neither counted nor given a log-probability. llama.cpp sends it as
    a chunk without text, like any control token, so such a chunk is held back until the next one tells. A character
    of several tokens comes as one chunk, with the log-probability of its last token alone.
    """

    tokens: list[str]
    top: int | None
    check: LLMatcher | None = None
    own: bool = False
    """Whether the chunks come of llama.cpp's own route."""
    _counted: int = 0
    _held: Delta | None = field(default=None)
    _begun: bool = False

    def read(self, chunk: bytes) -> list[Event]:
        """Raises msgspec.DecodeError where the chunk is none."""
        said = _events.decode(chunk).chunk() if self.own else _decoder.decode(chunk)
        if said.error is not None:
            code = "invalid_request" if said.error.code == 400 else "service_error"
            return [Failed(code, f"llama.cpp refused: {said.error.message}")]
        deltas = [delta for choice in said.choices for delta in self._events(choice, said.timings.predicted_n)]
        if not all(self._conforms(delta) for delta in deltas):
            return [Failed(ServiceError.code, "llama.cpp did not follow the grammar, so its answer was ended.")]
        if deltas and not self._begun:
            self._begun = True
            deltas[0] = msgspec.structs.replace(deltas[0], cached_tokens=said.timings.cache_n)
        return [*deltas]

    def _conforms(self, delta: Delta) -> bool:
        if self.check is None:
            return True
        said = delta.text.encode()
        whole = self.check.try_consume_tokens([*said]) == len(said)
        return whole and (delta.finish_reason != "stop" or self.check.is_accepting())

    def _events(self, choice: _Choice, predicted: int) -> Iterator[Delta]:
        held, self._held = self._held, None
        new, self._counted = max(0, predicted - self._counted), max(predicted, self._counted)
        if choice.finish_reason is not None:
            stopped = choice.finish_reason != "length"
            if held is not None and not stopped:
                yield held
            yield Delta(tokens=0 if stopped else new, finish_reason="stop" if stopped else "length")
            return
        if held is not None:
            yield held
        delta = Delta(choice.text, new, logprobs=self._logprobs(choice))
        if choice.text:
            yield delta
        elif new:
            self._held = delta

    def _logprobs(self, choice: _Choice) -> list[TokenLogprob]:
        if self.top is None or choice.logprobs is None:
            return []
        return [
            self._logprob(each, [self._logprob(other, []) for other in each.top_logprobs[: self.top]])
            for each in choice.logprobs.content
        ]

    def _logprob(self, each: _Probability, top: list[TokenLogprob]) -> TokenLogprob:
        # llama.cpp gives control tokens no bytes; their names are what a reader can tell them apart by.
        data = bytes(each.bytes) or (self.tokens[each.id].encode() if each.id < len(self.tokens) else b"")
        logprob = _IMPOSSIBLE if each.logprob is None else each.logprob
        return TokenLogprob(data.decode(errors="replace"), data, logprob, top)
