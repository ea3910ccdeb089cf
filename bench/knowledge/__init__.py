"""The knowledge store beside LanceDB alone: queries, bulk ingest and single writes, over made vectors with clusters.

Fresh changes go through a real server. Peers are measured on the same vectors, each in an environment of its own.
"""

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.knowledge.fresh import fresh
from bench.knowledge.measures import bulk, hybrid, queries, singles
from bench.knowledge.million import million
from bench.knowledge.peers import peers
from bench.table import CannotRun, Figure, report

_PARTS = ("queries", "hybrid", "singles", "bulk", "fresh")
_MILLION = "million"
_HOT = 8 * 1024**3
"""Bytes that a million rows may take in memory, each with its text and half a vector besides while lists are made."""


def bench(rows: int, writes: int, seconds: int, with_peers: bool, only: str | None, at: Path | None) -> int:
    """`rows` in the large table; the small one has a tenth of them, that of hybrid searches four tenths.

    The part `million`, which runs only where it is asked for, has ten times as many, in the folder `at` where one is
    given: what is there already is measured as it is.
    """
    parts = only.split(",") if only else list(_PARTS)
    if unknown := set(parts) - {*_PARTS, _MILLION}:
        known = ", ".join([*_PARTS, _MILLION])
        raise CannotRun(f"There is no part {', '.join(sorted(unknown))}; the parts are {known}.")

    async def part(name: str, folder: Path) -> list[Figure]:
        match name:
            case "queries":
                small = await queries(folder / "small", rows // 10, bar=0.5)
                return small + await queries(folder / "large", rows, bar=1.0)
            case "hybrid":
                return await hybrid(folder / "hybrid", rows * 2 // 5)
            case "singles":
                return await singles(folder / "singles", rows // 10, writes)
            case "bulk":
                return await bulk(folder / "bulk", rows)
            case "million":
                return await million(at or folder / "million", rows * 10, _HOT)
        return await fresh(seconds)

    with TemporaryDirectory() as name:
        figures = [figure for each in parts for figure in asyncio.run(part(each, Path(name)))]
        figures += peers(Path(name) / "peers", rows) if with_peers else []
        return report(figures)
