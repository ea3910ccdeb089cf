"""Answers a message with a call of a function: chooses it, fills its arguments, or asks back for what is missing."""

import re
from collections.abc import Generator, Mapping, Sequence
from datetime import date
from typing import Any, NamedTuple

import jsonschema_rs
import msgspec

from server.errors import InvalidValue
from server.models.engine import Message
from server.models.engines.reader.choosing import ENOUGH, fitting
from server.models.engines.reader.fields import Field, fields, leaves, spaced
from server.models.engines.reader.filling import Reads, filled
from server.models.question import follows, prompt
from server.models.tool_formats import ToolSpec

_ASKED = re.compile(r"^I can do that with `(?P<name>[^`]+)`, but ")
_NO_LONGER = 0.2
"""By how much another function has to fit better than the one that was asked back for, to be meant instead."""


class Call(NamedTuple):
    name: str
    arguments: str
    """JSON that is valid against the function's schema."""


class AskBack(NamedTuple):
    text: str


def check(tools: Sequence[ToolSpec]) -> None:
    """Raises InvalidValue, naming the parameter, where a function's schema is none."""
    for tool in tools:
        try:
            jsonschema_rs.validator_for(tool.parameters or {}, offline=True)
        except (jsonschema_rs.ValidationError, ValueError) as error:
            said = getattr(error, "message", str(error))
            raise InvalidValue(f"`{tool.name}` has no usable JSON Schema: {said}", param="tools") from error


def called(
    messages: Sequence[Message], question: str, tools: Sequence[ToolSpec], forced: bool, reads: Reads, today: date
) -> Generator[None, None, Call | AskBack | None]:
    """The call that the last message of the user asks for; None where no function fits and none is `forced`.

    `question` is that message such that it can be understood alone. What a follow-up or an answer to a question of ours
    does not say is looked for in what was said before it.
    """
    said = [prompt(each.text).question for each in messages if each.role == "user" and each.text.strip()]
    fit = yield from fitting(question, tools, reads)
    best = int(fit.argmax())
    open_ = _open(messages, tools)
    if open_ is not None and fit[best] < fit[open_] + _NO_LONGER:
        best = open_
    elif fit[best] < ENOUGH and not forced:
        return None
    else:
        open_ = None
    tool = tools[best]
    wanted = fields(tool.parameters or {})
    topic = f"{spaced(tool.name)} {tool.description}"
    told: dict[str, Any] = yield from filled(wanted, said[-1], topic, reads, today)
    if len(said) > 1 and (open_ is not None or follows(said[-1])):
        earlier: dict[str, Any] = yield from filled(wanted, said[-2], topic, reads, today)
        told = merged(earlier, told)
        if open_ is not None:
            told = _answering(wanted, told, said[-1])
    told = defaulted(wanted, told)
    missing = [each for each in wanted if lacking(each, told)]
    return _call(tool, wanted, told) if not missing else _asking(tool, missing)


def _open(messages: Sequence[Message], tools: Sequence[ToolSpec]) -> int | None:
    """The place of the function for which we asked back in the turn before."""
    spoken = [each for each in messages if each.role in ("user", "assistant")]
    if len(spoken) < 2 or spoken[-2].role != "assistant" or (match := _ASKED.match(spoken[-2].text)) is None:
        return None
    return next((place for place, tool in enumerate(tools) if tool.name == match["name"]), None)


def _answering(wanted: Sequence[Field], told: Mapping[str, Any], said: str) -> dict[str, Any]:
    """With the whole answer as the one text that was asked for, where it is short and nothing was found in it."""
    lacking_texts = [each for each in wanted if each.required and each.name not in told]
    bare = said.strip().rstrip(".!")
    if (
        len(lacking_texts) == 1
        and lacking_texts[0].kind == "string"
        and len(bare) <= 80
        and lacking_texts[0].accepts(bare)
    ):
        return {**told, lacking_texts[0].name: bare}
    return dict(told)


def merged(earlier: Mapping[str, Any], later: Mapping[str, Any]) -> dict[str, Any]:
    """What was said later goes before, in objects too."""
    both = dict(earlier)
    for name, value in later.items():
        before = both.get(name)
        both[name] = merged(before, value) if isinstance(before, dict) and isinstance(value, dict) else value
    return both


def defaulted(wanted: Sequence[Field], told: Mapping[str, Any]) -> dict[str, Any]:
    """With what the schema itself says of required fields of which nothing was said."""
    got = dict(told)
    for each in wanted:
        if each.kind == "object" and (each.required or each.name in got):
            got[each.name] = defaulted(each.inner, got.get(each.name) or {})
        elif each.required and each.name not in got:
            if "default" in each.schema:
                got[each.name] = each.schema["default"]
            elif each.nullable:
                got[each.name] = None
    return {each.name: got[each.name] for each in wanted if each.name in got}


def lacking(each: Field, told: Mapping[str, Any]) -> bool:
    """Whether a required field, or one of a required object, is not there."""
    if each.name not in told:
        return each.required
    value = told[each.name]
    return each.kind == "object" and isinstance(value, dict) and any(lacking(inner, value) for inner in each.inner)


def _call(tool: ToolSpec, wanted: Sequence[Field], told: dict[str, Any]) -> Call | AskBack:
    """Optional arguments that do not fit are left out; without a required one that fits nothing is called."""
    validator = jsonschema_rs.validator_for(tool.parameters or {}, offline=True)
    while (fault := next(validator.iter_errors(told), None)) is not None:
        at = str(fault.instance_path[0]) if fault.instance_path else ""
        unfit = next((each for each in wanted if each.name == at), None)
        if unfit is None or unfit.required:
            return _asking(tool, [unfit] if unfit is not None else [each for each in wanted if each.name not in told])
        del told[at]
    return Call(tool.name, msgspec.json.encode(told).decode())


def _asking(tool: ToolSpec, missing: Sequence[Field]) -> AskBack:
    asked = [inner.plain for each in missing for inner in (leaves(each.inner) if each.kind == "object" else [each])]
    listed = ", ".join(asked[:-1]) + " and " + asked[-1] if len(asked) > 1 else "".join(asked)
    return AskBack(f"I can do that with `{tool.name}`, but I need to know the {listed}. Please tell me.")
