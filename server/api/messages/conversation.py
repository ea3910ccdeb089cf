"""The messages of Anthropic's wire as engines and templates read them: blocks to text, calls and results of calls."""

import re
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from typing import Any, NamedTuple

import msgspec

from server.api.messages.wire import CountTokensRequest, MessagesBlock, MessagesTurn
from server.errors import InvalidValue, UnsupportedParameter
from server.models.engine import Message, ToolCall

_BILLING = re.compile(r"^x-anthropic-billing-header.*\n?", re.MULTILINE)
"""A line in which Claude Code tells its version and a new number every time: no prompt would begin as the last did."""

_CALL_ID = re.compile(r"(?:(?:mcp)?toolu_)?([A-Za-z0-9]{9})")
_NOT_TEXT = ("image", "document", "search_result", "container_upload")


def conversation(
    asked: CountTokensRequest, *, pictures: bool = False, in_results: bool = False
) -> tuple[list[Message], str]:
    """The messages, and the beginning of the answer where the last one is an assistant's.

    With `pictures` the user's are passed on, to models that see them, and with `in_results` those that tools brought,
    for which OpenAI's wire has no place. Raises InvalidValue or UnsupportedParameter, naming the block, for what would
    be lost.
    """
    messages: list[Message] = []
    names: dict[str, str] = {}
    for message in _all(asked, names, _Sees(pictures, in_results)):
        if messages and message.role != "tool" and messages[-1].role == message.role:
            messages[-1] = _joined(messages[-1], message)
        else:
            messages.append(message)
    if messages and messages[-1].role == "assistant" and not messages[-1].tool_calls:
        return messages[:-1], messages[-1].text
    return messages, ""


class _Sees(NamedTuple):
    """Where pictures may stand."""

    said: bool = False
    brought: bool = False


_TEXT_ALONE = _Sees()


def _all(asked: CountTokensRequest, names: dict[str, str], sees: _Sees) -> Iterator[Message]:
    if system := _BILLING.sub("", _text(asked.system, "system")).strip("\n"):
        yield Message("system", system)
    for index, turn in enumerate(asked.messages):
        where = f"messages[{index}].content"
        match turn.role:
            case "assistant":
                yield from _assistant(turn, where, names)
            case "user":
                yield from _user(turn, where, names, sees)
            case _:
                yield Message("system", _text(turn.content, where))


def _joined(first: Message, second: Message) -> Message:
    """Two turns of one role, which most chat templates refuse."""
    reasoning = "\n".join(said.reasoning for said in (first, second) if said.reasoning)
    return msgspec.structs.replace(
        first,
        text="\n".join(said.text for said in (first, second) if said.text),
        tool_calls=first.tool_calls + second.tool_calls,
        reasoning=reasoning or None,
        parts=_parts(first) + _parts(second) if first.parts or second.parts else None,
        origins=_origins(first) + _origins(second) if first.parts or second.parts else [],
    )


def _origins(message: Message) -> list[str]:
    return message.origins if message.parts is not None else ["messages"]


def _parts(message: Message) -> list[dict[str, Any]]:
    return message.parts if message.parts is not None else [_part(message.text)]


def _part(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


# ---- turns ----------------------------------------------------------------------------------------------------------


def _assistant(turn: MessagesTurn, where: str, names: dict[str, str]) -> Iterator[Message]:
    """`names` of the functions are filled in by the ids of their calls.

    What the server ran comes before what was said with it: a turn and its results.
    """
    if isinstance(turn.content, str):
        yield Message("assistant", turn.content)
        return
    calls, thought, said = [], [], []
    served: list[Message] = []
    for at, block in enumerate(turn.content):
        match block.type:
            case "mcp_tool_use":
                calls.append(_call(block, f"{where}[{at}]"))
                names[calls[-1].id] = calls[-1].name
            case "mcp_tool_result":
                served.append(_result(block, f"{where}[{at}]", names, _TEXT_ALONE))
            case "tool_use":
                calls.append(_call(block, f"{where}[{at}]"))
                names[calls[-1].id] = calls[-1].name
            case "thinking":
                thought.append(block.thinking or "")
            case "redacted_thinking":
                pass  # sealed by another server: no model but its own can read it
            case _:
                said.append(_readable(block, f"{where}[{at}]"))
    text, reasoning = "".join(said), "\n".join(filter(None, thought)) or None
    run = {result.tool_call_id for result in served}
    ended = bool(served) and all(call.id in run for call in calls)
    yield Message("assistant", "" if ended else text, tool_calls=calls, reasoning=reasoning)
    yield from served
    if ended and text:
        yield Message("assistant", text)


def _user(turn: MessagesTurn, where: str, names: dict[str, str], sees: _Sees) -> Iterator[Message]:
    """Results of calls come first, wherever they stand: they belong to the turn before."""
    if isinstance(turn.content, str):
        yield Message("user", turn.content)
        return
    said = []
    for at, block in enumerate(turn.content):
        if block.type == "tool_result":
            yield _result(block, f"{where}[{at}]", names, sees)
        else:
            said.append((block, f"{where}[{at}]"))
    if said or not turn.content:
        yield _said(Message("user", ""), said, pictures=sees.said)


def _said(message: Message, blocks: Sequence[tuple[MessagesBlock, str]], *, pictures: bool) -> Message:
    """`message` with what the blocks say, each with its place: text, or parts where there are pictures among it."""
    parts = [
        _shown(block, where) if pictures and block.type == "image" else _part(_readable(block, where))
        for block, where in blocks
    ]
    texts = [part["text"] for part in parts if part["type"] == "text"]
    if len(texts) == len(parts):
        return msgspec.structs.replace(message, text="\n".join(texts))
    return msgspec.structs.replace(message, text="\n".join(texts), parts=parts, origins=[where for _, where in blocks])


def _shown(block: MessagesBlock, where: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": _picture(block, where)}}


def _picture(block: MessagesBlock, where: str) -> str:
    match block.source:
        case {"type": "base64", "media_type": str(kind), "data": str(data)}:
            return f"data:{kind};base64,{data}"
        case {"type": "url", "url": str(url)}:
            return url
        case _:
            raise InvalidValue(f"A picture is base64 or a URL here: `{where}.source`.", param=where)


def _call(block: MessagesBlock, where: str) -> ToolCall:
    if not block.id or not block.name:
        raise InvalidValue(f"A tool_use block needs `id` and `name`: `{where}`.", param=where)
    return ToolCall(_id(block.id), block.name, msgspec.json.encode(block.input or {}).decode())


def _result(block: MessagesBlock, where: str, names: dict[str, str], sees: _Sees) -> Message:
    if not block.tool_use_id:
        raise InvalidValue(f"A tool_result block needs `tool_use_id`: `{where}`.", param=where)
    call = _id(block.tool_use_id)
    message = Message("tool", "", names.get(call), tool_call_id=call)
    where = f"{where}.content"
    failed = "Error: " if block.is_error else ""
    if not isinstance(block.content, list):
        return msgspec.structs.replace(message, text=f"{failed}{_text(block.content, where)}")
    blocks = [(each, f"{where}[{at}]") for at, each in enumerate(block.content)]
    told = _said(message, blocks, pictures=sees.brought)
    if failed and told.parts:
        return msgspec.structs.replace(told, parts=[_part(failed), *told.parts], origins=[where, *told.origins])
    return msgspec.structs.replace(told, text=f"{failed}{told.text}")


def _id(given: str) -> str:
    """A call's id as every chat template takes it, nine letters and digits (`chat_calls`); ours are that already."""
    own = _CALL_ID.fullmatch(given)
    return own[1] if own else sha256(given.encode("utf-8", "surrogatepass")).hexdigest()[:9]


# ---- text -----------------------------------------------------------------------------------------------------------


def _text(content: str | list[MessagesBlock] | None, where: str) -> str:
    if isinstance(content, str):
        return content
    return _lines(_readable(block, f"{where}[{at}]") for at, block in enumerate(content or ()))


def _content(inner: object, where: str) -> str | list[MessagesBlock]:
    try:
        return msgspec.convert(inner, str | list[MessagesBlock])
    except msgspec.ValidationError as error:
        raise InvalidValue(f"{error}: `{where}.source.content`.", param=where) from error


def _lines(texts: Iterable[str]) -> str:
    return "\n".join(texts)


def _document(*parts: str | None) -> str:
    """Between tags, so that a model can tell it from what is asked about it."""
    return _lines(["<document>", *(part for part in parts if part), "</document>"])


def _readable(block: MessagesBlock, where: str) -> str:
    """The text of a block. Raises where it is of a type that is not text, and so would be lost."""
    match block:
        case MessagesBlock(type="document", source={"type": "text", "data": str(text)}):
            return _document(block.title, block.context, text)
        case MessagesBlock(type="document", source={"type": "content", "content": inner}):
            text = _text(_content(inner, where), f"{where}.source.content")
            return _document(block.title, block.context, text)
        case MessagesBlock(type="search_result", source=str(source), content=list(content)):
            return _document(block.title, source, _text(content, f"{where}.content"))
        case MessagesBlock(type="tool_reference", tool_name=str(name)):
            return name
        case MessagesBlock(type=kind, text=str(text)) if kind not in _NOT_TEXT:
            return text
        case MessagesBlock(type="text"):
            raise InvalidValue(f"A text block needs `text`: `{where}`.", param=where)
    raise UnsupportedParameter(
        f"This model reads text only, not blocks of type `{block.type[:60]}`: `{where}`.", param=where
    )
