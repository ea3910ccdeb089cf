"""The gateway's side of a worker: starts the process, carries calls, notices its end and starts it again."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, cast

from server.worker import restart
from server.worker.call import Call, WorkerLost
from server.worker.frames import (
    Broken,
    Cancel,
    Close,
    FrameReader,
    FromWorker,
    Items,
    Logged,
    Ping,
    Pong,
    Progress,
    Ready,
    Submit,
    ToWorker,
    encode,
    from_worker,
)

State = Literal["stopped", "starting", "ready", "backoff", "failed", "stopping"]

_KEPT_LINES = 20
_LONGEST_LINE = 4096
"""Bytes kept of what is printed without an end; of a line, its own end."""
_INHERITED = ("PATH", "HOME", "LANG", "TMPDIR", "LD_LIBRARY_PATH", "TZ", "VIRTUAL_ENV", "SYSTEMROOT")
_INHERITED_PREFIXES = ("LC_", "CUDA", "NVIDIA", "OMP_", "TORCH_", "PYTHON")


class WorkerUnavailable(Exception):
    """The worker is not ready for calls."""


class WorkerFailed(WorkerUnavailable):
    """The worker could not be made ready and is not tried any more; the text says why."""


@dataclass(frozen=True)
class WorkerLimits:
    """All in seconds. `step` bounds one method of the service, `silence` the time without any sign of life."""

    open: float = 600.0
    step: float = 120.0
    silence: float = 20.0
    ping_every: float = 2.0


class _Connection(asyncio.Protocol):
    """One life of the process, seen through its socket."""

    def __init__(self, worker: "Worker") -> None:
        self._worker = worker
        self._reader = FrameReader()
        self._transport: asyncio.Transport | None = None
        self._calls: dict[int, Call] = {}
        self._next = 0
        self._unsent: list[bytes] = []
        self.heard = time.monotonic()
        self.busy_for = 0.0
        self.ready_at: float | None = None
        self.broken: str | None = None
        self.hopeless = self.passing = False
        self.closed = asyncio.Event()
        """Set once there is nothing more to be heard."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop has transport classes of its own

    def connection_lost(self, error: Exception | None) -> None:
        self.closed.set()
        self._worker.lost(self)

    def data_received(self, data: bytes) -> None:
        self.heard = time.monotonic()
        for body in self._reader.feed(data):
            self._take(from_worker.decode(body))

    def _take(self, message: FromWorker) -> None:
        match message:
            case Items(items):
                for number, body, last in items:
                    call = self._calls.pop(number, None) if last else self._calls.get(number)
                    if call is not None:
                        call.take(body, last)
            case Pong(busy_for):
                self.busy_for = busy_for
            case Progress(text):
                self._worker.progressed(text)
            case Ready(body):
                self.ready_at = time.monotonic()
                self._worker.became_ready(body)
            case Broken(reason, hopeless, passing):
                self.broken = reason
                self.hopeless, self.passing = hopeless, passing
            case Logged(level, text):
                self._worker.logged(level, text)

    def call(self, body: bytes) -> Call:
        self._next += 1
        call = self._calls[self._next] = Call(partial(self.forget, self._next))
        self.send(Submit(self._next, body))
        return call

    def forget(self, number: int) -> None:
        if self._calls.pop(number, None) is not None:
            self.send(Cancel(number))

    def send(self, message: ToWorker) -> None:
        """What is sent in one turn of the loop goes in one write: each costs more than it took to encode."""
        frame = encode(message)
        if not self._unsent:
            asyncio.get_running_loop().call_soon(self._flush)
        self._unsent.append(frame)

    def _flush(self) -> None:
        frames, self._unsent = self._unsent, []
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(frames))

    def end(self, reason: str) -> None:
        """Every call in flight ends with `reason`; nothing follows."""
        calls, self._calls = self._calls, {}
        for call in calls.values():
            call.lose(WorkerLost(reason))
        if self._transport is not None:
            self._transport.close()


class Worker:
    """A supervised process. An async context manager, or `start` and `stop`; both idempotent, of one event loop.

    `service` is "module:Class" of a Service or an AsyncService; `config` is what its `open` is given. The child
    inherits little of the environment, so that the gateway's secrets stay in the gateway; `environment` is laid over.
    """

    def __init__(
        self,
        name: str,
        service: str,
        config: bytes,
        limits: WorkerLimits | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.state: State = "stopped"
        self.error: str | None = None
        self.progress: str | None = None
        self.ready_body: bytes | None = None
        self.restarts = 0
        self.pid: int | None = None
        self._service = service
        self._config = config
        self._limits = limits or WorkerLimits()
        self._environment = environment or {}
        self._connection: _Connection | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._supervising: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._hung: str | None = None
        self._spawning = asyncio.Lock()
        self._log = logging.getLogger(f"hearth.worker.{name}")
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Begin; returns before the service is ready."""
        if self._supervising is None or self._supervising.done():
            self._become("starting")
            self._supervising = asyncio.create_task(self._supervise(), name=f"worker {self.name}")

    async def stop(self, grace: float = 5.0) -> None:
        """End the process: asked, then told, then killed. Calls in flight are lost."""
        if self._supervising is None:
            return
        self._become("stopping")
        async with self._spawning:  # a process that is half started would be left behind
            pass
        if self._connection is not None:
            self._connection.send(Close())
        if self._process is not None:
            await self._await_exit(self._process, grace)
        self._supervising.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._supervising
        self._supervising = None
        self._become("stopped")

    def kill(self, reason: str) -> None:
        """End this life of the process at once, whatever it is doing; calls in flight are lost with `reason`."""
        if self._process is not None:
            self._hung = reason
            _kill_group(self._process.pid)

    async def _await_exit(self, process: asyncio.subprocess.Process, grace: float) -> None:
        for insist in (process.terminate, process.kill):
            try:
                async with asyncio.timeout(grace):
                    await process.wait()
                return
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    insist()
        await process.wait()

    async def wait_ready(self, timeout: float) -> None:
        """Wait for the service, `timeout` seconds at most (TimeoutError).

        Raises WorkerFailed where the worker was given up, WorkerUnavailable where it is stopped.
        """
        async with asyncio.timeout(timeout):
            while self.state != "ready":
                if self.state == "failed":
                    raise WorkerFailed(self.error or "it could not be started")
                if self.state in ("stopped", "stopping"):
                    raise WorkerUnavailable(f"it is {self.state}")
                await self._changed.wait()

    @property
    def change(self) -> asyncio.Event:
        """Set as soon as `state` or `progress` changes; there is a new one then."""
        return self._changed

    def call(self, body: bytes) -> Call:
        """Send one call. Raises WorkerUnavailable where the worker is not ready."""
        if self.state != "ready" or self._connection is None:
            raise WorkerUnavailable(f"it is {self.state}")
        return self._connection.call(body)

    # ---- what the connection reports ----------------------------------------------------------------------------

    def progressed(self, text: str) -> None:
        self.progress = text
        self._log.info("%s", text)
        self._notify()

    def logged(self, level: int, text: str) -> None:
        self._log.log(level, "%s", text)

    def became_ready(self, body: bytes) -> None:
        self.ready_body = body
        self.progress = self.error = None
        self._become("ready")

    def lost(self, connection: _Connection) -> None:
        """The process is ending. Whatever it started and left behind would hold its output, and so its end, open."""
        if self._process is not None and self._connection is connection:
            _kill_group(self._process.pid)

    def _become(self, state: State) -> None:
        self.state = state
        self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    # ---- lives --------------------------------------------------------------------------------------------------

    async def _supervise(self) -> None:
        history = restart.History()
        while True:
            self._hopeless = self._passing = False
            try:
                ready_for = await self._live()
                history = history.waiting() if self._passing else history.after(ready_for)
            except OSError as error:
                self.error = f"its process could not be started: {error}"
                history = history.after(None)
            pause = None if self._hopeless else restart.delay(history)
            if pause is None:
                self._log.error("given up after %d failed starts: %s", history.failed_starts, self.error)
                self._become("failed")
                return
            if self.state == "stopping":
                return
            self._log.warning("ended (%s); starting again in %.1f s", self.error, pause)
            self._become("backoff")
            await asyncio.sleep(pause)
            self.restarts += 1
            self._become("starting")

    async def _live(self) -> float | None:
        """One life of the process; returns how long it was ready, None where it never was."""
        async with self._spawning:
            process, connection = await self._spawn()
            self._process, self._connection, self.pid = process, connection, process.pid
        reading = asyncio.create_task(self._read_output(process))
        watching = asyncio.create_task(self._watch(process, connection))
        closing = asyncio.create_task(connection.closed.wait())
        reason = "it was stopped"
        try:
            code = await process.wait()
            # Its last words may come after the news of its end.
            await asyncio.wait((reading, closing), timeout=1.0)
            reason = connection.broken or self._hung or _ended(code, self._lines)
            self._hopeless, self._passing = connection.hopeless, connection.passing
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
            # Nothing is awaited before the calls have ended: `stop` may interrupt this at any await.
            self.pid = self._process = self._connection = None
            if self.state == "ready":
                self._become("backoff")
            connection.end(reason)
            for task in (reading, watching, closing):
                task.cancel()
            await asyncio.gather(reading, watching, closing, return_exceptions=True)
        self.error = reason
        return None if connection.ready_at is None else time.monotonic() - connection.ready_at

    async def _spawn(self) -> tuple[asyncio.subprocess.Process, _Connection]:
        self._lines.clear()
        self._hung = None
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "server.worker.child", str(theirs.fileno()), self._service),
                    pass_fds=(theirs.fileno(),),
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.STDOUT,
                    env=_environment(os.environ, self._environment),
                    start_new_session=True,
                )
            except OSError:
                ours.close()
                raise
        ours.setblocking(False)
        connection = _Connection(self)
        await asyncio.get_running_loop().create_unix_connection(lambda: connection, sock=ours)
        assert process.stdin is not None
        process.stdin.write(self._config)
        process.stdin.close()
        return process, connection

    async def _read_output(self, process: asyncio.subprocess.Process) -> None:
        """Native libraries print what they like; it becomes log lines, and the last ones explain a crash."""
        assert process.stdout is not None
        rest = b""
        while data := await process.stdout.read(65536):
            *lines, rest = (rest + data).split(b"\n")
            rest = rest[-_LONGEST_LINE:]
            for line in lines:
                if text := line[-_LONGEST_LINE:].decode("utf-8", "replace").strip():
                    self._lines.append(text)
                    self._log.debug("%s", text)
        if text := rest.decode("utf-8", "replace").strip():
            self._lines.append(text)

    async def _watch(self, process: asyncio.subprocess.Process, connection: _Connection) -> None:
        limits = self._limits
        while True:
            connection.send(Ping())
            await asyncio.sleep(limits.ping_every)
            reason = restart.hung(
                time.monotonic() - connection.heard,
                connection.busy_for,
                silence_limit=limits.silence + limits.ping_every,
                busy_limit=limits.step if connection.ready_at is not None else limits.open,
            )
            if reason is not None:
                self._hung = f"it hung: {reason}"
                _kill_group(process.pid)
                return


def _ended(code: int, lines: deque[str]) -> str:
    how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    return f"{how}: {lines[-1]}" if code > 0 and lines else how


def _kill_group(leader: int) -> None:
    """End a worker with all it has started: it leads a group of its own, which keeps its number while one is left."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


def inherited(ours: Mapping[str, str]) -> dict[str, str]:
    """What a worker inherits: where programs and caches are, never what might be a secret."""
    return {name: value for name, value in ours.items() if name in _INHERITED or name.startswith(_INHERITED_PREFIXES)}


def _environment(ours: Mapping[str, str], more: Mapping[str, str]) -> dict[str, str]:
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, (root, {**ours, **more}.get("PYTHONPATH"))))
    fixed = {"PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    return inherited(ours) | fixed | dict(more) | {"PYTHONPATH": path}
