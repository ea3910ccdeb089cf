"""A LangChain tool by its own interface: name, description, schema, invoke. Imports nothing of LangChain itself."""

from collections.abc import Mapping
from typing import Any

from server.tools.plugin import Described, NotATool, place, told


def described(thing: object, arguments: Mapping[str, Any]) -> Described:
    """A class is made with `arguments` by keyword. Raises NotATool where what comes of it has not the interface."""
    tool = _made(thing, arguments) if isinstance(thing, type) else thing
    if tool is thing and arguments:
        raise NotATool(f"arguments are for a class, and this is a {type(thing).__name__} already made")
    lacking = [name for name in ("name", "description") if not isinstance(getattr(tool, name, None), str)]
    lacking += [] if any(callable(getattr(tool, name, None)) for name in ("ainvoke", "invoke")) else ["invoke"]
    if lacking:
        raise NotATool(f"{type(tool).__name__} has not the interface of a LangChain tool: no {', '.join(lacking)}")
    invoke = getattr(tool, "ainvoke", None) or tool.invoke  # type: ignore[attr-defined]  # one of both is there
    return Described(tool.description, _schema(tool), lambda given: invoke(dict(given)))  # type: ignore[attr-defined]


def _made(kind: type, arguments: Mapping[str, Any]) -> object:
    try:
        return kind(**arguments)
    except Exception as error:  # foreign code, which may raise anything
        why = f"{kind.__name__} cannot be made with the arguments given: {told(error)}"
        raise NotATool(why, place(error)) from error


def _schema(tool: object) -> dict[str, Any]:
    """The schema that models are shown: without what LangChain injects, where the tool tells that apart."""
    for name in ("tool_call_schema", "args_schema"):
        try:
            declared = getattr(tool, name, None)
        except Exception as error:  # a property that reads the author's signature
            raise NotATool(f"{type(tool).__name__}.{name} cannot be derived: {told(error)}", place(error)) from error
        if declared is not None:
            return _plain(tool, declared)
    raise NotATool(f"{type(tool).__name__} has not the interface of a LangChain tool: no args_schema")


def _plain(tool: object, declared: Any) -> dict[str, Any]:
    try:
        if isinstance(declared, Mapping):
            schema = dict(declared)
        else:  # a model of pydantic, of version 2 or 1
            schema = (getattr(declared, "model_json_schema", None) or declared.schema)()
    except Exception as error:  # foreign code, which may raise anything
        raise NotATool(f"{type(tool).__name__}: its schema cannot be derived: {told(error)}") from error
    bare = {key: value for key, value in schema.items() if key not in ("title", "description")}
    if bare.get("type", "object") != "object":
        raise NotATool(f"{type(tool).__name__}: its schema is one of {bare['type']}, not of object")
    return {"type": "object", "properties": {}} | bare
