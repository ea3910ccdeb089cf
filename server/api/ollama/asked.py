"""What Ollama's clients ask, in the words of the chat wire, so that it is checked and converted as any chat is."""

from collections import deque
from dataclasses import dataclass
from typing import Any

import msgspec

from server.api.attached import unsearched
from server.api.chat_asked import asked_of, check
from server.api.decode import whole
from server.api.ollama.wire import (
    OllamaCall,
    OllamaChatRequest,
    OllamaGenerateRequest,
    OllamaMessage,
    OllamaOptions,
)
from server.api.wire import AskedToolCall, ChatMessage, ChatRequest, ContentPart, FunctionCall
from server.chat import Asked
from server.chat.infill import filled
from server.errors import InvalidValue, UnsupportedParameter
from server.runtime import Runtime, Target

_EFFORTS = ("low", "medium", "high")
_HERE = {"repetition_penalty": "options.repeat_penalty", "reasoning_effort": "think", "response_format": "format"}
"""Fields of the chat wire under the names that Ollama's clients know, where it is not options.NAME."""
_PICTURES = {"/9j/": "image/jpeg", "iVBORw0KGgo": "image/png", "R0lGOD": "image/gif", "UklGR": "image/webp"}
"""How pictures of each kind begin in base64."""
_ANY_TAG = ":latest"


@dataclass(frozen=True)
class Wanted:
    """`ignored` names what has no effect; `thinks` None leaves thinking to the model."""

    asked: Asked
    ignored: list[str]
    thinks: bool | None


def target_of(runtime: Runtime, model: str) -> Target:
    """What a name stands for, with or without the tag that Ollama puts behind names that have none."""
    known = {target.id for target in runtime.targets}
    bare = model.removesuffix(_ANY_TAG)
    return runtime.target(bare if model not in known and bare != model else model)


def of_chat(asked: OllamaChatRequest, target: Target) -> Wanted:
    """Raises InvalidValue or UnsupportedParameter for what is wrong or would be lost."""
    tools = asked.tools if asked.messages else unsearched(asked.tools)
    return _wanted(asked, target, messages_of(asked.messages), tools)


async def of_prompt(asked: OllamaGenerateRequest, target: Target) -> Wanted:
    """As `of_chat`; raises too where there is a suffix and the model fills nothing in."""
    for name in ("template", "context"):
        if getattr(asked, name):
            raise UnsupportedParameter(f"Hearth takes no `{name}` here.", param=name)
    if asked.images and (asked.suffix or asked.raw):
        raise UnsupportedParameter("Pictures belong to a conversation, not to a bare prompt.", param="images")
    said = [ChatMessage("user", _content(asked.prompt, asked.images))]
    if asked.system:
        said.insert(0, ChatMessage("system", asked.system))
    wanted = _wanted(asked, target, said, None)
    if not asked.suffix and not asked.raw:
        return wanted
    prompt = await filled(target, asked.prompt, asked.suffix) if asked.suffix else asked.prompt
    return Wanted(msgspec.structs.replace(wanted.asked, messages=[], prompt=prompt), wanted.ignored, wanted.thinks)


def _wanted(
    asked: OllamaChatRequest | OllamaGenerateRequest,
    target: Target,
    messages: list[ChatMessage],
    tools: list[dict[str, Any]] | None,
) -> Wanted:
    options = _options(asked.options or {})
    thinks = asked.think if isinstance(asked.think, bool) or asked.think is None else True
    chat = ChatRequest(
        model=asked.model,
        messages=messages,
        tools=tools,
        response_format=_format(asked.format),
        stop=options.stop,
        temperature=options.temperature,
        top_p=options.top_p,
        top_k=options.top_k,
        min_p=options.min_p,
        repetition_penalty=options.repeat_penalty,
        presence_penalty=options.presence_penalty,
        frequency_penalty=options.frequency_penalty,
        seed=options.seed,
        chat_template_kwargs=None if thinks is None else {"enable_thinking": thinks},
        reasoning_effort=_effort(asked.think),
    )
    ignored = [_HERE.get(name, name if name == "tools" else f"options.{name}") for name in check(chat, target)]
    ignored += [f"options.{name}" for name in asked.options or {} if name not in OllamaOptions.__struct_fields__]
    if asked.keep_alive is not None:
        ignored.append("keep_alive")
    wanted = asked_of(chat, target)
    if options.num_predict is not None and options.num_predict >= 0:
        wanted = msgspec.structs.replace(wanted, max_tokens=options.num_predict)
    return Wanted(wanted, ignored, thinks)


def _options(given: dict[str, Any]) -> OllamaOptions:
    try:
        return msgspec.convert(whole(given), OllamaOptions)
    except msgspec.ValidationError as error:
        raise InvalidValue(f"options: {error}.", param="options") from error


def _format(given: str | dict[str, Any] | None) -> dict[str, Any] | None:
    match given:
        case None | "":
            return None
        case "json":
            return {"type": "json_object"}
        case dict(schema):
            return {"type": "json_schema", "json_schema": {"schema": schema}}
        case _:
            raise InvalidValue('`format` is "json" or a JSON Schema.', param="format")


def _effort(think: bool | str | None) -> str | None:
    if not isinstance(think, str):
        return None
    if think not in _EFFORTS:
        raise InvalidValue("`think` is true, false, low, medium or high.", param="think")
    return think


# ---- messages -------------------------------------------------------------------------------------------------------


def messages_of(given: list[OllamaMessage]) -> list[ChatMessage]:
    """With an id for every call, which Ollama's clients mostly do not send: results answer calls in their order."""
    open_calls: deque[AskedToolCall] = deque()
    messages = []
    for index, message in enumerate(given):
        calls = [_call(call, f"{index:04}{at:05}") for at, call in enumerate(message.tool_calls or ())]
        open_calls.extend(calls)
        messages.append(
            ChatMessage(
                message.role,
                _content(message.content or "", message.images),
                name=message.tool_name,
                tool_calls=calls or None,
                tool_call_id=_answered(message, open_calls) if message.role == "tool" else None,
                reasoning_content=message.thinking,
            )
        )
    return messages


def _content(text: str, images: list[str] | None) -> str | list[ContentPart]:
    """With its pictures, which a model that does not see them refuses; they come first, as Ollama shows them."""
    if not images:
        return text
    pictures = [ContentPart("image_url", image_url={"url": _url(image)}) for image in images]
    return [*pictures, ContentPart("text", text)]


def _url(image: str) -> str:
    """A picture as a URL that holds it: its kind stands in its first bytes."""
    kind = next((kind for begin, kind in _PICTURES.items() if image.startswith(begin)), "image/png")
    return f"data:{kind};base64,{image}"


def _call(call: OllamaCall, fresh: str) -> AskedToolCall:
    arguments = msgspec.json.encode(call.function.arguments).decode()
    return AskedToolCall(call.id if isinstance(call.id, str) else fresh, FunctionCall(call.function.name, arguments))


def _answered(message: OllamaMessage, open_calls: deque[AskedToolCall]) -> str | None:
    """The id of the call that a tool's message answers: the first open one, of its function where that is named."""
    if message.tool_call_id is not None:
        return message.tool_call_id
    named = (call for call in open_calls if message.tool_name in (None, call.function.name))
    found = next(named, None)
    if found is None:
        return None
    open_calls.remove(found)
    return found.id
