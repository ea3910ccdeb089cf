"""A chat request to what a turn is asked: parameters, tools and formats, each refused by name where it is wrong."""

from typing import Any

import msgspec

from server.api.attached import is_search, retrieval
from server.api.chat_older import CALL_ID
from server.api.formats import grammar
from server.api.sampled import check_length, promised, require, sampling, without_effect
from server.api.wire import ChatMessage, ChatRequest, ServerToolCall
from server.chat import TEXT_PARTS, Asked, Retrieval
from server.errors import InvalidValue, UnsupportedParameter
from server.models.dialect import Tools
from server.models.engine import Card, Message, ToolCall
from server.models.tool_formats import ToolSpec
from server.runtime import Target

_WITHOUT_EFFECT = ("user", "metadata", "store")
_ROLES = {"developer": "system", "function": "tool"}
"""As engines and templates call them, where the wire has another word."""


def check(asked: ChatRequest, target: Target) -> list[str]:
    """Names of the parameters without effect on this model's answers. Raises for those that would break a promise."""
    card = chat_card(target)
    if target.forwards:
        return []
    if card is not None:
        require(_needed(asked), target.id, card)
    if asked.modalities is not None and asked.modalities != ["text"]:
        raise UnsupportedParameter("Models answer here with text only.", param="modalities")
    honours = card.honours if card else frozenset()
    sampled = without_effect(asked, card)
    # A model that calls no tools may be offered some, as editors always do; it answers without, and that is said.
    uncalled = "tools" not in honours and any(tool.get("type") == "function" for tool in asked.tools or ())
    offered = ["tools"] if uncalled or _foreign(asked.tools or []) else []
    unparallel = ["parallel_tool_calls"] if asked.parallel_tool_calls is not None and "tools" not in honours else []
    return sampled + offered + unparallel + [name for name in _WITHOUT_EFFECT if getattr(asked, name) is not None]


def chat_card(target: Target) -> Card | None:
    """What the model says of itself, None until it was loaded once. Raises InvalidValue where it is not for chat."""
    card = target.model.card
    if card is not None and card.task != "chat":
        raise InvalidValue(f"The model `{target.id}` is for {card.task}, not for chat.", param="model")
    return card


def _needed(asked: ChatRequest) -> dict[str, str]:
    """The abilities a model needs for this request, by the field that asks for each."""
    needed = promised(asked)
    if asked.logprobs or asked.top_logprobs:
        needed["logprobs"] = "logprobs"
    if asked.tool_choice not in (None, "auto", "none"):
        needed["tool_choice"] = "tool_choice"
    return needed


def asked_of(asked: ChatRequest, target: Target, index: int = 0, *, computed: bool = True) -> Asked:
    """What choice number `index` of a request asks. Raises InvalidValue naming the field that is wrong.

    `computed` is False where no model of this machine can come to answer it: the others judge formats and tools
    themselves.
    """
    asked = _with_defaults(asked, target)
    knowledge = retrieval(asked.tools, asked.retrieval)
    serves = serving(target, knowledge)
    limit = asked.max_tokens if asked.max_completion_tokens is None else asked.max_completion_tokens
    check_length(asked, limit)
    spoken = messages(asked.messages)
    begun = _begun(asked, spoken) if asked.continue_final_message else ""
    return Asked(
        messages=spoken[:-1] if begun else spoken,
        max_tokens=limit,
        stop=(asked.stop,) if isinstance(asked.stop, str) else tuple(asked.stop or ()),
        sampling=sampling(asked, index, _top_logprobs(asked)),
        grammar=grammar(asked) if computed else None,
        tools=_tools(asked, serves=serves) if computed or serves else None,
        options=_options(asked),
        begun=begun,
        token_ids=bool(asked.return_token_ids),
        retrieval=knowledge,
        only=_only(asked) if serves else None,
        withhold=serves and _withholds(asked),
    )


def _with_defaults(asked: ChatRequest, target: Target) -> ChatRequest:
    """With what the assistant has for what the request does not say."""
    if target.assistant is None:
        return asked
    unsaid = {name: value for name, value in target.assistant.defaults.said().items() if getattr(asked, name) is None}
    if asked.max_completion_tokens is not None:
        unsaid.pop("max_tokens", None)
    return msgspec.structs.replace(asked, **unsaid) if unsaid else asked


def serving(target: Target, knowledge: Retrieval | None) -> bool:
    """Whether the server brings tools of its own along, which a choice may name."""
    auto = knowledge is not None and knowledge.when == "auto"
    return auto or (target.assistant is not None and bool(target.assistant.tools))


def _only(asked: ChatRequest) -> str | None:
    """The function that a choice names and the request does not bring, which then has to be the server's."""
    match asked.tool_choice:
        case {"type": "function", "function": {"name": str(name)}} if name not in _functions(asked):
            return name
        case _:
            return None


def _withholds(asked: ChatRequest) -> bool:
    """Whether a choice leaves no room for the server's tools."""
    match asked.tool_choice:
        case "none" | {"type": "allowed_tools"}:
            return True
        case {"type": "function", "function": {"name": str(name)}}:
            return name in _functions(asked)
        case _:
            return False


def _functions(asked: ChatRequest) -> list[object]:
    tools = [tool.get("function") for tool in asked.tools or () if tool.get("type") == "function"]
    return [function.get("name") for function in tools if isinstance(function, dict)]


def _begun(asked: ChatRequest, spoken: list[Message]) -> str:
    """The beginning of the answer, which the last message is."""
    param = "continue_final_message"
    if asked.add_generation_prompt:
        raise InvalidValue("`add_generation_prompt` begins a new message: it excludes the other.", param=param)
    last = spoken[-1]
    if last.role != "assistant" or not last.text or last.tool_calls:
        raise InvalidValue(
            "The answer continues the last message, which is to be a text of the assistant's.", param=param
        )
    return last.text


def _top_logprobs(asked: ChatRequest) -> int | None:
    if asked.top_logprobs and not asked.logprobs:
        raise InvalidValue("`top_logprobs` needs `logprobs: true`.", param="top_logprobs")
    return (asked.top_logprobs or 0) if asked.logprobs else None


def _options(asked: ChatRequest) -> dict[str, Any]:
    options = dict(asked.chat_template_kwargs or {})
    if asked.reasoning_effort is not None:
        options.setdefault("reasoning_effort", asked.reasoning_effort)
        if asked.reasoning_effort in ("none", "minimal"):
            options.setdefault("enable_thinking", False)
    if asked.add_generation_prompt is False and not asked.continue_final_message:
        options["add_generation_prompt"] = False
    for name in ("messages", "tools"):
        if name in options:
            raise InvalidValue(f"`{name}` is no variable to set.", param=f"chat_template_kwargs.{name}")
    return options


# ---- tools ----------------------------------------------------------------------------------------------------------


def _foreign(tools: list[dict[str, Any]]) -> bool:
    """Whether some are of a type this server has not: clients offer those to every server, so they are passed over."""
    return any(tool.get("type") != "function" and not is_search(tool) for tool in tools)


def _tools(asked: ChatRequest, *, serves: bool) -> Tools | None:
    """The client's functions. Where the server has some besides, there need not be any for one to be called."""
    specs = [_spec(tool, index) for index, tool in enumerate(asked.tools or ()) if tool.get("type") == "function"]
    many = asked.parallel_tool_calls is not False
    match asked.tool_choice:
        case "none":
            return None
        case None | "auto":
            return Tools(specs, many=many) if specs or (serves and not many) else None
        case "required":
            return Tools(specs if serves else _some(specs), forced=True, many=many)
        case {"type": "function", "function": {"name": str()}} if serves and _only(asked) is not None:
            return Tools([], forced=True, many=False)
        case {"type": "function", "function": {"name": str(name)}}:
            return Tools([_named(specs, name)], forced=True, many=False)
        case {"type": "allowed_tools", "allowed_tools": {"mode": "auto" | "required" as mode, "tools": list(allowed)}}:
            chosen = [_named(specs, _allowed(tool)) for tool in allowed]
            return Tools(_some(chosen), forced=mode == "required", many=many)
        case _:
            raise InvalidValue(
                '`tool_choice` is "none", "auto", "required" or {"type": "function", "function": {"name": ...}}.',
                param="tool_choice",
            )


def _spec(tool: dict[str, Any], index: int) -> ToolSpec:
    where = f"tools[{index}].function"
    function = tool.get("function")
    if not isinstance(function, dict):
        raise InvalidValue(f"`{where}` should be an object.", param=where)
    name, parameters = function.get("name"), function.get("parameters")
    if not isinstance(name, str) or not name:
        raise InvalidValue(f"`{where}.name` should be a text.", param=f"{where}.name")
    if parameters is not None and not isinstance(parameters, dict):
        raise InvalidValue(f"`{where}.parameters` should be a JSON Schema.", param=f"{where}.parameters")
    return ToolSpec(name, parameters, str(function.get("description") or ""))


def _some(specs: list[ToolSpec]) -> list[ToolSpec]:
    if not specs:
        raise InvalidValue("`tool_choice` asks for a call, and `tools` has no function.", param="tool_choice")
    return specs


def _named(specs: list[ToolSpec], name: str) -> ToolSpec:
    found = next((spec for spec in specs if spec.name == name), None)
    if found is None:
        raise InvalidValue(f"`tool_choice` names `{name[:80]}`, which `tools` does not have.", param="tool_choice")
    return found


def _allowed(tool: object) -> str:
    match tool:
        case {"type": "function", "function": {"name": str(name)}} | {"type": "function", "name": str(name)}:
            return name
        case _:
            raise InvalidValue("`tool_choice` allows something that is no function.", param="tool_choice")


# ---- messages -------------------------------------------------------------------------------------------------------


def messages(asked: list[ChatMessage]) -> list[Message]:
    """The conversation as engines and templates read it. Raises where a part lacks what it needs."""
    told: list[Message] = []
    for index, message in enumerate(asked):
        each = _message(message, index)
        told += _served(each, message.server_tool_calls) if message.server_tool_calls else (each,)
    return told


def _served(told: Message, served: list[ServerToolCall]) -> list[Message]:
    """A message, with the calls that the server ran in it and what they brought before what it says."""
    calls = [ToolCall(call.id, call.function.name, call.function.arguments) for call in served]
    results = [
        Message(
            "tool", f"Error: {call.output}" if call.is_error else call.output, call.function.name, tool_call_id=call.id
        )
        for call in served
    ]
    if told.tool_calls:
        return [msgspec.structs.replace(told, tool_calls=[*calls, *told.tool_calls]), *results]
    return [Message("assistant", "", tool_calls=calls), *results, told]


def _message(message: ChatMessage, index: int) -> Message:
    if message.role == "tool" and message.tool_call_id is None:
        where = f"messages[{index}].tool_call_id"
        raise InvalidValue(f"A tool's message needs the id of the call it answers: `{where}`.", param=where)
    return Message(
        _ROLES.get(message.role, message.role),
        _text(message, index),
        message.name,
        _calls(message),
        message.tool_call_id or (CALL_ID if message.role == "function" else None),
        message.reasoning_content or message.reasoning,
        _parts(message),
    )


def _calls(message: ChatMessage) -> list[ToolCall]:
    calls = [ToolCall(call.id, call.function.name, call.function.arguments) for call in message.tool_calls or ()]
    if (older := message.function_call) is not None:
        calls.append(ToolCall(CALL_ID, older.name, older.arguments))
    return calls


def _text(message: ChatMessage, index: int) -> str:
    if isinstance(message.content, str):
        return message.content
    for at, part in enumerate(message.content or ()):
        if part.text is None and part.type == "text":
            where = f"messages[{index}].content[{at}]"
            raise InvalidValue(f"A text part needs `text`: `{where}`.", param=where)
    texts = (part for part in message.content or () if part.type in TEXT_PARTS)
    return "\n".join(part.text or part.refusal or "" for part in texts)


def _parts(message: ChatMessage) -> list[dict[str, Any]] | None:
    """The content where there is more than text in it, which is for the model to read or to refuse."""
    if isinstance(message.content, str) or all(part.type in TEXT_PARTS for part in message.content or ()):
        return None
    told = [msgspec.to_builtins(part) for part in message.content or ()]
    return [{name: value for name, value in part.items() if value is not None} for part in told]
