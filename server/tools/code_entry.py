"""Tools that are Python code, the gateway's side: a few processes with one call each at a time, ended when it hangs."""

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any

import msgspec

from config.tool import CodeTool, LangchainTool, thawed
from server.errors import ToolUnavailable
from server.tools.code_service import CodeConfig, CodeReady
from server.tools.result import Result
from server.tools.tool import EntryState, State, Tool
from server.worker import Worker, WorkerLimits, WorkerLost, WorkerUnavailable

START_SECONDS = 60.0
"""For importing what a tool needs."""
_SPARE_SECONDS = 60.0
"""How long a process stays that only one busy moment needed."""
_MARGIN_SECONDS = 30.0
"""Past the timeout of a call, that the supervisor waits before it ends a process by itself."""
_RETRY_SECONDS = 10.0
"""Until a tool that could not be loaded is tried again: what it lacked may be installed by then."""

_BETTER: tuple[State, ...] = ("ready", "starting", "backoff")
"""Of several processes the best tells how the tool is."""

_SERVICE = "server.tools.code_service:CodeService"


class CodeEntry:
    """An Entry of kind python or langchain."""

    def __init__(self, name: str, spec: CodeTool) -> None:
        self.name = name
        self.spec = spec
        self._timeout = spec.timeout.total_seconds()
        self._slots = asyncio.Semaphore(spec.parallel)
        self._free: list[Worker] = []
        self._all: set[Worker] = set()
        self._ending: set[asyncio.Task[None]] = set()
        self._ready: CodeReady | None = None
        self._given_up_at = -_RETRY_SECONDS
        self._closed = False

    async def start(self) -> None:
        if not self._all and not self._closed:
            self._free.append(await self._new())

    async def tools(self) -> list[Tool]:
        if self._ready is None:
            await self.start()
            self._ready = await self._loaded()
        description = self.spec.description or self._ready.description
        if not description:
            lacking = "it says nowhere what it does; give it a docstring, or `description` in the recipe"
            raise ToolUnavailable(f"tools.{self.name} cannot be told to a model: {lacking}{self._ready.place}")
        return [Tool(self.name, description, self._ready.parameters, self.name, self.spec.kind, self.run)]

    def state(self) -> EntryState:
        states = [worker.state for worker in self._all]
        first = next(iter(self._all), None)
        better: list[State] = [state for state in _BETTER if state in states]
        best = better[0] if better else "stopped" if first is None else first.state
        reason = first.error if first is not None and best in ("failed", "backoff") else None
        return EntryState(self.name, self.spec.kind, best, reason, (self.name,))

    async def close(self) -> None:
        self._closed = True
        for worker in list(self._all):
            self._discard(worker, "the tool is being closed")
        await asyncio.gather(*self._ending, return_exceptions=True)

    async def run(self, arguments: Mapping[str, Any], /) -> Result:
        """One call. Cancelling it ends the process that it runs in: nothing else is sure to end a tool."""
        try:
            async with asyncio.timeout(self._timeout):
                await self._slots.acquire()
        except TimeoutError:
            return Result(f"{self.name} was busy with other calls for {self._timeout:g} s.", True)
        worker: Worker | None = None
        try:
            worker = self._free.pop() if self._free else await self._new()
            outcome, sound = await self._called(worker, msgspec.json.encode(arguments))
        except asyncio.CancelledError:
            self._discard(worker, "its call was cancelled")
            raise
        finally:
            self._slots.release()
        if sound and not self._closed:
            self._put_back(worker)
        else:
            self._discard(worker, outcome.text)
            await self.start()  # so that the next call finds a process
        return outcome

    async def _called(self, worker: Worker, body: bytes) -> tuple[Result, bool]:
        """What came of it, and whether the process may serve another call."""
        try:
            await worker.wait_ready(START_SECONDS)
            async with asyncio.timeout(self._timeout):
                async for bodies in worker.call(body):
                    return msgspec.json.decode(bodies[-1], type=Result), True
            return Result(f"{self.name} gave no answer.", True), False
        except TimeoutError:
            return Result(f"{self.name} took longer than {self._timeout:g} s and was ended.", True), False
        except WorkerLost as lost:
            return Result(f"{self.name} ended without an answer: {_said(lost)}.", True), False
        except WorkerUnavailable as error:
            return Result(f"{self.name} cannot be started: {_said(error)}.", True), False

    async def _loaded(self) -> CodeReady:
        worker = next(iter(self._all), None)
        if worker is None:
            raise ToolUnavailable(f"tools.{self.name} is closed")
        if worker.state == "failed" and asyncio.get_running_loop().time() - self._given_up_at > _RETRY_SECONDS:
            await worker.start()
        try:
            await worker.wait_ready(START_SECONDS)
        except TimeoutError:
            raise ToolUnavailable(f"tools.{self.name} is not loaded after {START_SECONDS:g} s") from None
        except WorkerUnavailable as error:
            self._given_up_at = asyncio.get_running_loop().time()
            raise ToolUnavailable(f"tools.{self.name} cannot be loaded: {error}") from None
        assert worker.ready_body is not None, "a worker that is ready has said so"
        return msgspec.json.decode(worker.ready_body, type=CodeReady)

    async def _new(self) -> Worker:
        spec = self.spec
        reference = spec.langchain if isinstance(spec, LangchainTool) else spec.python
        arguments = thawed(spec.arguments) if isinstance(spec, LangchainTool) else {}
        config = CodeConfig(spec.kind, reference, str(spec.folder), spec.memory, spec.output, arguments)
        net = self._timeout + _MARGIN_SECONDS
        limits = WorkerLimits(open=START_SECONDS, step=net, silence=max(net, START_SECONDS))
        environment = {name: value.get_secret_value() for name, value in spec.env.items()}
        worker = Worker(f"tools.{self.name}", _SERVICE, msgspec.json.encode(config), limits, environment)
        self._all.add(worker)
        await worker.start()
        return worker

    def _put_back(self, worker: Worker) -> None:
        self._free.append(worker)
        if len(self._free) > 1:
            asyncio.get_running_loop().call_later(_SPARE_SECONDS, self._spare)

    def _spare(self) -> None:
        if len(self._free) > 1:
            self._discard(self._free.pop(0), "it was spare")

    def _discard(self, worker: Worker | None, why: str) -> None:
        """End a process at once, however it is; the rest of its ending goes on beside."""
        if worker is None:
            return
        self._all.discard(worker)
        if worker in self._free:
            self._free.remove(worker)
        worker.kill(why)
        task = asyncio.create_task(_stopped(worker))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)


def _said(error: Exception) -> str:
    return str(error).rstrip(".")


async def _stopped(worker: Worker) -> None:
    with contextlib.suppress(OSError):
        await worker.stop(grace=1.0)
