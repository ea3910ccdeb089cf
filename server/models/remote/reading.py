"""What another server says, read piece by piece: the chunks of OpenAI's answers, whole ones, vectors and scores.

Strict where a mistake would change the answer, lenient where servers differ: a missing index of a call, arguments as
an object, `reasoning` for `reasoning_content`, a whole message for a delta.
"""

import base64
import binascii
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from server.errors import HearthError
from server.models.engine import TokenLogprob
from server.models.remote.events import Sent
from server.models.remote.faults import Teller
from server.models.tool_formats import CallArguments, CallStart

_DONE = b"[DONE]"
_REASONS = frozenset(["stop", "length", "tool_calls", "content_filter"])
"""Those that OpenAI has; clients know no others."""


class Piece(msgspec.Struct, frozen=True):
    """What one chunk added. The last one has the `finish_reason`, and the counts of the whole answer.

    `annotations` are as the server wrote them.
    """

    text: str = ""
    reasoning: str = ""
    calls: Sequence[CallStart | CallArguments] = ()
    logprobs: Sequence[TokenLogprob] = ()
    annotations: Sequence[dict[str, Any]] = ()
    finish_reason: str | None = None
    prompt_tokens: int = 0
    tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0


class Answering:
    """Reads one answer. Raises UpstreamFault for an error among the chunks, and for what is no chunk.

    The last piece comes with the end of the stream, because the counts stand behind the last word.
    """

    def __init__(self, teller: Teller) -> None:
        self.spoken = self.finished = False
        self.pieces = 0
        self._teller = teller
        self._reason: str | None = None
        self._usage: dict[str, Any] = {}
        self._calls: list[str | None] = []
        """The id of each call so far, in the order of their indices."""

    def take(self, sent: Sequence[Sent]) -> list[Piece]:
        """The pieces that events make."""
        pieces = []
        for event in sent:
            if event.data == _DONE:
                self.finished = True
                break
            if (piece := self._read(event)) is not None:
                pieces.append(piece)
        self.pieces += len(pieces)
        return pieces

    @property
    def ending(self) -> bool:
        """Whether all but the counts has been said."""
        return self._reason is not None

    def end(self) -> Piece:
        """The last piece. Raises UpstreamFault where the server broke off before its answer was whole."""
        if self._reason is None and not self.finished:
            raise self._teller.broken("ended the answer in the middle")
        reason = self._reason or "stop"
        if reason == "stop" and self._calls:
            reason = "tool_calls"
        usage = self._usage
        return Piece(
            finish_reason=reason,
            prompt_tokens=_count(usage, "prompt_tokens"),
            tokens=_count(usage, "completion_tokens") if usage else self.pieces,
            cached_tokens=_count(usage.get("prompt_tokens_details"), "cached_tokens"),
            reasoning_tokens=_count(usage.get("completion_tokens_details"), "reasoning_tokens"),
        )

    def _read(self, event: Sent) -> Piece | None:
        try:
            chunk = msgspec.json.decode(event.data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            if event.name == "error":
                raise self._error(event.data.decode("utf-8", "replace")) from error
            raise self._teller.broken("sent a chunk that is no JSON") from error
        match chunk:
            case {"error": error} if error:
                raise self._error(error)
            case _ if event.name == "error":
                raise self._error(chunk)
            case {"usage": dict(usage)}:
                self._usage = usage
        match chunk:
            case {"choices": [dict(choice), *_]}:
                return self._choice(choice)
            case _:
                return None

    def _error(self, error: object) -> HearthError:
        return self._teller.told(error) or self._teller.broken("reported a fault without a word")

    def _choice(self, choice: dict[str, Any]) -> Piece | None:
        delta = choice.get("delta") or choice.get("message") or {}
        if isinstance(choice.get("finish_reason"), str) and choice["finish_reason"]:
            self._reason = choice["finish_reason"] if choice["finish_reason"] in _REASONS else "stop"
        piece = Piece(
            # A refusal is what the model says instead; wires other than OpenAI's have no other place for it.
            text=_text(delta, "content") + _text(delta, "refusal") + _text(choice, "text"),
            reasoning=_text(delta, "reasoning_content") or _text(delta, "reasoning"),
            calls=[piece for call in _objects(delta.get("tool_calls")) for piece in self._call(call)],
            logprobs=_logprobs(choice.get("logprobs")),
            annotations=_objects(delta.get("annotations")),
        )
        return None if piece == Piece() else piece

    def _call(self, told: dict[str, Any]) -> list[CallStart | CallArguments]:
        function = told.get("function") or {}
        index, fresh = self._place(told)
        pieces: list[CallStart | CallArguments] = []
        if fresh:
            name = function.get("name")
            if not isinstance(name, str) or not name:
                raise self._teller.broken("called a function without a name")
            pieces.append(CallStart(index, name, self._calls[index]))
        arguments = function.get("arguments")
        if isinstance(arguments, dict):
            arguments = msgspec.json.encode(arguments).decode()
        if isinstance(arguments, str) and arguments:
            pieces.append(CallArguments(index, arguments))
        return pieces

    def _place(self, told: dict[str, Any]) -> tuple[int, bool]:
        """The number of a call, and whether it is a new one. A server may leave out the index, or count from 1."""
        known = told["id"] if isinstance(told.get("id"), str) and told["id"] else None
        index = told.get("index")
        if isinstance(index, int) and 0 <= index < len(self._calls) and known in (None, self._calls[index]):
            return index, False
        if known is not None and known in self._calls:
            return self._calls.index(known), False
        if known is None and self._calls and not (told.get("function") or {}).get("name"):
            return len(self._calls) - 1, False
        self._calls.append(known)
        return len(self._calls) - 1, True


def _text(told: dict[str, Any], key: str) -> str:
    value = told.get(key)
    return value if isinstance(value, str) else ""


def _objects(value: object) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _count(told: object, key: str) -> int:
    value = told.get(key) if isinstance(told, dict) else None
    return value if isinstance(value, int) and value > 0 else 0


# ---- log-probabilities ----------------------------------------------------------------------------------------------


def _logprobs(told: object) -> list[TokenLogprob]:
    match told:
        case {"content": list(tokens)}:
            return [_scored(token) for token in _objects(tokens)]
        case {"tokens": list(tokens), "token_logprobs": list(logprobs), **rest}:
            return _older(tokens, logprobs, rest.get("top_logprobs"))
        case _:
            return []


def _scored(told: dict[str, Any]) -> TokenLogprob:
    token = _text(told, "token")
    spelled = told.get("bytes")
    sound = isinstance(spelled, list) and all(isinstance(each, int) and 0 <= each < 256 for each in spelled)
    logprob = told.get("logprob")
    return TokenLogprob(
        token,
        bytes(spelled) if isinstance(spelled, list) and sound else token.encode("utf-8", "replace"),
        float(logprob) if isinstance(logprob, int | float) else None,
        [_scored(each) for each in _objects(told.get("top_logprobs"))],
    )


def _older(tokens: list[Any], logprobs: list[Any], tops: object) -> list[TokenLogprob]:
    """Those of /completions: lists beside one another, and alternatives as an object."""
    beside = tops if isinstance(tops, list) and len(tops) == len(tokens) else [None] * len(tokens)
    return [
        _scored(
            {
                "token": token,
                "logprob": logprob,
                "top_logprobs": [{"token": each, "logprob": value} for each, value in (top or {}).items()],
            }
        )
        for token, logprob, top in zip(tokens, logprobs, beside, strict=False)
    ]


# ---- vectors and scores ---------------------------------------------------------------------------------------------


def vectors(told: object, count: int, teller: Teller) -> NDArray[np.float32]:
    """The rows of an answer of /embeddings, [count, dimension], in the order of the inputs, as they came.

    Raises UpstreamFault where it is none, or its rows are not all there and of one dimension.
    """
    rows: list[NDArray[np.float32] | None] = [None] * count
    for place, entry in enumerate(_objects(told.get("data") if isinstance(told, dict) else None)):
        index = entry.get("index", place)
        if not isinstance(index, int) or not 0 <= index < count:
            raise teller.broken("answered with vectors of inputs that were not sent")
        rows[index] = _row(entry.get("embedding"))
    found = [row for row in rows if row is not None and row.ndim == 1 and row.size]
    if len(found) != count or len({row.size for row in found}) > 1 or not all(np.isfinite(row).all() for row in found):
        raise teller.broken(f"answered without {count} whole vectors of one dimension")
    return np.stack(found) if found else np.empty((0, 0), np.float32)


def _row(embedding: object) -> NDArray[np.float32] | None:
    """Numbers, or base64 of little-endian float32."""
    try:
        if isinstance(embedding, str):
            return np.frombuffer(base64.b64decode(embedding, validate=True), "<f4").astype(np.float32)
        return np.asarray(embedding, np.float32) if isinstance(embedding, list) else None
    except (binascii.Error, ValueError, TypeError):
        return None


def scores(told: object, count: int, teller: Teller) -> list[float]:
    """Those of an answer of /rerank, in the order of the documents. Raises UpstreamFault where one is missing."""
    found: dict[int, float] = {}
    for entry in _objects(told.get("results") if isinstance(told, dict) else None):
        match entry:
            case {"index": int(index), "relevance_score": int(score) | float(score)} if 0 <= index < count:
                found[index] = float(score)
    if len(found) != count:
        raise teller.broken(f"answered with {len(found)} of {count} scores")
    return [found[place] for place in range(count)]


def tokens_read(told: object) -> int:
    """The tokens of all inputs, as an answer of /embeddings or /rerank tells them; 0 where it does not."""
    match told:
        case {"usage": {"prompt_tokens": int(count)} | {"total_tokens": int(count)}}:
            return max(0, count)
        case {"meta": {"tokens": {"input_tokens": int(count)}}}:
            return max(0, count)
        case _:
            return 0


def context_of(told: object, model: str) -> int | None:
    """The context that a list of models gives for one of them; None where it gives none.

    Raises LookupError where the list has no such model.
    """
    listed = _objects(told.get("data") if isinstance(told, dict) else None)
    entry = next((each for each in listed if each.get("id") == model), None)
    if entry is None:
        raise LookupError(model)
    meta = entry.get("meta")
    told_at = [entry.get("max_model_len"), entry.get("context_length"), entry.get("context_window")]
    told_at.append(meta.get("n_ctx") if isinstance(meta, dict) else None)
    return next((each for each in told_at if isinstance(each, int) and each > 0), None)
