"""The tools of an MCP server, the gateway's side: started at the first use, started again when its session ends."""

import asyncio
import hashlib
import logging
import os
import re
import shutil
from collections.abc import Collection, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import msgspec

from config.tool import McpTool, McpUrl
from server.errors import ToolUnavailable
from server.tools.mcp_config import BEGUN, McpAsked, McpConfig, McpOffered
from server.tools.result import Result
from server.tools.tool import EntryState, Tool
from server.worker import Worker, WorkerLimits, WorkerLost, WorkerUnavailable, inherited

log = logging.getLogger(__name__)

START_SECONDS = 60.0
"""For starting the server and its first list of tools; package runners fetch what they run."""
_RETRY_SECONDS = 10.0
"""Until one that was given up is tried again, at its next use."""
_MOST_SESSIONS = 3
"""That one call waits for, where sessions end before the server could be asked."""
_LONGEST_NAME = 64

_SERVICE = "server.tools.mcp_service:McpService"
_offered = msgspec.json.Decoder(list[McpOffered])
_result = msgspec.json.Decoder(Result)


class McpEntry:
    """An Entry of kind mcp."""

    def __init__(self, name: str, spec: McpTool) -> None:
        self.name = name
        self.spec = spec
        self._timeout = spec.timeout.total_seconds()
        limits = WorkerLimits(open=START_SECONDS)
        self._worker = Worker(f"tools.{name}", _SERVICE, msgspec.json.encode(_config(spec)), limits)
        self._tools: list[Tool] | None = None
        self._following: asyncio.Task[None] | None = None
        self._given_up_at = -_RETRY_SECONDS
        self._lacking: tuple[str, ...] = ()
        self._missing: str | None = None
        self._closed = False

    async def start(self) -> None:
        return  # at the first use

    async def tools(self) -> list[Tool]:
        await self._begin()
        if self._tools is None:
            try:
                await self._worker.wait_ready(START_SECONDS)
            except TimeoutError:
                raise ToolUnavailable(f"tools.{self.name} is not ready after {START_SECONDS:g} s") from None
            except WorkerUnavailable as error:
                self._gave_up()
                raise ToolUnavailable(f"tools.{self.name} cannot be used: {error}") from None
            self._take(self._worker.ready_body or b"[]")
        return self._tools or []

    def state(self) -> EntryState:
        reason = self._worker.error if self._worker.state in ("failed", "backoff") else None
        if reason is None and self._lacking:
            reason = f"allow names what the server does not have: {', '.join(self._lacking)}"
        if self._missing is not None and self._worker.state == "stopped":
            return EntryState(self.name, "mcp", "failed", self._missing)
        names = tuple(tool.name for tool in self._tools or ())
        return EntryState(self.name, "mcp", self._worker.state, reason, names)

    async def close(self) -> None:
        self._closed = True
        if self._following is not None:
            self._following.cancel()
            with suppress(asyncio.CancelledError):
                await self._following
        await self._worker.stop(grace=10.0)

    async def run(self, tool: str, arguments: Mapping[str, Any], /) -> Result:
        """One call of the server's own `tool`. Cancelling it, and the end of its time, are told to the server."""
        await self._begin()
        asked = msgspec.json.encode(McpAsked(tool, dict(arguments)))
        try:
            for _ in range(_MOST_SESSIONS):
                await self._worker.wait_ready(START_SECONDS)
                if (body := await self._answer(asked)) is not None:
                    return _result.decode(body)
            return Result(f"{self.name} ended {_MOST_SESSIONS} times before it could be asked.", error=True)
        except TimeoutError:
            return Result(f"{self.name} took longer than {self._timeout:g} s and was cancelled.", error=True)
        except WorkerLost as lost:
            return Result(f"The connection to {self.name} ended without an answer: {_said(lost)}.", error=True)
        except WorkerUnavailable as error:
            self._gave_up()
            return Result(f"{self.name} cannot be used: {_said(error)}.", error=True)

    async def _answer(self, asked: bytes) -> bytes | None:
        """From the session there is; None where that ended before the server was asked."""
        begun = False
        try:
            async with asyncio.timeout(self._timeout):
                with self._worker.call(asked) as call:
                    async for bodies in call:
                        begun = True
                        if bodies[-1] != BEGUN:
                            return bodies[-1]
        except (WorkerLost, WorkerUnavailable):
            if begun or self._worker.state == "failed":
                raise
        return None

    async def _begin(self) -> None:
        if self._closed:
            raise ToolUnavailable(f"tools.{self.name} is closed")
        self._missing = missing(self.spec)
        if self._missing is not None and self._worker.state == "stopped":
            raise ToolUnavailable(f"tools.{self.name} cannot be used: {self._missing}")
        if self._worker.state == "failed" and _now() - self._given_up_at < _RETRY_SECONDS:
            return
        await self._worker.start()
        if self._following is None or self._following.done():
            self._following = asyncio.create_task(self._follow())

    def _gave_up(self) -> None:
        """Keeps the moment of the first of several calls that found it so."""
        if _now() - self._given_up_at >= _RETRY_SECONDS:
            self._given_up_at = _now()

    async def _follow(self) -> None:
        """Take every list of tools the server has, for as long as it is started again."""
        while True:
            try:
                await self._worker.wait_ready(START_SECONDS)
                with self._worker.call(msgspec.json.encode(McpAsked())) as call:
                    async for bodies in call:
                        self._take(bodies[-1])
            except (WorkerLost, TimeoutError):
                continue
            except WorkerUnavailable:
                return

    def _take(self, body: bytes) -> None:
        offered = _offered.decode(body)
        allowed = [each for each in offered if self.spec.allow is None or each.name in self.spec.allow]
        names = {each.name for each in offered}
        lacking = tuple(name for name in self.spec.allow or () if name not in names)
        if lacking and lacking != self._lacking:
            log.warning("tools.%s: allow names what the server does not have: %s", self.name, ", ".join(lacking))
        self._lacking = lacking
        before = {tool.name: tool for tool in self._tools or ()}
        made: dict[str, Tool] = {}
        for each in allowed:
            tool = self._tool(each, made)
            made[tool.name] = tool
        # An equal tool stays the same object: what was derived of it stays with it.
        self._tools = [before[tool.name] if _same(before.get(tool.name), tool) else tool for tool in made.values()]

    def _tool(self, offered: McpOffered, taken: Collection[str]) -> Tool:
        parameters = {"type": "object", "properties": {}} | offered.parameters
        run = partial(self.run, offered.name)
        return Tool(called(self.name, offered.name, taken), offered.description, parameters, self.name, "mcp", run)


def _said(error: Exception) -> str:
    return str(error).rstrip(".")


def _now() -> float:
    return asyncio.get_running_loop().time()


def missing(spec: McpTool) -> str | None:
    """Why a server cannot be started, as far as its program tells; None where it can, or where it runs elsewhere."""
    if isinstance(spec.mcp, McpUrl):
        return None
    program = spec.mcp[0]
    if "/" in program:
        path = spec.folder / program
        return None if path.is_file() else f"there is no program {path}"
    there = shutil.which(program, path=_environment(spec).get("PATH"))
    return None if there is not None else f"the program {program} is not installed"


def called(entry: str, tool: str, taken: Collection[str] = ()) -> str:
    """What models call a tool of an MCP server: both names, in the characters and the length that names may have."""
    whole = f"{entry}__{re.sub(r'[^A-Za-z0-9_-]', '_', tool)}"
    if len(whole) <= _LONGEST_NAME and whole not in taken:
        return whole
    mark = hashlib.sha256(tool.encode()).hexdigest()[:8]
    return f"{whole[: _LONGEST_NAME - 9]}_{mark}"  # the entry's name stays whole: LONGEST_SERVER


def _same(known: Tool | None, tool: Tool) -> bool:
    return known is not None and (known.description, known.parameters) == (tool.description, tool.parameters)


def _config(spec: McpTool) -> McpConfig:
    if isinstance(spec.mcp, McpUrl):
        headers = {name: value.get_secret_value() for name, value in spec.mcp.headers.items()}
        return McpConfig(output=spec.output, url=spec.mcp.url, headers=headers)
    return McpConfig(
        output=spec.output,
        command=list(spec.mcp),
        folder=str(spec.folder),
        environment=_environment(spec),
        memory=spec.memory or 0,
    )


def _environment(spec: McpTool) -> dict[str, str]:
    """Of Python's own variables none: the server is a program of its own, mostly in an environment of its own."""
    ours = {name: value for name, value in inherited(os.environ).items() if not name.startswith("PYTHON")}
    return ours | {name: value.get_secret_value() for name, value in spec.env.items()}
