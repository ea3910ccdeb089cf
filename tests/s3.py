"""A real S3-compatible server for tests: moto, in an environment of its own, which enforces conditional puts."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import pytest

from tests.clients.client import Client
from tests.clients.environment import CannotInstall, installed
from tests.live import free_port, wait_for

_MOTO = Client("moto", "moto's S3 server", "moto", home=Path(__file__).parent / "servers")
ACCESS_KEY, SECRET_KEY = "hearth", "hearth-secret"


@dataclass(frozen=True)
class S3:
    """A running server. `requests` are the lines of its log, one for each request."""

    endpoint: str
    log: Path

    def bucket(self, name: str) -> str:
        """A new empty bucket; its URL."""
        httpx.put(f"{self.endpoint}/{name}", timeout=30, trust_env=False).raise_for_status()
        return f"s3://{name}"

    def spec(self, url: str) -> str:
        """A bucket as a recipe has it, in YAML's flow style."""
        key = f"access_key: {ACCESS_KEY}, secret_key: {SECRET_KEY}"
        return f"{{url: '{url}', endpoint: '{self.endpoint}', {key}}}"

    @property
    def requests(self) -> list[str]:
        return self.log.read_text(encoding="utf-8").splitlines()


@contextmanager
def s3_server() -> Iterator[S3]:
    """The server on a free port until the block ends. Skips where it cannot be installed, and says why."""
    try:
        place = installed(_MOTO)
    except CannotInstall as error:
        pytest.skip(f"moto's S3 server cannot be installed, so nothing of S3 is tested: {error}")
    port = free_port()
    with TemporaryDirectory() as folder:
        log = Path(folder) / "moto.log"
        command = [str(place / "bin" / "python"), "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        with log.open("wb") as output:
            process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
        try:
            endpoint = f"http://127.0.0.1:{port}"
            wait_for(lambda: _answers(endpoint), "moto's server did not start", log, process)
            yield S3(endpoint, log)
        finally:
            process.kill()
            process.wait()


def _answers(endpoint: str) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(endpoint, timeout=5, trust_env=False).status_code == 200
    return False
