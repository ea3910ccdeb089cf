"""A request to what a turn is asked: the parameters are chat's under other names, so chat's checks hold here too."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import msgspec

from server.api.attached import is_search
from server.api.chat_asked import asked_of, check, serving
from server.api.responses.items import Spoken
from server.api.responses.wire import CreateResponse
from server.api.wire import ChatRequest
from server.chat import Asked
from server.errors import HearthError, InvalidValue, UnsupportedParameter
from server.runtime import Target

_SAME = (
    *("temperature", "top_p", "presence_penalty", "frequency_penalty", "top_k", "min_p", "repetition_penalty"),
    *("seed", "chat_template_kwargs", "parallel_tool_calls", "user"),
)
_LOGPROBS, _SEALED = "message.output_text.logprobs", "reasoning.encrypted_content"
_RESULTS = "file_search_call.results"
_UNHEARD = ("max_tool_calls", "prompt_cache_key", "safety_identifier")

# Fields of a chat request, and what this wire calls them; the longest come first.
_HERE = [
    (re.compile(r"\bresponse_format\.json_schema\b"), "text.format"),
    (re.compile(r"\bresponse_format\b"), "text.format"),
    (re.compile(r"\bjson_schema\.schema\b"), "text.format.schema"),
    (re.compile(r"\bmax_(completion_)?tokens\b"), "max_output_tokens"),
    (re.compile(r"\breasoning_effort\b"), "reasoning.effort"),
    (re.compile(r"^messages\b"), "input"),
    (re.compile(r"^logprobs$"), "include"),
    (re.compile(r"^image_url$"), "input_image"),
    (re.compile(r"^file$"), "input_file"),
    (re.compile(r"^(tools\[\d+\])\.function\b"), r"\1"),
]
_MESSAGE = re.compile(r"messages\[(\d+)\](?:\.content(.*))?")


@dataclass(frozen=True)
class Wanted:
    """What a request asks of the model and of its answer. `tools` are those in force, as the client sent them."""

    asked: Asked
    no_effect: list[str]
    tools: list[dict[str, Any]]
    summary: bool
    sealed: bool
    results: bool = False
    """Whether searches show what they found."""
    searches: bool = False
    """Whether the client's tool searches before the answer, for `question`."""
    question: str = ""


def wanted(request: CreateResponse, target: Target, spoken: Spoken) -> Wanted:
    """Raises UnsupportedParameter or InvalidValue, naming the field of this wire that is wrong."""
    _refuse(request)
    tools = request.tools or []
    with named_here():
        chat = _chat(request)
        no_effect = [_here(name) for name in check(chat, target)]
        asked = msgspec.structs.replace(asked_of(chat, target), messages=spoken.messages)
    asked = msgspec.structs.replace(asked, max_calls=request.max_tool_calls)
    shown = [_full(tool) for tool in tools if tool.get("type") == "function" or is_search(tool)]
    unheard = _unheard(request)
    if serving(target, asked.retrieval) and "max_tool_calls" in unheard:
        unheard.remove("max_tool_calls")
    return Wanted(
        asked,
        list(dict.fromkeys([*no_effect, *unheard])),
        shown,
        summary=request.reasoning is not None and request.reasoning.summary is not None,
        sealed=_SEALED in (request.include or ()),
        results=_RESULTS in (request.include or ()),
        searches=any(map(is_search, tools)),
        question=next((each.text for each in reversed(spoken.messages) if each.role == "user"), "").strip(),
    )


def _full(tool: dict[str, Any]) -> dict[str, Any]:
    """A tool as the answer repeats it."""
    return tool if is_search(tool) else {"description": None, "parameters": None, "strict": None, **tool}


@contextmanager
def named_here(spoken: Spoken | None = None) -> Iterator[None]:
    """Faults from inside name this wire's fields; `spoken` is the conversation whose messages they may name."""
    try:
        yield
    except HearthError as error:
        if error.param is not None:
            error.param = _here(error.param, spoken)
        error.message = re.sub(r"`([\w.\[\]]+)`", lambda quoted: f"`{_here(quoted[1], spoken)}`", error.message)
        raise


def _here(name: str, spoken: Spoken | None = None) -> str:
    if spoken is not None and (found := _MESSAGE.fullmatch(name)):
        return spoken.origins[int(found[1])] + (found[2] or "")
    for pattern, replaced in _HERE:
        name, changed = pattern.subn(replaced, name, count=1)
        if changed:
            break
    return name


def _refuse(request: CreateResponse) -> None:
    """What would change the answer and is not to be had."""
    unmet = {
        "background": ("answers come while the client waits", bool(request.background)),
        "conversation": ("send the items, or continue with `previous_response_id`", bool(request.conversation)),
        "prompt": ("there are no stored prompts; send the items", bool(request.prompt)),
    }
    for name, (why, asked) in unmet.items():
        if asked:
            raise UnsupportedParameter(f"This server has no `{name}`: {why}.", param=name)


def _unheard(request: CreateResponse) -> list[str]:
    """Fields that are understood and change nothing."""
    names = [name for name in _UNHEARD if getattr(request, name) is not None]
    if set(request.include or ()) - {_LOGPROBS, _SEALED, _RESULTS}:
        names.append("include")
    if request.text and request.text.verbosity is not None:
        names.append("text.verbosity")
    if request.service_tier not in (None, "auto", "default"):
        names.append("service_tier")
    if request.stream_options and request.stream_options.include_obfuscation:
        names.append("stream_options.include_obfuscation")
    return names


# ---- as chat asks it ------------------------------------------------------------------------------------------------


def _chat(request: CreateResponse) -> ChatRequest:
    logprobs = _LOGPROBS in (request.include or ()) or bool(request.top_logprobs)
    return ChatRequest(
        model=request.model,
        messages=[],
        max_completion_tokens=request.max_output_tokens,
        logprobs=logprobs or None,
        top_logprobs=request.top_logprobs if logprobs else None,
        reasoning_effort=request.reasoning.effort if request.reasoning else None,
        response_format=_format(request.text.format if request.text else None),
        tools=[_tool(tool, index) for index, tool in enumerate(request.tools or ())] or None,
        tool_choice=_choice(request.tool_choice, request.tools),
        retrieval=request.retrieval,
        **{name: getattr(request, name) for name in _SAME},
    )


def _format(wanted: dict[str, Any] | None) -> dict[str, Any] | None:
    """The flat json_schema nested, as chat has it; the other types are the same."""
    match wanted:
        case {"type": "json_schema", **rest}:
            return {"type": "json_schema", "json_schema": rest}
        case _:
            return wanted


def _tool(tool: dict[str, Any], index: int) -> dict[str, Any]:
    match tool.get("type"):
        case "function":
            return {"type": "function", "function": tool}
        case str():
            return tool
        case _:
            raise InvalidValue(f"A tool needs a `type`: `tools[{index}]`.", param=f"tools[{index}].type")


def _choice(choice: str | dict[str, Any] | None, tools: list[dict[str, Any]] | None) -> str | dict[str, Any] | None:
    match choice:
        case {"type": "function", "name": str(name)}:
            return {"type": "function", "function": {"name": name}}
        case {"type": "allowed_tools", "tools": list(tools), **rest}:
            functions = [tool for tool in tools if not isinstance(tool, dict) or tool.get("type") == "function"]
            allowed = {"mode": rest.get("mode") or "auto", "tools": functions}
            return {"type": "allowed_tools", "allowed_tools": allowed}
        case {"type": "function" | "allowed_tools"}:
            raise InvalidValue(
                '`tool_choice` is "none", "auto", "required", {"type": "function", "name": ...} or '
                '{"type": "allowed_tools", "tools": [...]}.',
                param="tool_choice",
            )
        case {"type": "file_search"} if any(map(is_search, tools or ())):
            return "auto"  # a client's search comes before every answer
        case {"type": str(kind)}:
            raise UnsupportedParameter(f"There is no tool of type `{kind[:60]}` here to choose.", param="tool_choice")
        case _:
            return choice
