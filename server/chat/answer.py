"""One answer on its way to the client: reasoning split off, calls read, stop strings cut; knows no model."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from server.chat.tool_run import ToolRun
from server.knowledge import Hit
from server.models.engine import Citation, Delta, Event, Scored, TokenLogprob
from server.models.reasoning import ReasoningSplitter
from server.models.stop import StopScanner
from server.models.tool_formats import CallArguments, CallStart, Text, ToolParser


@dataclass(frozen=True)
class Cited:
    """`start`:`end` are characters of the whole answer, which quote `hit.text[quote_start:quote_end]`.

    `answer_start`:`answer_end` are those of the whole answer that the quote is for, where the model tells them.
    """

    start: int
    end: int
    quote_start: int
    quote_end: int
    index: int
    hit: Hit
    answer_start: int | None = None
    answer_end: int | None = None


class Part(msgspec.Struct, frozen=True):
    """What was added to the answer since the last Part. Exactly the last one has a `finish_reason`.

    `reasoning_tokens` of `tokens` went into thinking, `ids` are theirs where they were asked for. `cached_tokens`
    stands in the first one that has any, `scored`, the prompt's own tokens, in the first one of a turn that asked for
    them. `stop` is the stop string that ended the answer, in the last one. `annotations` are those of a model on
    another server, as that wrote them; its counts come in the last one, for all. `runs` are calls that the server runs,
    as they begin and as they end.
    """

    text: str
    tokens: int
    citations: Sequence[Cited] = ()
    finish_reason: str | None = None
    reasoning: str = ""
    calls: Sequence[CallStart | CallArguments] = ()
    logprobs: Sequence[TokenLogprob] = ()
    reasoning_tokens: int = 0
    cached_tokens: int = 0
    scored: Sequence[TokenLogprob] = ()
    stop: str | None = None
    annotations: Sequence[dict[str, Any]] = ()
    ids: Sequence[int] = ()
    runs: Sequence[ToolRun] = ()
    refusal: bool = False
    """Whether `text` says why there is no answer of the form that was wanted."""


class Marks:
    """Finds where an answer names passages by their numbers, as the model was asked to: [2], [1, 3].

    Fed the visible text as it comes; a mark that is cut between two pieces is found with the second.
    """

    _MARK = re.compile(r"\[(\d{1,3}(?:, ?\d{1,3}){0,7})\]")
    _LONGEST = 41

    def __init__(self, hits: Sequence[Hit], sent: int = 0) -> None:
        self._hits = hits
        self._sent = sent
        self._rest = ""

    def feed(self, text: str) -> list[Cited]:
        """What `text` completes; places are characters of the whole answer."""
        seen = self._rest + text
        begin = self._sent - len(self._rest)
        self._sent += len(text)
        found, end = [], 0
        for mark in self._MARK.finditer(seen):
            end = mark.end()
            for number in dict.fromkeys(int(each) for each in mark[1].split(",")):
                if 1 <= number <= len(self._hits):
                    hit = self._hits[number - 1]
                    place = begin + mark.start()
                    found.append(Cited(place, begin + end, 0, len(hit.text), number - 1, hit))
        rest = seen[end:]
        opened = rest.rfind("[")
        self._rest = rest[opened:] if opened >= 0 and len(rest) - opened < self._LONGEST else ""
        return found


@dataclass
class _Read:
    """What one piece of the model's text turned out to be."""

    text: str = ""
    reasoning: str = ""
    calls: list[CallStart | CallArguments] = field(default_factory=list)
    over: bool = False


class Answer:
    """Turns an engine's events into parts. The engine's text passes the splitter, the tool parser and the scanner.

    `splitter` and `parser` are None where the model neither reasons nor calls. With `many` false the answer ends
    after its first call. With `forced` a grammar lets nothing but calls be written, so that the beginning of one that
    was cut is no text. Engines cite `hits` themselves; `marks` finds where others name them.
    """

    def __init__(
        self,
        stop: StopScanner,
        hits: Sequence[Hit],
        *,
        splitter: ReasoningSplitter | None = None,
        parser: ToolParser | None = None,
        many: bool = True,
        forced: bool = False,
        marks: Marks | None = None,
    ) -> None:
        self.finished = False
        self.is_cut = False
        """Whether it ended before its model did: what that says from now on is for nobody."""
        self._stop = stop
        self._hits = hits
        self._splitter = splitter
        self._parser = parser
        self._many = many
        self._forced = forced
        self._marks = marks
        self._called = False
        self._sent = 0
        self._waiting: list[Citation] = []

    def take(self, events: list[Event]) -> list[Part]:
        """The parts that `events` make, up to the one that ends the answer."""
        parts = []
        for event in events:
            if isinstance(event, Delta) and not self.finished:
                parts.append(part := self._part(event))
                self.is_cut = part.finish_reason is not None and event.finish_reason is None
            elif isinstance(event, Scored):
                parts.append(Part("", 0, scored=event.tokens))
        return parts

    def _part(self, delta: Delta) -> Part:
        if self._splitter is None and self._parser is None:
            return self._plain(delta)
        read = self._read(delta.text)
        if delta.finish_reason is not None and not read.over:
            self._end(read)
        reason = "stop" if read.over else delta.finish_reason
        if reason == "stop" and self._called:
            reason = "tool_calls"
        self.finished = reason is not None
        self._sent += len(read.text)
        return Part(
            read.text,
            delta.tokens,
            self._cited(delta.citations) if self._marks is None else self._marks.feed(read.text),
            reason,
            read.reasoning,
            read.calls,
            delta.logprobs if read.text or not read.over else (),
            delta.tokens if read.reasoning and not read.text else 0,
            delta.cached_tokens,
            stop=self._stop.met,
            ids=delta.ids,
        )

    def _plain(self, delta: Delta) -> Part:
        """The short way, for an answer that is nothing but text, or a call that the engine tells as such."""
        text, stopped = self._stop.feed(delta.text)
        reason = "stop" if stopped else delta.finish_reason
        if reason is not None:
            self.finished = True
            if not stopped:
                text += self._stop.flush()
        self._sent += len(text)
        calls: list[CallStart | CallArguments] = []
        if (call := delta.call) is not None:
            calls = [CallStart(0, call.name, call.id or None), CallArguments(0, call.arguments)]
            reason = "tool_calls"
        return Part(
            text,
            delta.tokens,
            self._cited(delta.citations),
            reason,
            calls=calls,
            logprobs=delta.logprobs if text or not stopped else (),
            cached_tokens=delta.cached_tokens,
            stop=self._stop.met,
            ids=delta.ids,
            refusal=delta.refusal,
        )

    def _read(self, text: str) -> _Read:
        read = _Read()
        if self._splitter is not None:
            read.reasoning, text = self._splitter.feed(text)
        self._content(text, read)
        return read

    def _content(self, text: str, read: _Read) -> None:
        pieces = [Text(text)] if self._parser is None else self._parser.feed(text)
        for piece in pieces:
            self._piece(piece, read)

    def _piece(self, piece: Text | CallStart | CallArguments, read: _Read) -> None:
        if read.over:
            return
        if isinstance(piece, Text):
            if self._forced:
                return
            text, read.over = self._stop.feed(piece.text)
            read.text += text
        elif isinstance(piece, CallStart) and self._called and not self._many:
            read.over = True
        else:
            self._called = True
            read.calls.append(piece)

    def _end(self, read: _Read) -> None:
        """The model has said all: what was held back anywhere."""
        if self._splitter is not None:
            reasoning, text = self._splitter.flush()
            read.reasoning += reasoning
            self._content(text, read)
        if self._parser is not None:
            for piece in self._parser.finish():
                self._piece(piece, read)
        if not read.over:
            read.text += self._stop.flush()

    def _cited(self, fresh: list[Citation]) -> list[Cited]:
        """Citations whose text was sent in full; the others wait."""
        if not fresh and not self._waiting:
            return []
        self._waiting += fresh
        whole = [citation for citation in self._waiting if citation.end <= self._sent]
        self._waiting = [citation for citation in self._waiting if citation.end > self._sent]
        return [self._of(each) for each in whole]

    def _of(self, told: Citation) -> Cited:
        moved = told.start - told.quote_start
        words: tuple[int | None, int | None] = (None, None)
        if told.answer_start is not None and told.answer_end is not None:
            words = told.answer_start + moved, told.answer_end + moved
        hit = self._hits[told.passage]
        return Cited(told.start, told.end, told.quote_start, told.quote_end, told.passage, hit, *words)
