"""Real brokers for tests, each on a free port of its own: Redis and NATS from the system's packages, Kafka's mock."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.live import free_port, wait_for

_KAFKA = """
import sys
from confluent_kafka import Producer
producer = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "x", "log_level": 0})
brokers = producer.list_topics(timeout=10).brokers.values()
print(",".join(f"{each.host}:{each.port}" for each in brokers), flush=True)
sys.stdin.read()
"""


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
def kafka_cluster() -> Iterator[str]:
    """librdkafka's mock cluster in a process of its own: Kafka's protocol over TCP, offsets and groups included."""
    command = [sys.executable, "-c", _KAFKA]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield process.stdout.readline().decode().strip()
        process.kill()
