"""The knowledge store beside LanceDB alone: queries, bulk ingest and single writes, over made vectors with clusters.

Fresh changes go through a real server. Peers are measured on the same vectors, each in an environment of its own.
"""

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.knowledge.fresh import fresh
from bench.knowledge.measures import bulk, hybrid, queries, singles
from bench.knowledge.peers import peers
from bench.table import CannotRun, Figure, report

_PARTS = ("queries", "hybrid", "singles", "bulk", "fresh")


def bench(rows: int, writes: int, seconds: int, with_peers: bool, only: str | None) -> int:
    """`rows` in the large table; the small one has a tenth of them, that of hybrid searches four tenths."""
    parts = only.split(",") if only else list(_PARTS)
    if unknown := set(parts) - set(_PARTS):
        raise CannotRun(f"There is no part {', '.join(sorted(unknown))}; the parts are {', '.join(_PARTS)}.")

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
        return await fresh(seconds)

    with TemporaryDirectory() as name:
        figures = [figure for each in parts for figure in asyncio.run(part(each, Path(name)))]
        figures += peers(Path(name) / "peers", rows) if with_peers else []
        return report(figures)
