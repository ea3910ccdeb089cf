"""Python code as something to call: loaded by reference, described for models, run. Only ever in a tool's worker."""

import difflib
import importlib
import importlib.metadata
import inspect
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from pydantic_core import to_json, to_jsonable_python

from server.tools.result import Result

GROUP = "hearth.tools"
"""The group of entry points by which an installed package offers functions."""


class NotATool(ValueError):
    """This code cannot be a tool; the text says why, and where if `placed`."""

    def __init__(self, why: str, place: str = "") -> None:
        super().__init__(why + place)
        self.placed = bool(place)


@dataclass(frozen=True)
class Described:
    """Code that can be called: `call` takes arguments that fit `parameters` and returns a value or an awaitable."""

    description: str
    parameters: dict[str, Any]
    call: Callable[[Mapping[str, Any]], Any]


def found(reference: str) -> object:
    """What `module:name` or an entry point of that name stands for. Raises NotATool; importing runs foreign code."""
    if ":" not in reference:
        return _entry_point(reference)
    module_name, _, path = reference.partition(":")
    module = _imported(module_name)
    here: object = module
    for name in path.split("."):
        if not hasattr(here, name):
            near = difflib.get_close_matches(name, [each for each in vars(module) if not each.startswith("_")], n=1)
            guess = f', did you mean "{near[0]}"?' if near else ""
            raise NotATool(f"{module.__file__ or module_name} has no {name}{guess}")
        here = getattr(here, name)
    return here


def _entry_point(name: str) -> object:
    points = importlib.metadata.entry_points(group=GROUP)
    named = [point for point in points if point.name == name]
    if not named:
        there = ", ".join(sorted(point.name for point in points)) or "none"
        raise NotATool(f"no installed package has an entry point {name} in the group {GROUP}; there are: {there}")
    if len({point.value for point in named}) > 1:
        whose = " and ".join(point.value for point in named)
        raise NotATool(f"the entry point {name} of the group {GROUP} is ambiguous: {whose}; write module:function")
    return found(named[0].value)


def _imported(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise NotATool(f"there is no module {error.name}, neither installed nor in {sys.path[-1]}") from None
        raise _failed(f"importing {name}", error) from error
    except (Exception, SystemExit) as error:  # foreign code, which may raise anything
        raise _failed(f"importing {name}", error) from error


def _failed(what: str, error: BaseException) -> NotATool:
    return NotATool(f"{what} failed: {told(error)}", place(error))


def told(error: BaseException) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def place(error: BaseException) -> str:
    """Where in the tool's own code it happened, as " (file:line)"; empty where that cannot be said."""
    if isinstance(error, SyntaxError) and error.filename:
        return f" ({error.filename}:{error.lineno})"
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if not frame.filename.startswith("<") and frame.filename not in _OWN]
    own = [frame for frame in ours if "importlib" not in frame.filename]
    return f" ({own[-1].filename}:{own[-1].lineno})" if own else ""


def defined(thing: object) -> str:
    """Where the code of `thing` begins, as `place` has it."""
    code: Any = thing if inspect.isroutine(thing) or isinstance(thing, type) else type(thing)
    try:
        return f" ({inspect.getsourcefile(code)}:{inspect.getsourcelines(code)[1]})"
    except (OSError, TypeError):  # made at run time, or in C
        return ""


_OWN = {__file__}


def result(value: object) -> Result:
    """What a tool returned, as text and, where it is no text, as JSON values too."""
    if isinstance(value, str):
        return Result(str(value))
    try:
        plain = to_jsonable_python(value, inf_nan_mode="strings", bytes_mode="utf8")
        return Result(to_json(plain).decode(), structured=plain)
    except (ValueError, TypeError) as error:
        return Result(f"It returned a {type(value).__name__}, which has no JSON form: {error}", error=True)
