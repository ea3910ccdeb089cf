"""Server processes for benches: Hearth as a user starts it, ended whatever happens, and the clock of its CPU time."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

from bench.table import CannotRun

_PATIENCE = 300.0
_CPUCLOCK_SCHED = 2


@dataclass(frozen=True)
class Live:
    """A running server on 127.0.0.1."""

    port: int
    pid: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def cpu(self) -> float:
        """Seconds of CPU this one process has used, its children left out.

        Read from Linux's clock of the process (clock_getcpuclockid(3)): it counts nanoseconds, /proc counts 10 ms.
        """
        return time.clock_gettime((~self.pid << 3) | _CPUCLOCK_SCHED)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def hearth(recipe: Path, data: Path) -> Iterator[Live]:
    """`hearth serve RECIPE` with everything in it ready, until the block ends."""
    port = free_port()
    told = {"HEARTH__SERVER__LISTEN": f"127.0.0.1:{port}", "HEARTH__SERVER__DATA": str(data)}
    command = [sys.executable, "-m", "server", "serve", str(recipe)]
    with process(command, port, data / "server.log", told, _is_ready) as live:
        yield live


@contextmanager
def process(
    command: Sequence[str], port: int, log: Path, told: dict[str, str], ready: Callable[[str], bool]
) -> Iterator[Live]:
    """`command` listening on `port` until the block ends. Raises CannotRun with its log when it does not get ready."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        child = subprocess.Popen(command, env=os.environ | told, stdout=output, stderr=subprocess.STDOUT)
    try:
        live = Live(port, child.pid)
        until = time.monotonic() + _PATIENCE
        while not ready(live.url):
            if child.poll() is not None or time.monotonic() > until:
                raise CannotRun(f"{' '.join(command)} did not get ready:\n{log.read_text(encoding='utf-8')[-4000:]}")
            time.sleep(0.05)  # polling another process' state, which has nothing to wait on
        yield live
    finally:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(20)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _is_ready(url: str) -> bool:
    with suppress(httpx.TransportError):
        return httpx.get(f"{url}/readyz", timeout=5, trust_env=False).status_code == 200
    return False


def listens(url: str) -> bool:
    with suppress(httpx.TransportError):
        return bool(httpx.get(url, timeout=5, trust_env=False).status_code)
    return False
