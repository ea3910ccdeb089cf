"""The knowledge store beside LanceDB alone: queries, bulk ingest and single writes, over made vectors with clusters."""

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.knowledge.measures import bulk, queries, singles
from bench.table import report


def bench(rows: int, writes: int) -> int:
    """`rows` in the large table; the small one has a tenth of them."""

    async def run(folder: Path) -> int:
        figures = await queries(folder / "small", rows // 10, bar=0.5)
        figures += await queries(folder / "large", rows, bar=1.0)
        figures += await singles(folder / "singles", rows // 10, writes)
        figures += await bulk(folder / "bulk", rows)
        return report(figures)

    with TemporaryDirectory() as folder:
        return asyncio.run(run(Path(folder)))
