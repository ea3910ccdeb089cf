"""Tiers of knowledge: searches of local and of cold storage in a real bucket, requests for each, and moves."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import pytest
from pydantic import SecretStr

from bench import killed
from bench.table import CannotRun, Figure, report
from config.bucket import Bucket
from tests.policies.tiered import Tiered, document, tiered
from tests.s3 import ACCESS_KEY, S3, SECRET_KEY, s3_server

_DIMENSION = 384
_WARM_UP = 3
_BATCH = 100
_KILLED = {"documents": "lost, doubled or left behind", "weights": "lost, other or left behind"}


def bench(documents: int, queries: int, kills: int) -> int:
    """Print the figures for so many documents, queries of each kind, and kills of moves of documents and of weights."""
    try:
        with s3_server() as server, TemporaryDirectory(prefix="hearth-bench-") as folder:
            figures = asyncio.run(_measured(Path(folder) / "measured", server, documents, queries))
            figures += killed.figures(Path(folder), _KILLED, kills) if kills else []
    except pytest.skip.Exception as reason:
        raise CannotRun(str(reason)) from None
    return report(figures)


async def _measured(folder: Path, server: S3, documents: int, queries: int) -> list[Figure]:
    url = f"{server.bucket('kb-cold')}/bench"
    place = Bucket(url=url, endpoint=server.endpoint, access_key=ACCESS_KEY, secret_key=SecretStr(SECRET_KEY))
    async with tiered(folder, place, dimension=_DIMENSION) as each:
        for at in range(0, documents, _BATCH):
            await each.collection.push([document(n) for n in range(at, min(documents, at + _BATCH))], [])
        await each.run()
        each.now += 31 * 86_400
        await each.used(*(f"d{n}" for n in range(documents // 2)))
        began = time.perf_counter()
        moved = (await each.run()).figures
        seconds = time.perf_counter() - began
        asked = len(server.requests)
        await each.search("subject1 part1", ("cold",))
        first = len(server.requests) - asked
        await each.search("subject1 part1")  # so that memory is asked for
        warm, _ = await _spent(each, server, queries, ("warm",), 0)
        cold, gets = await _spent(each, server, queries, ("cold",), documents // 2)
        both, _ = await _spent(each, server, queries, ("warm", "cold"), documents // 2)
        words, word_gets = await _spent(each, server, queries, ("cold",), documents // 2, mode="text")
        nearest, near_gets = await _spent(each, server, queries, ("cold",), documents // 2, mode="vector")
    return [
        Figure("documents that went to the bucket", moved["documents_out"] / seconds, "/s"),
        Figure("chunks of them", moved["chunks_out"] / seconds, "/s"),
        Figure("first search of the bucket", first, "requests", digits=0),
        Figure("search of local storage", warm, "ms", digits=1),
        Figure("search of the bucket", cold, "ms", digits=1),
        Figure("search of both", both, "ms", digits=1),
        Figure("requests for a search of the bucket", gets, "", digits=1),
        Figure("by words alone", word_gets, "requests", peer=f"{words:.1f} ms"),
        Figure("by meaning alone", near_gets, "requests", peer=f"{nearest:.1f} ms"),
    ]


async def _spent(
    each: Tiered, server: S3, queries: int, tiers: tuple[str, ...], first: int, mode: str | None = None
) -> tuple[float, float]:
    """Milliseconds of the middle one, and requests to the bucket for each on average."""

    async def search(n: int) -> None:
        await each.collection.search(f"subject{first + n} part{n % 4}", tiers=tiers, mode=mode)  # type: ignore[arg-type]

    for n in range(_WARM_UP):
        await search(n)
    asked = len(server.requests)
    took = [await _timed(search, n) for n in range(queries)]
    return median(took) * 1000, (len(server.requests) - asked) / queries


async def _timed(search: Callable[[int], Awaitable[None]], n: int) -> float:
    began = time.perf_counter()
    await search(n)
    return time.perf_counter() - began
