"""What is asked of another server: the bodies of OpenAI's requests, out of what a turn or a route was asked."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from server.models.dialect import Tools
from server.models.engine import Grammar, Message, Sampling

_OURS = frozenset(
    ["model", "messages", "prompt", "n", "best_of", "echo", "stream", "stream_options", "local_only", "retrieval"]
)
"""Fields that are set here, whatever the client sent: each choice is a request of its own, and always streamed."""

_REWRITTEN = ("messages", "tools", "tool_choice", "parallel_tool_calls", "max_tokens", "max_completion_tokens")

_QUIET = ("none", "minimal")
"""Values of reasoning_effort from which a wire makes the template's variable enable_thinking: false."""


class Forwarded(msgspec.Struct, frozen=True):
    """One answer that is asked of another server: `messages`, or a bare `prompt`, a text or that server's token ids.

    `sent` is the client's own request, where it spoke the same wire as the server does: its fields travel as they are,
    those this server does not know too, but for those that are `rewritten` here, because tools of this server are run:
    messages, tools and length. `grounds`, where given, is what the system message ends with, `system` what it begins
    with. `defaults` hold where `sent` says nothing.
    """

    messages: Sequence[Message] = ()
    prompt: str | list[int] | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    sampling: Sampling = Sampling()
    grammar: Grammar | None = None
    tools: Tools | None = None
    options: Mapping[str, Any] = {}
    sent: Mapping[str, msgspec.Raw] | None = None
    grounds: str | None = None
    system: str = ""
    defaults: Mapping[str, Any] = {}
    rewritten: bool = False


def body(asked: Forwarded, model: str) -> dict[str, Any]:
    """The body of a request to /chat/completions, or of one to /completions where there is a `prompt`."""
    told = _made(asked) if asked.sent is None else _passed(asked, asked.sent)
    told |= {"model": model, "stream": True, "stream_options": {"include_usage": True}}
    return told


def _passed(asked: Forwarded, sent: Mapping[str, msgspec.Raw]) -> dict[str, Any]:
    told: dict[str, Any] = {name: value for name, value in sent.items() if name not in _OURS}
    if (tools := told.get("tools")) is not None and b"file_search" in bytes(tools):
        kept = [tool for tool in msgspec.json.decode(tools) if tool.get("type") != "file_search"]
        told = {name: value for name, value in told.items() if name != "tools"} | ({"tools": kept} if kept else {})
    if asked.sampling.seed is not None:  # each choice of a request has its own
        told["seed"] = asked.sampling.seed
    if asked.prompt is not None:
        told["prompt"] = asked.prompt
        if asked.sampling.top_logprobs is not None:  # the best of several answers is told by them
            told["logprobs"] = asked.sampling.top_logprobs
    elif asked.rewritten:
        told = {name: value for name, value in told.items() if name not in _REWRITTEN}
        told["messages"] = _surrounded(asked, [_message(message) for message in asked.messages])
        told |= _tools(asked.tools) if asked.tools is not None else {}
        told |= {"max_tokens": asked.max_tokens} if asked.max_tokens is not None else {}
    elif asked.grounds is None and not asked.system:
        told["messages"] = sent["messages"]
    else:
        told["messages"] = _surrounded(asked, msgspec.json.decode(sent["messages"]))
    return _unsaid(asked.defaults, told) | told


def _unsaid(defaults: Mapping[str, Any], told: Mapping[str, Any]) -> dict[str, Any]:
    lengths = ("max_tokens", "max_completion_tokens")
    said = {*told, *(lengths if any(name in told for name in lengths) else ())}
    return {name: value for name, value in defaults.items() if name not in said}


def _surrounded(asked: Forwarded, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The messages with what the system message begins and ends with."""
    if asked.system:
        messages = _opened(messages, asked.system)
    return messages if asked.grounds is None else _grounded(messages, asked.grounds)


def _opened(messages: list[dict[str, Any]], system: str) -> list[dict[str, Any]]:
    """As `dialect.opened`, for messages as a client wrote them."""
    if not messages or messages[0].get("role") not in ("system", "developer"):
        return [{"role": "system", "content": system}, *messages]
    said = messages[0].get("content")
    if isinstance(said, list):
        content: str | list[Any] = [{"type": "text", "text": system}, *said]
    else:
        content = f"{system}\n\n{said}" if said else system
    return [{**messages[0], "content": content}, *messages[1:]]


def _grounded(messages: list[dict[str, Any]], grounds: str) -> list[dict[str, Any]]:
    """As `dialect.with_system`, for messages as a client wrote them."""
    if not messages or messages[0].get("role") not in ("system", "developer"):
        return [{"role": "system", "content": grounds}, *messages]
    said = messages[0].get("content")
    if isinstance(said, list):
        content: str | list[Any] = [*said, {"type": "text", "text": grounds}]
    else:
        content = f"{said}\n\n{grounds}" if said else grounds
    return [{**messages[0], "content": content}, *messages[1:]]


def _made(asked: Forwarded) -> dict[str, Any]:
    told = _sampled(asked.sampling, chat=asked.prompt is None)
    if asked.max_tokens is not None:
        told["max_tokens"] = asked.max_tokens
    if asked.stop:
        told["stop"] = list(asked.stop)
    if asked.grammar is not None:
        told["response_format"] = _format(asked.grammar)
    if asked.prompt is not None:
        return told | {"prompt": asked.prompt}
    told["messages"] = _surrounded(asked, [_message(message) for message in asked.messages])
    if asked.tools is not None:
        told |= _tools(asked.tools)
    return told | _options(asked.options)


def _sampled(sampling: Sampling, *, chat: bool) -> dict[str, Any]:
    """Only what is not neutral: servers refuse parameters they do not know."""
    told: dict[str, Any] = msgspec.to_builtins(sampling)
    top = told.pop("top_logprobs", None)
    if top is not None:
        told |= {"logprobs": True, "top_logprobs": top} if chat else {"logprobs": top}
    return told


def _format(grammar: Grammar) -> dict[str, Any]:
    match grammar.kind:
        case "json_schema":
            schema = msgspec.json.decode(grammar.text)
            if schema == {"type": "object"}:
                return {"type": "json_object"}
            return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}
        case "regex":
            return {"type": "regex", "pattern": grammar.text}
        case kind:
            return {"type": kind, "grammar": grammar.text}


def _message(message: Message) -> dict[str, Any]:
    told: dict[str, Any] = {"role": message.role, "content": message.parts or message.text}
    if message.name is not None:
        told["name"] = message.name
    if message.reasoning is not None:
        told["reasoning_content"] = message.reasoning
    if message.tool_call_id is not None:
        told["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        told["content"] = told["content"] or None
        told["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    return told


def _tools(tools: Tools) -> dict[str, Any]:
    functions = [{"type": "function", "function": _function(spec)} for spec in tools.specs]
    told: dict[str, Any] = {"tools": functions}
    if tools.forced:
        told["tool_choice"] = "required"
    if not tools.many:
        told["parallel_tool_calls"] = False
    return told


def _function(spec: Any) -> dict[str, Any]:
    told = msgspec.to_builtins(spec)
    return {key: value for key, value in told.items() if value not in (None, "")}


def _options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Variables for a chat template, and the effort that the wires put among them."""
    rest = dict(options)
    told: dict[str, Any] = {}
    if "reasoning_effort" in rest:
        told["reasoning_effort"] = rest.pop("reasoning_effort")
        if told["reasoning_effort"] in _QUIET and rest.get("enable_thinking") is False:
            del rest["enable_thinking"]
    return told | ({"chat_template_kwargs": rest} if rest else {})
