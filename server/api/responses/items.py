"""Input items: read strictly, kept as JSON objects with ids, and turned into the messages that a model reads.

An item has the shape that OpenAI gave it. Those of types that mean nothing to this server are passed over and named.
"""

import base64
import binascii
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from secrets import token_hex
from typing import Any, Literal

import msgspec

from server.api.decode import invalid
from server.api.responses.parts import Attached, Part, checked, given
from server.errors import InvalidValue
from server.models.engine import Message, ToolCall

Json = dict[str, Any]

_PREFIXES = {
    "message": "msg",
    "function_call": "fc",
    "function_call_output": "fco",
    "reasoning": "rs",
    "compaction": "cmp",
    "mcp_call": "mcp",
    "file_search_call": "fs",
}
_SEALED = "hearth1."
_LONGEST_SEALED = 10 * 2**20


# ---- shapes ---------------------------------------------------------------------------------------------------------


class _Message(msgspec.Struct, tag_field="type", tag="message"):
    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[Part]
    id: str | None = None


class _FunctionCall(msgspec.Struct, tag_field="type", tag="function_call"):
    call_id: str
    name: str
    arguments: str
    id: str | None = None


class _FunctionCallOutput(msgspec.Struct, tag_field="type", tag="function_call_output"):
    call_id: str
    output: str | list[Part]
    id: str | None = None


class _Reasoning(msgspec.Struct, tag_field="type", tag="reasoning"):
    summary: list[Part] | None = None
    content: list[Part] | None = None
    encrypted_content: str | None = None
    id: str | None = None


class _Compaction(msgspec.Struct, tag_field="type", tag="compaction"):
    encrypted_content: str
    id: str | None = None


class _McpCall(msgspec.Struct, tag_field="type", tag="mcp_call"):
    """A call that a server ran, with what it brought."""

    name: str
    arguments: str
    output: str | None = None
    error: str | dict[str, Any] | None = None
    id: str | None = None


class _FileSearchCall(msgspec.Struct, tag_field="type", tag="file_search_call"):
    """Tells the model nothing: what was found then stood beside the conversation, and is searched for anew."""

    id: str | None = None


_Item = _Message | _FunctionCall | _FunctionCallOutput | _Reasoning | _Compaction | _McpCall | _FileSearchCall


def fresh(kind: str) -> str:
    """A new id for an item of a type, as long and as random as the ids of responses."""
    return f"{_PREFIXES[kind]}_{token_hex(24)}"


# ---- reading --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Input:
    """What a request brings: whole items in order, the ids it refers to, and the fields that had no effect.

    `items` hold None where the item `references` names for that place belongs.
    """

    items: list[Json | None] = field(default_factory=list)
    references: dict[int, str] = field(default_factory=dict)
    passed_over: list[str] = field(default_factory=list)

    def with_found(self, found: dict[str, Json]) -> list[Json]:
        """The items, those referred to put in. Raises InvalidValue for a reference to nothing."""
        whole = []
        for place, item in enumerate(self.items):
            if item is None:
                name = self.references[place]
                if name not in found:
                    raise InvalidValue(f"Item with id '{name[:80]}' not found.", param="input")
                item = found[name]
            whole.append(item)
        return whole


def read(given: str | list[Json] | None) -> Input:
    """A request's `input`. Raises InvalidValue or UnsupportedParameter, naming the part that is wrong."""
    found = Input()
    if given is None:
        return found
    if isinstance(given, str):
        found.items.append(said("user", given))
        return found
    for index, item in enumerate(given):
        where = f"input[{index}]"
        kind = item.get("type") or ("message" if "role" in item else "item_reference" if "id" in item else None)
        if kind == "item_reference":
            found.references[len(found.items)] = _id(item, where)
            found.items.append(None)
        elif kind in _PREFIXES:
            found.items.append(_whole({**item, "type": kind}, where))
        elif isinstance(kind, str):
            found.passed_over.append(where)
        else:
            raise InvalidValue(f"An item needs a `type`: `{where}`.", param=f"{where}.type")
    return found


def said(role: str, text: str) -> Json:
    """A message as an item."""
    content = {"type": "input_text", "text": text}
    return {"type": "message", "id": fresh("message"), "status": "completed", "role": role, "content": [content]}


def _id(item: Json, where: str) -> str:
    match item.get("id"):
        case str(name) if name:
            return name
        case _:
            raise InvalidValue(f"A reference needs the `id` of an item: `{where}`.", param=f"{where}.id")


def _whole(item: Json, where: str) -> Json:
    """The item as it is kept: checked, with an id, a message's content as parts."""
    parsed = _parsed(item, where)
    _check(parsed, where)
    kept = item | {"id": parsed.id or fresh(item["type"])}
    if isinstance(parsed, _Compaction):
        unsealed(parsed.encrypted_content, where)
    elif item.get("status") is None:
        kept["status"] = "completed"
    if isinstance(parsed, _Message):
        kept["content"] = _parts(item["content"], parsed.role)
    return kept


def _parts(content: str | list[Json], role: str) -> list[Json]:
    kind = "output_text" if role == "assistant" else "input_text"
    parts = [{"type": kind, "text": content}] if isinstance(content, str) else content
    return [{"annotations": [], **part} if part["type"] == "output_text" else part for part in parts]


def _parsed(item: Json, where: str) -> _Item:
    try:
        parsed: _Item = msgspec.convert(item, type=_Item)
    except msgspec.ValidationError as error:
        raise invalid(str(error), where) from error
    return parsed


def _check(item: _Item, where: str) -> None:
    parts, field = _content(item)
    for index, part in enumerate(parts):
        checked(part, f"{where}.{field}[{index}]")


def _content(item: _Item) -> tuple[Sequence[Part], str]:
    """The parts of an item that may be of several types, and the name of the field they stand in."""
    match item:
        case _Message(content=list(parts)):
            return parts, "content"
        case _FunctionCallOutput(output=list(parts)):
            return parts, "output"
        case _:
            return (), "content"


def files_of(items: Iterable[Json]) -> list[str]:
    """The ids of the files that items refer to."""
    parts = (part for item in items for part in _content(_parsed(item, "input"))[0])
    return list(dict.fromkeys(part.file_id for part in parts if part.file_id))


# ---- messages -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spoken:
    """The conversation as a model reads it; `origins` say of each message where its content stands in the request."""

    messages: list[Message] = field(default_factory=list)
    origins: list[str] = field(default_factory=list)

    def add(self, message: Message, origin: str) -> None:
        self.messages.append(message)
        self.origins.append(origin)


class _Turns:
    """Items become turns of a conversation: what the assistant thought, said and called stands in one of its own."""

    def __init__(self, attached: Mapping[str, Attached]) -> None:
        self.spoken = Spoken()
        self._attached = attached
        self._calls: dict[str, str] = {}
        self._texts: list[str] = []
        self._thoughts: list[str] = []
        self._called: list[ToolCall] = []
        self._served: list[Message] = []
        self._origin = ""

    def add(self, item: _Item, where: str) -> None:
        match item:
            case _Message(role="assistant"):
                if self._called:
                    self.close()
                self._texts.append(_text(item.content))
            case _McpCall():
                self._mcp_call(item)
            case _Message():
                self.close()
                self._say("user" if item.role == "user" else "system", item, where)
            case _FunctionCall():
                self._calls[item.call_id] = item.name
                self._called.append(ToolCall(item.call_id, item.name, item.arguments))
            case _FunctionCallOutput():
                self.close()
                self._output(item, where)
            case _Reasoning():
                if self._texts or self._called:
                    self.close()
                self._thoughts.append(_thought(item, where))
            case _Compaction():
                self.close()
                self.spoken.add(Message("user", _BEFORE + unsealed(item.encrypted_content, where)), where)
        self._origin = where

    def _say(self, role: str, item: _Message, where: str) -> None:
        """Templates take one system message at the beginning; those that follow it directly become part of it."""
        message = self._message(role, item, where)
        before = self.spoken.messages
        if role == "system" and len(before) == 1 and before[0].role == "system" and message.parts is None:
            before[0] = Message("system", f"{before[0].text}\n\n{message.text}")
        else:
            self.spoken.add(message, f"{where}.content")

    def _mcp_call(self, item: _McpCall) -> None:
        """A call that has its result with it: of one turn with the client's calls that follow."""
        call = sha256((item.id or item.arguments).encode("utf-8", "surrogatepass")).hexdigest()[:9]
        self._called.append(ToolCall(call, item.name, item.arguments))
        error = item.error if isinstance(item.error, str) else msgspec.json.encode(item.error).decode()
        text = f"Error: {error}" if item.error is not None else item.output or ""
        self._served.append(Message("tool", text, item.name, tool_call_id=call))

    def _output(self, item: _FunctionCallOutput, where: str) -> None:
        name = self._calls.get(item.call_id)
        if name is None:
            raise InvalidValue(
                f"No tool call found for function call output with call_id {item.call_id[:80]}.",
                param=f"{where}.call_id",
            )
        message = self._message("tool", item, where)
        named = msgspec.structs.replace(message, name=name, tool_call_id=item.call_id)
        self.spoken.add(named, f"{where}.output")

    def _message(self, role: str, item: _Message | _FunctionCallOutput, where: str) -> Message:
        """Text, and the parts one by one where there is more than text."""
        parts, named = _content(item)
        if not parts:
            return Message(role, _text(item.content if isinstance(item, _Message) else item.output))
        told = [given(part, self._attached, f"{where}.{named}[{at}]") for at, part in enumerate(parts)]
        text = "\n".join(part["text"] for part in told if part["type"] == "text")
        return Message(role, text, parts=None if all(part["type"] == "text" for part in told) else told)

    def close(self) -> None:
        """End the assistant's turn, if one is open."""
        reasoning = "\n\n".join(filter(None, self._thoughts)) or None
        if self._texts or self._called:
            text = "\n\n".join(self._texts)
            turn = Message("assistant", text, tool_calls=self._called, reasoning=reasoning)
            self.spoken.add(turn, self._origin)
        for result in self._served:
            self.spoken.add(result, self._origin)
        self._texts, self._thoughts, self._called, self._served = [], [], [], []


_BEFORE = "A summary of this conversation so far, made to keep it short:\n\n"


def spoken(
    instructions: str | None, before: Sequence[Json], now: Sequence[Json], attached: Mapping[str, Attached]
) -> Spoken:
    """The conversation: the instructions, the items of earlier responses, those of this one.

    Raises InvalidValue for the output of a call that nobody made.
    """
    turns = _Turns(attached)
    if instructions:
        turns.spoken.add(Message("system", instructions), "instructions")
    for item in before:
        turns.add(_parsed(item, "previous_response_id"), "previous_response_id")
    for index, item in enumerate(now):
        turns.add(_parsed(item, f"input[{index}]"), f"input[{index}]")
    turns.close()
    return turns.spoken


def _text(content: str | list[Part]) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(part.text or part.refusal or "" for part in content)


def _thought(item: _Reasoning, where: str) -> str:
    """What the model thought, from where it stands whole; a client without a store has it sealed alone."""
    if item.content:
        return _text(item.content)
    if item.encrypted_content and item.encrypted_content.startswith(_SEALED):
        return unsealed(item.encrypted_content, where)
    return _text(item.summary or [])


# ---- sealed text ----------------------------------------------------------------------------------------------------


def sealed(text: str) -> str:
    """Text as a client carries it and gives it back. Packed, not secret: it is the client's own conversation."""
    return _SEALED + base64.urlsafe_b64encode(zlib.compress(text.encode())).decode()


def unsealed(text: str, where: str) -> str:
    """Raises InvalidValue where another server sealed it, or nobody."""
    try:
        if not text.startswith(_SEALED):
            raise ValueError("of another server")
        unpack = zlib.decompressobj()
        raw = unpack.decompress(base64.b64decode(text[len(_SEALED) :], altchars=b"-_", validate=True), _LONGEST_SEALED)
        if not unpack.eof:
            raise ValueError("cut off or too long")
        return raw.decode()
    except (ValueError, binascii.Error, zlib.error) as error:
        raise InvalidValue(
            "The `encrypted_content` was not made by this server, or was changed.", param=f"{where}.encrypted_content"
        ) from error
