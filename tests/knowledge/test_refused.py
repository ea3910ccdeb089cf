"""Files that were not taken in stay listed until they are taken, or gone."""

from pathlib import Path

import pytest

from config.knowledge import ChunkSpec, CollectionSpec, FilesSource
from server.knowledge import Collection, Document, Refused
from server.state import State
from tests.knowledge.hashing import HashEmbedder

pytestmark = pytest.mark.anyio
BINARY = b"\x00\x01\x02"


async def test_a_refused_file_stays_listed_until_it_is_taken_or_gone(tmp_path: Path, docs: Path) -> None:
    spec = CollectionSpec(
        embed="embed",
        sources=(FilesSource.model_construct(files=str(docs / "**/*")),),
        chunk=ChunkSpec(tokens=60, overlap=10),
    )
    for name in ("gone.txt", "mended.txt", "kept.txt"):
        (docs / name).write_bytes(BINARY)
    (docs / "spoilt.txt").write_text("Apples are red.", encoding="utf-8")
    async with State.open(tmp_path / "state.db") as state:
        refused = Refused(state, "handbook")

        async def listed() -> dict[str, bool]:
            return {each.uri: "binary" in each.reason for each in await refused.every()}

        async with Collection("handbook", spec, HashEmbedder(), tmp_path / "data", refused=refused) as of:
            await of.sync()
            assert await listed() == {"gone.txt": True, "mended.txt": True, "kept.txt": True}
            since = {each.uri: each.at for each in await refused.every()}
            await of.upsert([Document(id="x", uri="x", filename="x", text="An upsert tells nothing of files.")])
            assert refused.held == 3
            (docs / "spoilt.txt").write_bytes(BINARY)
            await of.sync(changed={docs / "spoilt.txt"})
            (docs / "gone.txt").unlink()
            (docs / "mended.txt").write_text("Bears sleep.", encoding="utf-8")
            await of.sync(changed={docs / "gone.txt", docs / "mended.txt"})
            assert await listed() == {"kept.txt": True, "spoilt.txt": True}  # of which an older version is here
            assert (await refused.every())[0].at == since["kept.txt"]
            elsewhere = tmp_path / "elsewhere"
            elsewhere.mkdir()
            (elsewhere / "kept.txt").write_bytes(BINARY)
            await of.ingest(elsewhere)
            assert [each.brought for each in await refused.every()] == [str(elsewhere), None, None]
    async with State.open(tmp_path / "state.db") as state:
        assert await Refused(state, "handbook").count() == 3
        assert await Refused(state, "other").count() == 0
