"""Renders a conversation with a model's own chat template.

A chat template is a Jinja program that ships with the weights (`chat_template` of tokenizer_config.json, or a file of
its own). What it may use beyond Jinja is a convention of the format, written down in the transformers documentation
("Writing a chat template"): `raise_exception`, `strftime_now`, a `tojson` that leaves HTML alone, `break` and
`continue`, and the tag `generation`, which only marks what a model trains on. It comes from strangers with the
weights, so it runs in Jinja's sandbox.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, NoReturn

import msgspec
from jinja2 import TemplateError, TemplateSyntaxError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from server.errors import InvalidValue
from server.models.engine import Message, ToolCall

_MARK = "b3e91d"
LONGEST_PROMPT = 64 * 1024 * 1024
"""In characters, far beyond any context: a template that writes more has run away."""

# What a template's own expressions raise over messages it was not written for.
_FAULTS = (TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError)


class ChatTemplate:
    """A compiled template; `special` holds the token texts it may name (`bos_token`, `eos_token` ...).

    Raises ValueError where `source` does not compile. Rendering changes nothing here: one may serve many requests.
    """

    def __init__(self, source: str, special: Mapping[str, str]) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
        )
        environment.filters["tojson"] = _tojson
        environment.globals["raise_exception"] = _refuse
        environment.globals["strftime_now"] = _strftime_now
        try:
            self._template = environment.from_string(source)
        except TemplateSyntaxError as error:
            raise ValueError(f"the chat template does not compile: line {error.lineno}: {error.message}") from error
        except RecursionError as error:
            raise ValueError("the chat template does not compile: it is nested too deeply") from error
        self._special = dict(special)

    def render(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] | None = None, **options: Any
    ) -> str:
        """The prompt, up to where the assistant's answer begins.

        `tools` are as the OpenAI request has them ({"type": "function", "function": {...}}); `options` are variables
        for the template (`enable_thinking`, `add_generation_prompt` ...). Raises InvalidValue where the template
        refuses the messages, in the template's own words, or cannot render them.
        """
        return self._rendered([_turn(message, self._form) for message in messages], tools, options)

    @cached_property
    def _form(self) -> "_Form":
        """The first form in which it shows a text and a call; of one that shows no call, that shows a text."""
        texts = [parts for parts in (False, True) if self._shows(_Form(parts=parts), _HELLO)] or [False]
        for form in (_Form(texts[0], objects, none) for none in (False, True) for objects in (True, False)):
            if self._shows(form, *_CALLED):
                return form
        return _Form(texts[0])

    def _shows(self, form: "_Form", *messages: Message) -> bool:
        try:
            return _MARK in self._rendered([_turn(message, form) for message in messages], None, {})
        except InvalidValue:
            return False

    def _rendered(
        self, turns: list[dict[str, Any]], tools: Sequence[Mapping[str, Any]] | None, options: Mapping[str, Any]
    ) -> str:
        variables = {
            **self._special,
            "documents": None,
            "add_generation_prompt": True,
            **options,
            "messages": turns,
            "tools": list(tools) if tools else None,
        }
        written, pieces = 0, []
        try:
            for piece in self._template.generate(variables):
                written += len(piece)
                if written > LONGEST_PROMPT:
                    raise InvalidValue("The model's chat template writes without end.", param="messages")
                pieces.append(piece)
        except _Refused as error:
            raise InvalidValue(str(error), param="messages") from error
        except _FAULTS as error:
            reason = str(error) or type(error).__name__
            raise InvalidValue(
                f"The model's chat template cannot render these messages: {reason}", param="messages"
            ) from error
        return "".join(pieces)


@dataclass(frozen=True)
class _Form:
    """How messages are given to a template.

    `parts`: a content is a list of parts, for a template written for pictures: it would go through the letters of a
    text, find no part among them, and write a prompt without it. `objects`: the arguments of calls are objects, else
    texts. `none`: the content of a turn that only calls is none, as some ask before they look for calls.
    """

    parts: bool = False
    objects: bool = True
    none: bool = False


_HELLO = Message("user", _MARK)
_CALLED = (
    Message("user", "a"),
    Message("assistant", "", tool_calls=[ToolCall("abcdefgh1", "f", f'{{"x": "{_MARK}"}}')]),
    Message("tool", "b", name="f", tool_call_id="abcdefgh1"),
)


def _turn(message: Message, form: _Form) -> dict[str, Any]:
    """What templates read. Absent fields are left out: they ask `is defined` and `in message` as often as for none."""
    content: object = [{"type": "text", "text": message.text}] if form.parts else message.text
    if form.none and message.tool_calls and not message.text:
        content = None
    turn: dict[str, Any] = {"role": message.role, "content": content}
    if message.name is not None:
        turn["name"] = message.name
    if message.tool_calls:
        turn["tool_calls"] = [_call(call, objects=form.objects) for call in message.tool_calls]
    if message.tool_call_id is not None:
        turn["tool_call_id"] = message.tool_call_id
    if message.reasoning is not None:
        turn["reasoning_content"] = message.reasoning
    return turn


def _call(call: ToolCall, *, objects: bool) -> dict[str, Any]:
    """Most templates want the arguments as an object, to write or walk it; text that is no object stays text."""
    try:
        parsed = msgspec.json.decode(call.arguments)
    except msgspec.DecodeError:
        parsed = None
    arguments = parsed if objects and isinstance(parsed, dict) else call.arguments
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}


class _Refused(TemplateError):
    """The template called `raise_exception`."""


class _Generation(Extension):
    """`{% generation %} ... {% endgeneration %}`: its body, in a scope of its own."""

    tags = {"generation"}  # noqa: RUF012  (Jinja's own declaration)

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


def _refuse(message: object = "") -> NoReturn:
    raise _Refused(str(message) or "The model's chat template refuses these messages.")


def _strftime_now(pattern: str) -> str:
    return datetime.now().strftime(pattern)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # The standard library's spacing (", " and ": ") is what models were trained on; msgspec has only the dense one.
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
