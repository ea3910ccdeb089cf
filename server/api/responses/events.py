"""The events of a streamed response, each with its number in the stream; types only."""

from typing import Any

import msgspec

from server.api.responses.wire import (
    FileSearchItem,
    FunctionCallItem,
    McpCallItem,
    OutputMessage,
    OutputRefusal,
    OutputText,
    ReasoningItem,
    ReasoningText,
    Response,
    SummaryText,
)
from server.api.wire import Annotation, TokenLogprob

Item = OutputMessage | FunctionCallItem | ReasoningItem | McpCallItem | FileSearchItem
ContentPart = OutputText | OutputRefusal | ReasoningText


class ResponseEvent(msgspec.Struct, tag_field="type", frozen=True):
    """Every event has a `type` and a `sequence_number`, counted from 0.

    A stream is response.created, response.in_progress, for each item response.output_item.added, its parts and deltas
    and response.output_item.done, and at last response.completed, response.incomplete or response.failed.
    """

    sequence_number: int

    @classmethod
    def named(cls) -> str:
        """The event's type."""
        return str(cls.__struct_config__.tag)


class ResponseCreated(ResponseEvent, frozen=True, tag="response.created"):
    response: Response


class ResponseInProgress(ResponseEvent, frozen=True, tag="response.in_progress"):
    response: Response


class ResponseCompleted(ResponseEvent, frozen=True, tag="response.completed"):
    response: Response


class ResponseIncomplete(ResponseEvent, frozen=True, tag="response.incomplete"):
    response: Response


class ResponseFailed(ResponseEvent, frozen=True, tag="response.failed"):
    response: Response


class ErrorEvent(ResponseEvent, frozen=True, tag="error"):
    """A fault in the middle; response.failed follows. OpenAI's form is flat, the specification's nested: it is both."""

    code: str
    message: str
    param: str | None
    error: dict[str, Any]


class OutputItemAdded(ResponseEvent, frozen=True, tag="response.output_item.added"):
    output_index: int
    item: Item


class OutputItemDone(ResponseEvent, frozen=True, tag="response.output_item.done"):
    output_index: int
    item: Item


class ContentPartAdded(ResponseEvent, frozen=True, tag="response.content_part.added"):
    item_id: str
    output_index: int
    content_index: int
    part: ContentPart


class ContentPartDone(ResponseEvent, frozen=True, tag="response.content_part.done"):
    item_id: str
    output_index: int
    content_index: int
    part: ContentPart


class OutputTextDelta(ResponseEvent, frozen=True, tag="response.output_text.delta"):
    item_id: str
    output_index: int
    content_index: int
    delta: str
    logprobs: list[TokenLogprob]


class OutputTextDone(ResponseEvent, frozen=True, tag="response.output_text.done"):
    item_id: str
    output_index: int
    content_index: int
    text: str
    logprobs: list[TokenLogprob]


class RefusalDelta(ResponseEvent, frozen=True, tag="response.refusal.delta"):
    item_id: str
    output_index: int
    content_index: int
    delta: str


class RefusalDone(ResponseEvent, frozen=True, tag="response.refusal.done"):
    item_id: str
    output_index: int
    content_index: int
    refusal: str


class AnnotationAdded(ResponseEvent, frozen=True, tag="response.output_text.annotation.added"):
    item_id: str
    output_index: int
    content_index: int
    annotation_index: int
    annotation: Annotation


class FunctionCallArgumentsDelta(ResponseEvent, frozen=True, tag="response.function_call_arguments.delta"):
    item_id: str
    output_index: int
    delta: str


class FunctionCallArgumentsDone(ResponseEvent, frozen=True, tag="response.function_call_arguments.done"):
    item_id: str
    output_index: int
    name: str
    arguments: str


class ReasoningTextDelta(ResponseEvent, frozen=True, tag="response.reasoning_text.delta"):
    item_id: str
    output_index: int
    content_index: int
    delta: str


class ReasoningTextDone(ResponseEvent, frozen=True, tag="response.reasoning_text.done"):
    item_id: str
    output_index: int
    content_index: int
    text: str


class SummaryPartAdded(ResponseEvent, frozen=True, tag="response.reasoning_summary_part.added"):
    item_id: str
    output_index: int
    summary_index: int
    part: SummaryText


class SummaryPartDone(ResponseEvent, frozen=True, tag="response.reasoning_summary_part.done"):
    item_id: str
    output_index: int
    summary_index: int
    part: SummaryText


class SummaryTextDelta(ResponseEvent, frozen=True, tag="response.reasoning_summary_text.delta"):
    item_id: str
    output_index: int
    summary_index: int
    delta: str


class SummaryTextDone(ResponseEvent, frozen=True, tag="response.reasoning_summary_text.done"):
    item_id: str
    output_index: int
    summary_index: int
    text: str


class OfItem(ResponseEvent, frozen=True):
    """How an item that the server works on goes on."""

    item_id: str
    output_index: int


class McpCallInProgress(OfItem, frozen=True, tag="response.mcp_call.in_progress"): ...


class McpCallArgumentsDone(OfItem, frozen=True, tag="response.mcp_call_arguments.done"):
    arguments: str


class McpCallCompleted(OfItem, frozen=True, tag="response.mcp_call.completed"): ...


class McpCallFailed(OfItem, frozen=True, tag="response.mcp_call.failed"): ...


class FileSearchInProgress(OfItem, frozen=True, tag="response.file_search_call.in_progress"): ...


class FileSearchSearching(OfItem, frozen=True, tag="response.file_search_call.searching"): ...


class FileSearchCompleted(OfItem, frozen=True, tag="response.file_search_call.completed"): ...


StreamedEvent = (
    ResponseCreated
    | ResponseInProgress
    | OutputItemAdded
    | ContentPartAdded
    | OutputTextDelta
    | AnnotationAdded
    | OutputTextDone
    | RefusalDelta
    | RefusalDone
    | ContentPartDone
    | FunctionCallArgumentsDelta
    | FunctionCallArgumentsDone
    | ReasoningTextDelta
    | ReasoningTextDone
    | SummaryPartAdded
    | SummaryTextDelta
    | SummaryTextDone
    | SummaryPartDone
    | McpCallInProgress
    | McpCallArgumentsDone
    | McpCallCompleted
    | McpCallFailed
    | FileSearchInProgress
    | FileSearchSearching
    | FileSearchCompleted
    | OutputItemDone
    | ResponseCompleted
    | ResponseIncomplete
    | ErrorEvent
    | ResponseFailed
)
