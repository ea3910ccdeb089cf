"""All tools of a recipe: told to models, called with what models wrote, each kept within its limits."""

import asyncio
import difflib
import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from types import TracebackType
from typing import Any, Literal, Self

from config.tool import LangchainTool, McpTool, PythonTool, RetrieveTool, ToolSpec
from server.errors import ToolUnavailable
from server.tools.arguments import Fitting, Unfit
from server.tools.code_entry import CodeEntry
from server.tools.entry import Entry
from server.tools.mcp_entry import McpEntry
from server.tools.result import Result
from server.tools.retrieve_entry import RetrieveEntry, Search
from server.tools.tool import EntryState, Tool

log = logging.getLogger(__name__)

Outcome = Literal["ok", "error", "unfit", "unavailable", "cancelled"]
"""`error` is what the tool said or its end, `unfit` are arguments that its schema refuses or a name that no tool has,
`unavailable` a tool that does not start, `cancelled` a caller that has left."""

Measured = Callable[[str, Outcome, float], None]
"""A call that ended: the tool's name, how it did, and how many seconds it took."""

_NO_TOOL = "unknown"
"""Stands for a name that no tool has: models may think of any number of those."""


class Toolbox:
    """An async context manager: entering starts what is worth starting early, leaving ends all processes."""

    def __init__(self, specs: Mapping[str, ToolSpec], search: Search, measured: Measured | None = None) -> None:
        self._search = search
        self._measured = measured
        self._specs = dict(specs)
        self._entries = {name: self._made(name, spec) for name, spec in specs.items()}
        self._fitting: dict[str, Fitting] = {}
        self._leaving: set[asyncio.Task[None]] = set()

    def _made(self, name: str, spec: ToolSpec) -> Entry:
        match spec:
            case PythonTool() | LangchainTool():
                return CodeEntry(name, spec)
            case McpTool():
                return McpEntry(name, spec)
            case RetrieveTool():
                return RetrieveEntry(name, spec, self._search)

    async def __aenter__(self) -> Self:
        for entry in self._entries.values():
            await entry.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.gather(*(entry.close() for entry in self._entries.values()), *self._leaving)

    @property
    def entries(self) -> tuple[str, ...]:
        """The names under `tools` in the recipe."""
        return tuple(self._entries)

    async def tools(self, names: Iterable[str] | None = None) -> list[Tool]:
        """What these entries offer, all unless said, in their order. Starts what was not started.

        Raises ToolUnavailable where one does not start; KeyError where there is none of this name.
        """
        entries = [self._entries[name] for name in (self._entries if names is None else names)]
        found = await asyncio.gather(*(entry.tools() for entry in entries))
        return [tool for each in found for tool in self._sound(each)]

    def _sound(self, tools: list[Tool]) -> list[Tool]:
        """Those whose schema is one; where none is, ToolUnavailable says why."""
        sound, faults = [], []
        for tool in tools:
            known = self._fitting.get(tool.name)
            if known is not None and known.schema is tool.parameters:
                sound.append(tool)
                continue
            try:
                self._fitting[tool.name] = Fitting(tool.parameters)
                sound.append(tool)
            except ValueError as error:
                faults.append(f"the schema of {tool.name} cannot be used: {error}")
        for fault in faults:
            log.warning("tools.%s: %s", tools[0].entry, fault)
        if faults and not sound:
            raise ToolUnavailable(f"tools.{tools[0].entry}: {faults[0]}")
        return sound

    async def call(
        self, name: str, arguments: Mapping[str, Any] | str, *, among: Collection[str] | None = None
    ) -> Result:
        """Call a tool by its name with the arguments that a model wrote, as JSON or read already.

        `among` are the entries whose tools may be called, all unless said. Whatever goes wrong comes back as a Result
        for the model to read. Cancelling the call ends it in the tool too.
        """
        allowed = {name: entry for name, entry in self._entries.items() if among is None or name in among}
        began = time.perf_counter()
        entry = name.partition("__")[0]
        outcome: Outcome = "cancelled"
        told = entry if entry in allowed else _NO_TOOL
        try:
            tool = await self._find(name, allowed)
            told = tool.name
            result = await tool.run(_checked(self._fitting[tool.name], arguments))
            outcome = "error" if result.error else "ok"
        except (ToolUnavailable, Unfit) as error:
            outcome = "unavailable" if isinstance(error, ToolUnavailable) else "unfit"
            result = Result(str(error), error=True)
        finally:
            if self._measured is not None:
                self._measured(told, outcome, time.perf_counter() - began)
        return result

    async def _find(self, name: str, entries: Mapping[str, Entry]) -> Tool:
        """Raises Unfit where no entry has it, ToolUnavailable where its entry does not start."""
        entry = name.partition("__")[0]
        if entry in entries:
            tools = self._sound(await entries[entry].tools())
            if (found := next((tool for tool in tools if tool.name == name), None)) is not None:
                return found
        known = [tool for each in entries.values() for tool in each.state().tools]
        near = difflib.get_close_matches(name, known, n=1)
        guess = f" Did you mean {near[0]}?" if near else ""
        raise Unfit(f"There is no tool {name[:80]}.{guess}")

    def states(self) -> list[EntryState]:
        return [entry.state() for entry in self._entries.values()]

    async def become(self, specs: Mapping[str, ToolSpec]) -> None:
        """Have these tools from now on: equal ones keep their processes, others are begun, what is gone is ended.

        A call that is running in what is gone comes back as an error.
        """
        kept = {name for name, spec in specs.items() if self._specs.get(name) == spec}
        gone = [entry for name, entry in self._entries.items() if name not in kept]
        self._entries = {name: self._entries[name] if name in kept else self._made(name, specs[name]) for name in specs}
        self._specs = dict(specs)
        for name in set(specs) - kept:
            await self._entries[name].start()
        for entry in gone:
            task = asyncio.create_task(entry.close())
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)


def _checked(fitting: Fitting, arguments: Mapping[str, Any] | str) -> dict[str, Any]:
    try:
        return fitting.checked(arguments)
    except Unfit as error:
        raise Unfit(f"The arguments do not fit: {error}.") from None
