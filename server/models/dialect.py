"""How one model is spoken to: its chat template, its way to write tool calls, its reasoning, and grammars over them.

The same for every engine; knows the texts of a model's Card and neither requests' JSON nor engines.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import msgspec

from server.errors import InvalidValue, RequestError
from server.models.engine import Card, Grammar, Message
from server.models.placing import Placing
from server.models.reasoning import CLOSING, ReasoningSplitter, opens_reasoning
from server.models.template import ChatTemplate
from server.models.tool_formats import ToolSpec, format_of, instructions
from server.models.tool_formats.lark import json_schema


@dataclass(frozen=True)
class Tools:
    """The functions a turn may call. `forced` says that it has to call one, `many` that it may call several."""

    specs: Sequence[ToolSpec]
    forced: bool = False
    many: bool = True


class Dialect:
    """Made from a model's Card. Raises ValueError where its template does not compile."""

    def __init__(self, card: Card) -> None:
        self._control = card.control
        self._template = None if card.template is None else ChatTemplate(card.template, card.special)
        source = card.template or ""
        self._shows_tools = "tools" in source
        self.tools = format_of(source)

    def render(
        self, messages: Sequence[Message], tools: Tools | None = None, options: Mapping[str, Any] | None = None
    ) -> str:
        """The prompt. `options` are variables for the template, such as enable_thinking.

        Raises RequestError where the model has no template, InvalidValue where it refuses the messages.
        """
        if self._template is None:
            raise RequestError("This model has no chat template, so it holds no conversations.", param="model")
        shown = None
        if tools is not None and self._shows_tools:
            shown = [_shown(spec) for spec in tools.specs]
        elif tools is not None:
            messages = with_system(messages, instructions(tools.specs))
        return self._template.render(self._placed(messages), shown, **(options or {}))

    @cached_property
    def _placed(self) -> Placing:
        assert self._template is not None, "asked for while rendering"
        return Placing.of(self._template.render)

    def inert(self, text: str) -> str:
        """`text` of a document or a tool, in which nothing is a control token, a call or the end of what it stands in.

        A space without width parts what would be one: the reader sees the same letters.
        """
        return self._marks.sub(lambda mark: f"{mark[0][0]}\N{ZERO WIDTH SPACE}{mark[0][1:]}", text)

    @cached_property
    def _marks(self) -> re.Pattern[str]:
        marks = {*self._control, *self.tools.markers, *_TAGS}
        longest_first = sorted((mark for mark in marks if len(mark) > 1), key=len, reverse=True)
        return re.compile("|".join(map(re.escape, longest_first)))

    def begun(self, prompt: str, text: str) -> str:
        """`prompt` with the beginning of its answer, which is past all reasoning."""
        over = f"\n{CLOSING}\n\n" if opens_reasoning(prompt) else ""
        return f"{prompt}{over}{text}"

    def splitter(self, prompt: str) -> ReasoningSplitter:
        """What tells reasoning from content in the answer to `prompt`."""
        return ReasoningSplitter(open=opens_reasoning(prompt))

    def grammar(self, prompt: str, tools: Tools | None, wanted: Grammar | None) -> Grammar | None:
        """What the answer to `prompt` has to conform to: a call where one is forced, else what was `wanted`.

        Where calls are possible and not forced, the answer may be a call instead of what was wanted. A prompt that
        ends inside reasoning is free up to the end of it.
        """
        if tools is not None and tools.forced:
            calls = self.tools.grammar(tools.specs, many=tools.many, special=self._control)
            return self._after_reasoning(prompt, Grammar("lark", calls, "tool_choice"))
        if wanted is None:
            return None
        if tools is not None and wanted.kind == "json_schema":
            calls = self.tools.grammar(tools.specs, many=tools.many, special=self._control)
            either = f"start: answer | calls\nanswer: {_json(wanted)}\n{calls.replace('start:', 'calls:', 1)}"
            wanted = Grammar("lark", either, wanted.param)
        return self._after_reasoning(prompt, wanted)

    def _after_reasoning(self, prompt: str, grammar: Grammar) -> Grammar:
        if not opens_reasoning(prompt):
            return grammar
        if CLOSING in self._control:
            before = f'thought <[{self._control[CLOSING]}]> "\\n\\n"\nthought: /(?s:.*)/\n'
        else:
            before = f'thought "\\n\\n"\nthought[suffix="{CLOSING}"]: /(?s:.*)/\n'
        match grammar.kind:
            case "json_schema":
                rest = f"answer: {_json(grammar)}\n"
            case "regex":
                rest = f"answer: /{grammar.text.replace('/', chr(92) + '/')}/\n"
            case _:
                if "\nstart:" not in f"\n{grammar.text}":
                    raise InvalidValue("The grammar has no rule `start`.", param=grammar.param)
                rest = f"\n{grammar.text}".replace("\nstart:", "\nanswer:", 1).lstrip("\n")
        head, _, tail = before.partition("\n")
        return Grammar("lark", f"start: {head} answer\n{tail}{rest}", grammar.param)


_TAGS = (
    *("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<tools>", "</tools>"),
    *("<think>", "</think>", "[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[TOOL_CALLS]", "[AVAILABLE_TOOLS]"),
    *("<|python_tag|>", "<|im_start|>", "<|im_end|>"),
)
"""What chat templates put around turns, calls and results, where the vocabulary has no token of its own for it."""


def opened(messages: Sequence[Message], text: str) -> list[Message]:
    """The conversation with `text` at the beginning of its system message, or in one of its own."""
    if messages and messages[0].role == "system":
        first = msgspec.structs.replace(messages[0], text=f"{text}\n\n{messages[0].text}")
        return [first, *messages[1:]]
    return [Message("system", text), *messages]


def with_system(messages: Sequence[Message], text: str) -> list[Message]:
    """The conversation with `text` at the end of its system message, or in one of its own."""
    if messages and messages[0].role == "system":
        first = msgspec.structs.replace(messages[0], text=f"{messages[0].text}\n\n{text}")
        return [first, *messages[1:]]
    return [Message("system", text), *messages]


def _shown(spec: ToolSpec) -> dict[str, Any]:
    """A tool as chat templates expect it, OpenAI's own form."""
    function = {"name": spec.name, "description": spec.description, "parameters": spec.parameters or _NOTHING}
    return {"type": "function", "function": function}


_NOTHING: dict[str, Any] = {"type": "object", "properties": {}}


def _json(grammar: Grammar) -> str:
    """A JSON Schema as an expression of Lark. Raises InvalidValue where it is no JSON object."""
    try:
        return json_schema(msgspec.json.decode(grammar.text, type=dict[str, Any]))
    except msgspec.DecodeError as error:
        raise InvalidValue(f"The JSON Schema cannot be used: {error}", param=grammar.param) from error
