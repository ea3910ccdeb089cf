"""What a worker of a Python tool runs: limits first, then the tool's code, one call at a time."""

import asyncio
import inspect
import resource
import sys
import traceback
from collections import deque
from collections.abc import Callable
from typing import Any, Literal

import msgspec

from server.tools.plugin import Described, NotATool, defined, found, result, told
from server.tools.result import Result, cut
from server.worker import Item


class CodeConfig(msgspec.Struct, frozen=True):
    """What the process is told; `memory` and `output` in bytes."""

    kind: Literal["python", "langchain"]
    reference: str
    folder: str
    memory: int
    output: int
    arguments: dict[str, Any] = {}


class CodeReady(msgspec.Struct, frozen=True):
    """What models are told of the tool, and in which file and line it is."""

    description: str
    parameters: dict[str, Any]
    place: str


class CodeService:
    """A Service. Calls are JSON arguments, answered with a Result in JSON."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[int, bytes]] = deque()
        self._runner = asyncio.Runner()

    def open(self, config: bytes, progress: Callable[[str], None]) -> bytes:
        told_so = msgspec.json.decode(config, type=CodeConfig)
        limit_memory(told_so.memory)
        # Last, so that a file of the folder hides nothing that is installed.
        sys.path.append(told_so.folder)
        self._output = told_so.output
        thing = found(told_so.reference)
        try:
            self._tool = _described(thing, told_so)
        except NotATool as error:
            if error.placed:
                raise
            raise NotATool(str(error), defined(thing)) from error
        return msgspec.json.encode(CodeReady(self._tool.description, self._tool.parameters, defined(thing)))

    def submit(self, call: int, body: bytes) -> list[Item]:
        self._waiting.append((call, body))
        return []

    def step(self) -> list[Item]:
        call, body = self._waiting.popleft()
        outcome = cut(self._run(msgspec.json.decode(body)), self._output)
        return [Item(call, msgspec.json.encode(outcome), True)]

    def cancel(self, call: int) -> None:
        self._waiting = deque(each for each in self._waiting if each[0] != call)

    @property
    def busy(self) -> bool:
        return bool(self._waiting)

    def close(self) -> None:
        self._runner.close()

    def _run(self, arguments: dict[str, Any]) -> Result:
        try:
            value = self._tool.call(arguments)
            if inspect.isawaitable(value):
                value = self._runner.run(_awaited(value))
            return result(value)
        except (Exception, SystemExit) as error:  # noqa: BLE001  # foreign code, which may raise anything
            traceback.print_exc()
            return Result(told(error), error=True)


async def _awaited(value: Any) -> Any:
    return await value


def _described(thing: object, config: CodeConfig) -> Described:
    if config.kind == "langchain":
        from server.tools import langchain

        return langchain.described(thing, config.arguments)
    from server.tools import function

    return function.described(thing)


def limit_memory(most: int) -> None:
    """Heap and private mappings together; files that are mapped, as libraries are, do not count. No core dumps."""
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
