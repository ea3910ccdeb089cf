"""A real server process for tests: started on a free port, awaited by its own /readyz, ended whatever happens."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

_PATIENCE = 120.0


@dataclass(frozen=True)
class Live:
    """A running server: `url` without /v1, and its process."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    def client(self, key: str | None = None) -> httpx.Client:
        headers = {"authorization": f"Bearer {key}"} if key else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=60, trust_env=False)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def serving(recipe: Path, data: Path, *, until: str = "/readyz") -> Iterator[Live]:
    """`hearth serve RECIPE` until the block ends; begins once the route `until` answers 200."""
    port = free_port()
    told = {"HEARTH__SERVER__LISTEN": f"127.0.0.1:{port}", "HEARTH__SERVER__DATA": str(data)}
    data.mkdir(parents=True, exist_ok=True)
    log = data / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "server", "serve", str(recipe), "--verbose"],
            env=os.environ | told,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        live = Live(f"http://127.0.0.1:{port}", process, log)
        wait_for(lambda: _answers(live, until), f"{recipe.name} did not get ready", log, process)
        yield live
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for(done: Callable[[], bool], what: str, log: Path, process: subprocess.Popen[bytes] | None = None) -> None:
    """Poll `done()` until it is true; fails after two minutes, or at once when the process has ended."""
    until = time.monotonic() + _PATIENCE
    while not done():
        ended = process is not None and process.poll() is not None
        if ended or time.monotonic() > until:
            lines = log.read_text(encoding="utf-8").splitlines()
            told = "\n".join(line for line in lines if "uvicorn.access" not in line)
            raise AssertionError(f"{what}; its log:\n{told[-4000:]}")
        time.sleep(0.05)  # polling another process' state, which has nothing to wait on


def _answers(live: Live, route: str) -> bool:
    with suppress(httpx.TransportError):
        return httpx.get(f"{live.url}{route}", timeout=5, trust_env=False).status_code == 200
    return False
