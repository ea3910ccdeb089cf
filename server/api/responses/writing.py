"""One answer as items and as events, in the order that OpenAI streams them; knows neither models nor HTTP.

A whole answer is the same events with nobody listening: so both are made of one thing.
"""

import time
from collections.abc import Sequence
from itertools import count
from typing import Protocol

import msgspec

from server.api.chat import annotation, token_logprob
from server.api.chat_calls import arguments as arguments_of
from server.api.responses import events
from server.api.responses.events import ResponseEvent
from server.api.responses.items import fresh, sealed
from server.api.responses.wire import (
    FileSearchItem,
    FunctionCallItem,
    IncompleteDetails,
    ItemStatus,
    McpCallItem,
    OutputItem,
    OutputMessage,
    OutputRefusal,
    OutputText,
    ReasoningItem,
    ReasoningText,
    Response,
    ResponseFault,
    ResponseUsage,
    SearchedPassage,
    SummaryText,
)
from server.api.wire import Annotation, TokenLogprob
from server.chat import FILE_SEARCH, Cited, Part, ToolBegun, ToolDone, ToolRun, fresh_id
from server.errors import HearthError
from server.knowledge import Hit
from server.models.engine import TokenLogprob as Scored
from server.models.tool_formats import CallArguments, CallStart

_SPOKEN = (OutputMessage, FunctionCallItem, ReasoningItem)
"""What a model says; an answer has one of these."""


class _Open(Protocol):
    """An item that the model is writing."""

    def close(self, status: ItemStatus) -> tuple[list[ResponseEvent], OutputItem]:
        """Its last events but output_item.done, and the item as it is now."""
        ...


class _Message:
    def __init__(self, index: int, number: "count[int]", begins: int, *, refusal: bool = False) -> None:
        """`begins` is how many characters the answer had before; with `refusal` there is none."""
        self._refusal = refusal
        self._id = fresh("message")
        self._begins = begins
        self._index = index
        self._number = number
        self._texts: list[str] = []
        self._annotations: list[Annotation] = []
        self._logprobs: list[TokenLogprob] = []

    def open(self) -> list[ResponseEvent]:
        item = OutputMessage(self._id, "in_progress", [])
        part = OutputRefusal("") if self._refusal else OutputText("")
        return [
            events.OutputItemAdded(next(self._number), self._index, item),
            events.ContentPartAdded(next(self._number), self._id, self._index, 0, part),
        ]

    def add(self, text: str, logprobs: Sequence[Scored], citations: Sequence[Cited]) -> list[ResponseEvent]:
        added: list[ResponseEvent] = []
        if self._refusal:
            self._texts.append(text)
            return [events.RefusalDelta(next(self._number), self._id, self._index, 0, text)]
        if text or logprobs:
            scored = [token_logprob(token) for token in logprobs]
            self._texts.append(text)
            self._logprobs += scored
            added.append(events.OutputTextDelta(next(self._number), self._id, self._index, 0, text, scored))
        for cited in citations:
            # Where it is to be shown: after the last character that is quoted.
            told = annotation(cited)
            shown = msgspec.structs.replace(
                told,
                index=cited.end - self._begins,
                start_index=cited.start - self._begins,
                end_index=cited.end - self._begins,
            )
            place = len(self._annotations)
            self._annotations.append(shown)
            added.append(events.AnnotationAdded(next(self._number), self._id, self._index, 0, place, shown))
        return added

    def close(self, status: ItemStatus) -> tuple[list[ResponseEvent], OutputItem]:
        if self._refusal:
            return self._refused(status)
        part = OutputText("".join(self._texts), self._annotations, self._logprobs)
        closing: list[ResponseEvent] = [
            events.OutputTextDone(next(self._number), self._id, self._index, 0, part.text, part.logprobs),
            events.ContentPartDone(next(self._number), self._id, self._index, 0, part),
        ]
        return closing, OutputMessage(self._id, status, [part])

    def _refused(self, status: ItemStatus) -> tuple[list[ResponseEvent], OutputItem]:
        part = OutputRefusal("".join(self._texts))
        closing: list[ResponseEvent] = [
            events.RefusalDone(next(self._number), self._id, self._index, 0, part.refusal),
            events.ContentPartDone(next(self._number), self._id, self._index, 0, part),
        ]
        return closing, OutputMessage(self._id, status, [part])


class _Call:
    def __init__(self, index: int, number: "count[int]", start: CallStart) -> None:
        call = start.id or fresh_id()
        self._item = FunctionCallItem(fresh("function_call"), call, start.name, "", "in_progress")
        self._index = index
        self._number = number
        self._arguments: list[str] = []

    def open(self) -> list[ResponseEvent]:
        return [events.OutputItemAdded(next(self._number), self._index, self._item)]

    def add(self, arguments: str) -> list[ResponseEvent]:
        self._arguments.append(arguments)
        return [events.FunctionCallArgumentsDelta(next(self._number), self._item.id, self._index, arguments)]

    def close(self, status: ItemStatus) -> tuple[list[ResponseEvent], OutputItem]:
        item = msgspec.structs.replace(self._item, arguments="".join(self._arguments), status=status)
        done = events.FunctionCallArgumentsDone(next(self._number), item.id, self._index, item.name, item.arguments)
        return [done], item


class _Reasoning:
    """In `content`; in `summary` where the client asked for one, since nobody here tells it shorter."""

    def __init__(self, index: int, number: "count[int]", *, summary: bool, seal: bool) -> None:
        self._id = fresh("reasoning")
        self._index = index
        self._number = number
        self._summary = summary
        self._seal = seal
        self._texts: list[str] = []

    def open(self) -> list[ResponseEvent]:
        added = events.OutputItemAdded(next(self._number), self._index, self._item("in_progress"))
        if self._summary:
            return [added, events.SummaryPartAdded(next(self._number), self._id, self._index, 0, SummaryText(""))]
        return [added, events.ContentPartAdded(next(self._number), self._id, self._index, 0, ReasoningText(""))]

    def add(self, text: str) -> list[ResponseEvent]:
        self._texts.append(text)
        kind = events.SummaryTextDelta if self._summary else events.ReasoningTextDelta
        return [kind(next(self._number), self._id, self._index, 0, text)]

    def close(self, status: ItemStatus) -> tuple[list[ResponseEvent], OutputItem]:
        item = self._item(status)
        text = "".join(self._texts)
        if self._summary:
            return [
                events.SummaryTextDone(next(self._number), self._id, self._index, 0, text),
                events.SummaryPartDone(next(self._number), self._id, self._index, 0, SummaryText(text)),
            ], item
        return [
            events.ReasoningTextDone(next(self._number), self._id, self._index, 0, text),
            events.ContentPartDone(next(self._number), self._id, self._index, 0, ReasoningText(text)),
        ], item

    def _item(self, status: ItemStatus) -> ReasoningItem:
        text = "".join(self._texts)
        item = ReasoningItem(self._id, [], [], status)
        if text and self._summary:
            item.summary = [SummaryText(text)]
        elif text:
            item.content = [ReasoningText(text)]
        if text and self._seal:
            item.encrypted_content = sealed(text)
        return item


class _Run:
    """A call of the server, from when it begins until it is done; several may be open at once."""

    def __init__(self, index: int, number: "count[int]", begun: ToolBegun, *, results: bool) -> None:
        self.index = index
        self._number = number
        self._results = results
        self.item: McpCallItem | FileSearchItem
        if begun.name == FILE_SEARCH:
            self.item = FileSearchItem(fresh("file_search_call"), queries_of(begun.arguments), "in_progress")
        else:
            self.item = McpCallItem(fresh("mcp_call"), begun.name, begun.arguments, "in_progress")

    def open(self) -> list[ResponseEvent]:
        added = events.OutputItemAdded(next(self._number), self.index, self.item)
        place = (self.item.id, self.index)
        if isinstance(self.item, FileSearchItem):
            return [
                added,
                events.FileSearchInProgress(next(self._number), *place),
                events.FileSearchSearching(next(self._number), *place),
            ]
        return [
            added,
            events.McpCallInProgress(next(self._number), *place),
            events.McpCallArgumentsDone(next(self._number), *place, self.item.arguments),
        ]

    def close(self, done: ToolDone) -> list[ResponseEvent]:
        place = (self.item.id, self.index)
        if isinstance(self.item, FileSearchItem):
            self.item = searched(self.item, done.hits or (), failed=done.error, results=self._results)
            closing: ResponseEvent = events.FileSearchCompleted(next(self._number), *place)
        elif done.error:
            self.item = msgspec.structs.replace(self.item, status="failed", error=done.output)
            closing = events.McpCallFailed(next(self._number), *place)
        else:
            self.item = msgspec.structs.replace(self.item, status="completed", output=done.output)
            closing = events.McpCallCompleted(next(self._number), *place)
        return [closing, events.OutputItemDone(next(self._number), self.index, self.item)]


def queries_of(arguments: str) -> list[str]:
    query = arguments_of(arguments).get("query")
    return [query] if isinstance(query, str) else []


def searched(item: FileSearchItem, hits: Sequence[Hit], *, failed: bool, results: bool) -> FileSearchItem:
    """The finished search; `results` says that the client wants to see what was found."""
    found = [
        SearchedPassage(hit.document_id, hit.filename, round(hit.score, 6), hit.text, dict(hit.attributes))
        for hit in hits
    ]
    return msgspec.structs.replace(item, status="failed" if failed else "completed", results=found if results else None)


class Writer:
    """Turns the parts of one answer into events and items. `begin` first, `add` as often as needed, `end` or `fail`.

    `summary` says that reasoning comes as its summary, `seal` that it comes sealed besides, `silent` that the model is
    not to say anything, `results` that searches show what they found. `search` is the one that came before the answer.
    """

    def __init__(
        self,
        response: Response,
        *,
        summary: bool = False,
        seal: bool = False,
        silent: bool = False,
        results: bool = False,
        search: FileSearchItem | None = None,
    ) -> None:
        self.response = response
        self._results = results
        self._search = search
        self._said = 0
        self._runs: dict[int, _Run] = {}
        self._silent = silent
        self._summary = summary
        self._seal = seal
        self._number = count()
        self._output: list[OutputItem] = []
        self._open: _Message | _Call | _Reasoning | None = None
        self._reason: str | None = None

    def begin(self) -> list[ResponseEvent]:
        begun: list[ResponseEvent] = [
            events.ResponseCreated(next(self._number), self.response),
            events.ResponseInProgress(next(self._number), self.response),
        ]
        return begun if self._search is None else begun + self._searched(self._search)

    def _searched(self, item: FileSearchItem) -> list[ResponseEvent]:
        """The search that came before the answer, told from its beginning to its end."""
        place = (item.id, len(self._output))
        self._output.append(item)
        open_ = msgspec.structs.replace(item, status="in_progress", results=None)
        return [
            events.OutputItemAdded(next(self._number), place[1], open_),
            events.FileSearchInProgress(next(self._number), *place),
            events.FileSearchSearching(next(self._number), *place),
            events.FileSearchCompleted(next(self._number), *place),
            events.OutputItemDone(next(self._number), place[1], item),
        ]

    def add(self, parts: Sequence[Part]) -> list[ResponseEvent]:
        """The events of what a step added."""
        return [event for part in parts for event in self._part(part)]

    def end(self, usage: ResponseUsage) -> list[ResponseEvent]:
        """The answer's last events; `response` is then what it came to."""
        short = self._reason == "length" and not self._silent
        status: ItemStatus = "incomplete" if short else "completed"
        last = self._close(status)
        if not self._silent and not any(isinstance(each, _SPOKEN) for each in self._output):
            last += self._message(Part("", 0)) + self._close(status)
        self.response = msgspec.structs.replace(
            self.response,
            status=status,
            output=self._output,
            usage=usage,
            completed_at=None if short else int(time.time()),
            incomplete_details=IncompleteDetails("max_output_tokens") if short else None,
        )
        kind = events.ResponseIncomplete if short else events.ResponseCompleted
        return [*last, kind(next(self._number), self.response)]

    def fail(self, error: HearthError) -> list[ResponseEvent]:
        """The fault, and the response as a failed one, with what there is of it."""
        self._close("incomplete")
        self.response = msgspec.structs.replace(
            self.response, status="failed", output=self._output, error=ResponseFault(error.code, error.message)
        )
        told = {"type": error.type, "code": error.code, "message": error.message, "param": error.param}
        return [
            events.ErrorEvent(next(self._number), error.code, error.message, error.param, told),
            events.ResponseFailed(next(self._number), self.response),
        ]

    def _part(self, part: Part) -> list[ResponseEvent]:
        added: list[ResponseEvent] = []
        if part.reasoning:
            added += self._reasoning(part.reasoning)
        if part.text or part.citations or part.logprobs:
            added += self._message(part)
        for piece in part.calls:
            added += self._call(piece)
        for run in part.runs:
            added += self._run(run)
        if part.finish_reason is not None:
            self._reason = part.finish_reason
        return added

    def _run(self, run: ToolRun) -> list[ResponseEvent]:
        if isinstance(run, ToolDone):
            open_ = self._runs.pop(run.index)
            closed = open_.close(run)
            self._output[open_.index] = open_.item
            return closed
        added = self._close("completed")
        begun = self._runs[run.index] = _Run(len(self._output), self._number, run, results=self._results)
        self._output.append(begun.item)
        return added + begun.open()

    def _message(self, part: Part) -> list[ResponseEvent]:
        opened: list[ResponseEvent] = []
        if not isinstance(message := self._open, _Message):
            opened = self._close("completed")
            message = self._open = _Message(len(self._output), self._number, self._said, refusal=part.refusal)
            opened += message.open()
        self._said += len(part.text)
        return opened + message.add(part.text, part.logprobs, part.citations)

    def _reasoning(self, text: str) -> list[ResponseEvent]:
        opened: list[ResponseEvent] = []
        if not isinstance(reasoning := self._open, _Reasoning):
            opened = self._close("completed")
            reasoning = _Reasoning(len(self._output), self._number, summary=self._summary, seal=self._seal)
            self._open = reasoning
            opened += reasoning.open()
        return opened + reasoning.add(text)

    def _call(self, piece: CallStart | CallArguments) -> list[ResponseEvent]:
        if isinstance(piece, CallStart):
            closed = self._close("completed")
            call = self._open = _Call(len(self._output), self._number, piece)
            return closed + call.open()
        return self._open.add(piece.text) if isinstance(self._open, _Call) else []

    def _close(self, status: ItemStatus) -> list[ResponseEvent]:
        """End the item that is being written, if there is one."""
        if self._open is None:
            return []
        closing, item = self._open.close(status)
        index = len(self._output)
        self._output.append(item)
        self._open = None
        return [*closing, events.OutputItemDone(next(self._number), index, item)]
