"""An answer as Anthropic's wire has it: blocks of thinking, text and calls, which begin, grow and end one by one."""

from collections.abc import Iterable, Iterator
from hashlib import sha256
from typing import Literal

from msgspec import UNSET

from server.api.chat_calls import arguments
from server.api.messages.wire import (
    BlockDelta,
    BlockStart,
    BlockStop,
    CharLocation,
    CitationsDelta,
    Content,
    Delta,
    InputJsonDelta,
    McpToolResultBlock,
    McpToolUseBlock,
    SignatureDelta,
    StopReason,
    TextBlock,
    TextDelta,
    ThinkingBlock,
    ThinkingDelta,
    ToolUseBlock,
)
from server.chat import Cited, Part, ToolBegun, ToolRun, fresh_id
from server.models.tool_formats import CallArguments, CallStart

Thoughts = Literal["shown", "omitted", "hidden"]
"""What becomes of reasoning: a block, a block without its text, or nothing, where it was not asked for."""

BlockEvent = BlockStart | BlockDelta | BlockStop

_REASONS: dict[str | None, StopReason] = {"length": "max_tokens", "tool_calls": "tool_use"}


class Blocks:
    """Fed the parts of one answer, tells the events of its blocks.

    A citation is of a whole block, so a text block ends with the text that is cited.
    """

    def __init__(self, thoughts: Thoughts, *, runs: bool = False) -> None:
        """`runs` says that calls of the server are shown as blocks."""
        self._runs = runs
        self.stop_reason: StopReason | None = None
        self.stop_sequence: str | None = None
        self._thoughts = thoughts
        self._index = -1
        self._open: type[Content] | None = None
        self._cited = False
        self._thought = sha256()

    def feed(self, part: Part) -> Iterator[BlockEvent]:
        if part.reasoning and self._thoughts != "hidden":
            yield from self._think(part.reasoning)
        if part.text:
            yield from self._say(part.text)
        for cited in part.citations:
            yield self._delta(CitationsDelta(_location(cited)))
            self._cited = True
        for call in part.calls:
            yield from self._call(call)
        for run in part.runs if self._runs else ():
            yield from self._run(run)
        if part.finish_reason is not None:
            yield from self.end()
            self.stop_sequence = part.stop
            ended: StopReason = "stop_sequence" if part.stop is not None else "end_turn"
            self.stop_reason = _REASONS.get(part.finish_reason, ended)

    def end(self) -> Iterator[BlockEvent]:
        """Ends the block that is open."""
        if self._open is ThinkingBlock:
            yield self._delta(SignatureDelta(self._thought.hexdigest()))
        if self._open is not None:
            yield BlockStop(self._index)
        self._open = None
        self._cited = False

    def _begin(self, block: Content) -> Iterator[BlockEvent]:
        yield from self.end()
        self._index += 1
        self._open = type(block)
        yield BlockStart(self._index, block)

    def _delta(self, delta: Delta) -> BlockDelta:
        return BlockDelta(self._index, delta)

    def _think(self, text: str) -> Iterator[BlockEvent]:
        if self._open is not ThinkingBlock:
            yield from self._begin(ThinkingBlock("", ""))
        self._thought.update(text.encode("utf-8", "surrogatepass"))
        if self._thoughts == "shown":
            yield self._delta(ThinkingDelta(text))

    def _say(self, text: str) -> Iterator[BlockEvent]:
        if self._open is not TextBlock or self._cited:
            yield from self._begin(TextBlock(""))
        yield self._delta(TextDelta(text))

    def _run(self, run: ToolRun) -> Iterator[BlockEvent]:
        """Whole at once: a client need join nothing."""
        name = f"mcptoolu_{run.id}"
        if isinstance(run, ToolBegun):
            yield from self._begin(McpToolUseBlock(name, run.name, arguments(run.arguments)))
        else:
            yield from self._begin(McpToolResultBlock(name, run.error, [TextBlock(run.output)]))
        yield from self.end()

    def _call(self, call: CallStart | CallArguments) -> Iterator[BlockEvent]:
        match call:
            case CallStart(name=name, id=given):
                yield from self._begin(ToolUseBlock(_call_id(given), name, {}))
            case CallArguments(text=text):
                yield self._delta(InputJsonDelta(text))


def _call_id(given: str | None) -> str:
    """With the prefix of Anthropic's, before what is unlike it only."""
    return given if given is not None and given.startswith("toolu_") else f"toolu_{given or fresh_id()}"


def _location(cited: Cited) -> CharLocation:
    hit = cited.hit
    return CharLocation(
        cited_text=hit.text[cited.quote_start : cited.quote_end],
        document_index=cited.index,
        document_title=hit.title or hit.filename,
        start_char_index=hit.start + cited.quote_start,
        end_char_index=hit.start + cited.quote_end,
        file_id=hit.document_id,
    )


# ---- whole answers --------------------------------------------------------------------------------------------------


def whole(events: Iterable[BlockEvent]) -> list[Content]:
    """The blocks that the events of a finished answer make."""
    content: list[Content] = []
    begun: Content = TextBlock("")
    grown: list[str] = []
    told: list[Delta] = []
    for event in events:
        match event:
            case BlockStart(content_block=begun):
                grown, told = [], []
            case BlockDelta(delta=TextDelta(text=more) | ThinkingDelta(thinking=more)):
                grown.append(more)
            case BlockDelta(delta=InputJsonDelta(partial_json=more)):
                grown.append(more)
            case BlockDelta(delta=delta):
                told.append(delta)
            case BlockStop():
                content.append(_grown(begun, "".join(grown), told))
    return content


def _grown(begun: Content, text: str, told: list[Delta]) -> Content:
    match begun:
        case ThinkingBlock():
            return ThinkingBlock(text, "".join(each.signature for each in told if isinstance(each, SignatureDelta)))
        case McpToolUseBlock() | McpToolResultBlock():
            return begun
        case ToolUseBlock(id=call, name=name):
            return ToolUseBlock(call, name, arguments(text))
        case _:
            return TextBlock(text, [each.citation for each in told if isinstance(each, CitationsDelta)] or UNSET)
