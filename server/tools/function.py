"""A plain function as a tool: what models are told is read off its type hints and its docstring."""

import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any

import docstring_parser
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, create_model
from pydantic.errors import PydanticUserError
from pydantic.json_schema import GenerateJsonSchema

from server.tools.plugin import Described, NotATool, told


class BadArguments(Exception):
    """The arguments fit the JSON Schema, and the function's types all the same refuse them."""


class _Untitled(GenerateJsonSchema):
    """Titles repeat the names and cost tokens."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def described(function: object) -> Described:
    """Raises NotATool: it is no function, or a parameter has no hint, or one that has no JSON Schema."""
    if not callable(function) or isinstance(function, type):
        raise NotATool(
            f"it is a {type(function).__name__ if not isinstance(function, type) else 'class'}, not a function"
        )
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise NotATool(f"{_name(function)} is a generator; a tool returns one value")
    parameters = _parameters(function)
    docs = docstring_parser.parse(inspect.getdoc(function) or "")
    model = _model(function, parameters, {each.arg_name: each.description or "" for each in docs.params})
    schema = model.model_json_schema(schema_generator=_Untitled)
    schema.pop("title", None)
    return Described(
        _description(docs), {"type": "object", "properties": {}} | schema, _caller(function, parameters, model)
    )


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__qualname__", type(function).__name__)


def _description(docs: docstring_parser.Docstring) -> str:
    returns = docs.returns.description if docs.returns is not None else None
    parts = [docs.short_description, docs.long_description, f"Returns: {returns}" if returns else None]
    return "\n\n".join(part.strip() for part in parts if part and part.strip())


def _parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    try:
        parameters = dict(inspect.signature(function).parameters)
    except (ValueError, TypeError) as error:
        raise NotATool(f"{_name(function)} has no signature that can be read: {error}") from None
    open_ended = [str(each) for each in parameters.values() if each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD)]
    if open_ended:
        raise NotATool(f"{_name(function)} takes {' and '.join(open_ended)}; name every parameter, with a type hint")
    bare = [name for name, each in parameters.items() if each.annotation is each.empty]
    if bare:
        raise NotATool(f"{_name(function)}: no type hint at {', '.join(bare)}")
    return parameters


def _model(
    function: Callable[..., Any], parameters: Mapping[str, inspect.Parameter], docs: Mapping[str, str]
) -> type[BaseModel]:
    """Fields are numbered, so that a parameter may have any name; each is known by its own as an alias."""
    # A callable object has its hints on its method.
    holder = function if inspect.isroutine(function) else type(function).__call__
    try:
        hints = typing.get_type_hints(inspect.unwrap(holder), include_extras=True)
    except Exception as error:  # evaluates what the author wrote as text
        raise NotATool(f"{_name(function)}: its type hints cannot be read: {told(error)}") from error
    fields: dict[str, Any] = {}
    for number, (name, parameter) in enumerate(parameters.items()):
        hint = hints.get(name, parameter.annotation)
        try:
            TypeAdapter(hint).json_schema()
        except (PydanticUserError, NameError, TypeError) as error:
            reason = str(error).splitlines()[0]
            raise NotATool(f"{_name(function)}: no JSON Schema for the type of {name}: {reason}") from None
        default = ... if parameter.default is parameter.empty else parameter.default
        known: dict[str, Any] = {"description": docs[name]} if docs.get(name) else {}
        fields[f"p{number}"] = (hint, Field(default, alias=name, **known))
    return create_model("Arguments", __config__=ConfigDict(extra="forbid"), **fields)


def _caller(
    function: Callable[..., Any], parameters: Mapping[str, inspect.Parameter], model: type[BaseModel]
) -> Callable[[Mapping[str, Any]], Any]:
    names = dict(zip(model.model_fields, parameters, strict=True))

    def call(arguments: Mapping[str, Any]) -> Any:
        try:
            given = model.model_validate(dict(arguments))
        except ValidationError as error:
            faults = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()]
            raise BadArguments("; ".join(faults)) from None
        # What was left out keeps the function's own default, the very object.
        values = {names[field]: getattr(given, field) for field in given.model_fields_set}
        first = [name for name, each in parameters.items() if each.kind is each.POSITIONAL_ONLY]
        positional = [values.pop(name, parameters[name].default) for name in first]
        return function(*positional, **values)

    return call
