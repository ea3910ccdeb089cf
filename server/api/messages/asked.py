"""A Messages request to what a turn is asked: parameters, tools and formats, each refused by name where it is wrong."""

from typing import Any

import msgspec

from server.api.attached import retrieval
from server.api.chat_asked import chat_card, serving
from server.api.messages.conversation import conversation
from server.api.messages.wire import CountTokensRequest, MessagesOutputFormat, MessagesRequest, MessagesTool
from server.api.sampled import require
from server.chat import Asked
from server.errors import InvalidValue, UnsupportedParameter
from server.models.dialect import Tools
from server.models.engine import Grammar, Sampling
from server.models.tool_formats import ToolSpec
from server.runtime import Target

_SAMPLED = ("temperature", "top_p", "top_k")
_WITHOUT_EFFECT = ("metadata", "service_tier")
_EFFORTS = {"xhigh": "high", "max": "high"}
"""To the words that chat templates know."""


def check(asked: CountTokensRequest, target: Target) -> list[str]:
    """Names of the parameters without effect on this model's answers. Raises for those that would break a promise."""
    _refuse(asked)
    card = chat_card(target)
    if card is not None:
        if asked.tool_choice is not None and asked.tool_choice.type in ("any", "tool"):
            require({"tool_choice": "tool_choice"}, target.id, card)
        if (place := _format(asked)) is not None:
            require({place[1]: "response_format"}, target.id, card)
    honours = card.honours if card else frozenset()
    names = [name for name in _SAMPLED if getattr(asked, name, None) is not None and name not in honours]
    if asked.tools and ("tools" not in honours or not all(_own(tool) for tool in asked.tools)):
        names.append("tools")
    if asked.tool_choice and asked.tool_choice.disable_parallel_tool_use is not None and "tools" not in honours:
        names.append("tool_choice.disable_parallel_tool_use")
    names += _thoughtless(asked, card.template if card and card.template else "")
    return names + [name for name in _WITHOUT_EFFECT if getattr(asked, name, None) is not None]


def _refuse(asked: CountTokensRequest) -> None:
    """What would change which messages the model reads."""
    if isinstance(asked, MessagesRequest) and asked.thread is not None:
        raise UnsupportedParameter("This server keeps no `thread`: send all messages each time.", param="thread")
    if isinstance(asked, MessagesRequest) and asked.compaction is not None:
        raise UnsupportedParameter("This server has no `compaction`: send a shorter conversation.", param="compaction")


def _thoughtless(asked: CountTokensRequest, template: str) -> list[str]:
    """What of `thinking` and effort the model's template has no place for. No engine counts a budget."""
    names = []
    if thinks(asked) and "think" not in template:
        names.append("thinking")
    elif asked.thinking is not None and asked.thinking.budget_tokens is not None:
        names.append("thinking.budget_tokens")
    if asked.output_config and asked.output_config.effort is not None and "reasoning_effort" not in template:
        names.append("output_config.effort")
    return names


def asked_of(asked: CountTokensRequest, target: Target) -> Asked:
    """What the turn is asked; of a request to count, all that its prompt is made of.

    Raises InvalidValue or UnsupportedParameter naming the field that is wrong.
    """
    card = target.model.card
    # Of a model that was never loaded, the turn says what it lacks.
    honours = frozenset({"images"}) if card is None else card.honours
    sees = "images" in honours
    messages, begun = conversation(asked, pictures=sees or "parts" in honours, in_results=sees)
    knowledge = retrieval(None, asked.retrieval)
    serves = serving(target, knowledge)
    tools = _tools(asked, serves=serves)
    grammar = _grammar(asked)
    if begun and (grammar is not None or (tools is not None and tools.forced)):
        raise InvalidValue(
            "An answer that the last message begins cannot be held to a format or a call.", param="messages"
        )
    template = card.template if card and card.template else ""
    prompt = Asked(
        messages,
        tools=tools,
        grammar=grammar,
        options=_options(asked, template),
        begun=begun,
        retrieval=knowledge,
        only=_only(asked) if serves else None,
        withhold=serves and _withholds(asked),
    )
    if not isinstance(asked, MessagesRequest):
        return prompt
    given = {name: value for name in _SAMPLED if (value := getattr(asked, name)) is not None}
    if target.assistant is not None:
        defaults = dict(target.assistant.defaults.said())
        defaults.pop("max_tokens", None)  # this wire's requests always say how long an answer may be
        given = defaults | given
    return msgspec.structs.replace(
        prompt,
        max_tokens=asked.max_tokens,
        stop=tuple(asked.stop_sequences or ()),
        sampling=Sampling(**given),
    )


# ---- thinking -------------------------------------------------------------------------------------------------------


def thinks(asked: CountTokensRequest) -> bool:
    """Whether thinking was asked for: without the field, Anthropic's models do not think."""
    match asked.thinking.type if asked.thinking is not None else "disabled":
        case "disabled":
            return False
        case "enabled" | "adaptive" | "between_tools":
            return True
        case _:
            raise InvalidValue("`thinking.type` is enabled, disabled or adaptive.", param="thinking.type")


def _options(asked: CountTokensRequest, template: str) -> dict[str, Any]:
    """Variables for the model's chat template, those it has a use for."""
    options: dict[str, Any] = {}
    if "enable_thinking" in template:
        options["enable_thinking"] = thinks(asked)
    effort = asked.output_config.effort if asked.output_config is not None else None
    if effort is not None and "reasoning_effort" in template:
        options["reasoning_effort"] = _EFFORTS.get(effort, effort)
    return options


# ---- formats --------------------------------------------------------------------------------------------------------


def _format(asked: CountTokensRequest) -> tuple[MessagesOutputFormat, str] | None:
    """The format wanted, and the field that says so."""
    if asked.output_config is not None and asked.output_config.format is not None:
        return asked.output_config.format, "output_config.format"
    return None if asked.output_format is None else (asked.output_format, "output_format")


def _grammar(asked: CountTokensRequest) -> Grammar | None:
    place = _format(asked)
    if place is None:
        return None
    wanted, param = place
    return Grammar("json_schema", msgspec.json.encode(wanted.schema).decode(), f"{param}.schema")


# ---- tools ----------------------------------------------------------------------------------------------------------


def _own(tool: MessagesTool) -> bool:
    """Whether it is a function of the client; tools of Anthropic's servers are offered to every server."""
    return tool.type in (None, "custom")


def _named(asked: CountTokensRequest) -> str | None:
    """The tool that the choice names."""
    return asked.tool_choice.name if asked.tool_choice is not None and asked.tool_choice.type == "tool" else None


def _only(asked: CountTokensRequest) -> str | None:
    """The tool that the choice names and the request does not bring, which then has to be the server's."""
    name = _named(asked)
    return None if any(tool.name == name for tool in asked.tools or () if _own(tool)) else name


def _withholds(asked: CountTokensRequest) -> bool:
    """Whether the choice leaves no room for the server's tools."""
    none = asked.tool_choice is not None and asked.tool_choice.type == "none"
    return none or (_named(asked) is not None and _only(asked) is None)


def _tools(asked: CountTokensRequest, *, serves: bool) -> Tools | None:
    """The client's functions. Where the server has some besides, there need not be any for one to be called."""
    specs = [_spec(tool, f"tools[{index}]") for index, tool in enumerate(asked.tools or ()) if _own(tool)]
    choice = asked.tool_choice
    many = choice is None or not choice.disable_parallel_tool_use
    if choice is None or choice.type == "auto":
        return Tools(specs, many=many) if specs or (serves and not many) else None
    if choice.type == "none":
        return None
    if serves and _only(asked) is not None:
        return Tools([], forced=True, many=False)
    if choice.type == "tool":
        specs = [spec for spec in specs if spec.name == choice.name]
        many = False
    if not specs and not serves:
        raise InvalidValue("`tool_choice` asks for a call of a function that `tools` has not.", param="tool_choice")
    return Tools(specs, forced=True, many=many)


def _spec(tool: MessagesTool, where: str) -> ToolSpec:
    if tool.name is None or tool.input_schema is None:
        raise InvalidValue(f"A tool needs `name` and `input_schema`: `{where}`.", param=where)
    return ToolSpec(tool.name, tool.input_schema, tool.description or "")
