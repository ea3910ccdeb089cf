"""Everything a collection goes through, in a process that may be killed at any write: what `test_killed` runs.

As a program it tries random places for as long as is wanted: python -m tests.knowledge.killed ROUNDS
"""

import asyncio
import importlib
import inspect
import itertools
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import redis

from config.knowledge import ChunkSpec, CollectionSpec, FilesSource, RedisSource
from server.knowledge import Collection, Current, Document, ingest
from server.knowledge.document import document_id
from server.knowledge.record import Records
from server.knowledge.rows import PACKED, PACKED_COLUMNS
from server.knowledge.sources.ledger import Ledger
from server.knowledge.store import Store
from server.state import State
from tests.knowledge.hashing import HashEmbedder
from tests.knowledge.sources.brokers import redis_server
from tests.policies.forking import forked

WRITES = {
    Store: ("replace", "delete", "set_attributes", "indexing", "compact"),
    Ledger: ("claim", "reached"),
    Records: ("change",),
}
"""What leaves something behind: a process may be killed before and after each call."""
_PATIENCE_S = 60
_MESSAGES = 6
_STREAM = "changes"

Rows = list[list[str]]


class Life:
    """One process's life with the collection under `folder`; the journal there says what was done and acknowledged."""

    def __init__(self, folder: Path, url: str) -> None:
        self._folder = folder
        self._docs = folder / "docs"
        self._url = url

    async def run(self) -> None:
        """Go on where the last process was killed."""
        for name, step in (
            ("files", partial(self._files, {n: f"# Page {n}\n\n{'Words of a page. ' * 30}" for n in range(5)})),
            ("pushes", self._pushes),
            ("changed files", partial(self._files, {0: "# Zero\n\nChanged.", 5: "# Five\n\nNew.", 1: None})),
            ("update", self._update),
            ("stream", self._follow),
            ("upkeep", self._compact),
            ("rebuild", self._rebuild),
            ("afterwards", self._afterwards),
        ):
            if not self._is_done(name):
                await step()
                self._acknowledge(name)

    async def rows(self) -> Rows:
        """All that the table holds; of files, what does not tell which folder they lie in."""
        async with self._collection(new=True) as collection, collection._serving.reading() as store:
            found = await store._table.query().to_list()
        assert len({row["id"] for row in found}) == len(found)
        for row in found:
            assert msgspec.msgpack.decode(row.pop(PACKED)) == [row[name] for name in PACKED_COLUMNS]
            if row["path"] is not None:
                assert row["document_id"] == document_id(Path(row["path"]))
                row |= {"id": "", "document_id": "", "path": Path(row["path"]).name, "source": row["source"][:5]}
        return sorted([str(row[name]) for name in sorted(row)] for row in found)

    # ---- steps ------------------------------------------------------------------------------------------------------

    async def _files(self, pages: Mapping[int, str | None]) -> None:
        self._docs.mkdir(exist_ok=True)
        for n, text in pages.items():
            if text is None:
                (self._docs / f"{n}.md").unlink(missing_ok=True)
            else:
                (self._docs / f"{n}.md").write_text(text, encoding="utf-8")
        async with self._collection() as collection:
            await collection.sync()

    async def _pushes(self) -> None:
        async with self._collection() as collection:
            for n in range(4):
                await collection.push([_document(f"pushed{n}", f"# Pushed {n}\n\n{'More words. ' * 20}")], [])

    async def _update(self) -> None:
        async with self._collection() as collection:
            await collection.push([_document("pushed0", "# Pushed 0\n\nOther words.")], ["pushed1"])
            await collection.set_attributes("pushed2", {"team": "ops"})

    async def _follow(self) -> None:
        async with State.open(self._folder / "state.db") as state, self._collection() as collection:
            current = Current(collection, state, self._folder, lambda _: None)
            task = asyncio.create_task(current.run())
            try:
                async with asyncio.timeout(_PATIENCE_S):
                    while not await asyncio.to_thread(self._all_acknowledged):  # noqa: ASYNC110  (the server tells)
                        await asyncio.sleep(0.01)
            finally:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task

    def _all_acknowledged(self) -> bool:
        with redis.Redis.from_url(self._url) as client, suppress(redis.ResponseError):
            groups: Any = client.xinfo_groups(_STREAM)
            return bool(groups and groups[0]["pending"] == 0 and groups[0]["lag"] == 0)
        return False

    async def _compact(self) -> None:
        async with self._collection() as collection, collection._serving.writing() as store:
            await store.compact(timedelta(hours=1))

    async def _rebuild(self) -> None:
        async with self._collection(new=True) as collection:
            await collection.rebuild()

    async def _afterwards(self) -> None:
        async with self._collection(new=True) as collection:
            await collection.push([_document("last", "# Last\n\nThe end.")], ["pushed3"])
            await collection.sync()

    def _collection(self, *, new: bool = False) -> Collection:
        """`new`: as another recipe with another model has it."""
        spec = CollectionSpec(
            embed="embed",
            sources=(
                FilesSource.model_construct(files=str(self._docs / "*.md"), watch=False, licence=None),
                RedisSource(redis=self._url, stream=_STREAM),
            ),
            chunk=ChunkSpec(tokens=30, overlap=5) if new else ChunkSpec(tokens=60, overlap=10),
            attributes={"team": "string"},
        )
        return Collection("handbook", spec, HashEmbedder(salt="new" if new else ""), self._folder / "handbook")

    # ---- the journal ------------------------------------------------------------------------------------------------

    def _is_done(self, step: str) -> bool:
        return (self._folder / f"done {step}").exists()

    def _acknowledge(self, step: str) -> None:
        (self._folder / f"done {step}").touch()


def _document(each: str, text: str) -> Document:
    return Document(id=each, uri=each, filename=each, text=text)


def fill(url: str) -> None:
    """The messages of the stream, among them some that take an earlier one's place and one that deletes."""
    with redis.Redis.from_url(url) as client:
        client.flushdb()
        for n in range(_MESSAGES):
            text = None if n == _MESSAGES - 1 else f"# Message {n}\n\nIt came as number {n}."
            client.xadd(_STREAM, {"value": json.dumps({"id": f"message{n % 4}", "text": text})})


class Lives:
    """Processes that each live that life, forked before anything has begun: none pays for importing LanceDB again."""

    def __init__(self, place: Path, url: str) -> None:
        self._place = place
        self._url = url

    def undisturbed(self) -> tuple[int, Rows]:
        """How many writes there are, and the rows they end with."""
        folder = self._begun("whole")
        assert _ended(self._forked(folder, 0)) == 0
        self._recover(folder)
        return int((folder / "writes").read_text(encoding="utf-8")), _rows(folder)

    def killed(self, at: int) -> Rows:
        """The rows after a process was killed at a write, and another one went on to the end."""
        folder = self._begun(str(at))
        assert _ended(self._forked(folder, at)) == -signal.SIGKILL, f"it was not killed at write {at}"
        self._recover(folder)
        return _rows(folder)

    def _begun(self, name: str) -> Path:
        folder = self._place / name
        folder.mkdir()
        fill(self._url)
        return folder

    def _forked(self, folder: Path, at: int) -> int:
        return forked(lambda: _child(folder, self._url, at))

    def _recover(self, folder: Path) -> None:
        def run() -> None:
            found = asyncio.run(_lived(Life(folder, self._url)))
            (folder / "rows").write_text(json.dumps(found), encoding="utf-8")

        assert _ended(forked(run)) == 0


async def _lived(life: Life) -> Rows:
    await life.run()
    return await life.rows()


def _rows(folder: Path) -> Rows:
    found: Rows = json.loads((folder / "rows").read_text(encoding="utf-8"))
    return found


def _ended(child: int) -> int:
    """How a process ended; one that does not is killed with the wrong signal."""
    timer = threading.Timer(_PATIENCE_S, os.kill, (child, signal.SIGABRT))
    timer.start()
    try:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    finally:
        timer.cancel()


def _patch(at: int, count: Callable[[], int]) -> None:
    def moment() -> None:
        if count() == at:
            os.kill(os.getpid(), signal.SIGKILL)

    def patched(call: Callable[..., Any]) -> Callable[..., Any]:
        async def wrapped(*given: Any, **named: Any) -> Any:
            moment()
            result = await call(*given, **named)
            moment()
            return result

        def blocking(*given: Any, **named: Any) -> Any:
            moment()
            result = call(*given, **named)
            moment()
            return result

        return wrapped if inspect.iscoroutinefunction(call) else blocking

    for owner, names in WRITES.items():
        for name in names:
            setattr(owner, name, patched(getattr(owner, name)))


def _child(folder: Path, url: str, at: int) -> None:
    writes = itertools.count(1)
    made = 0

    def count() -> int:
        nonlocal made
        made = next(writes)
        return made

    _patch(at, count)
    ingest._BATCH = 4  # so that an ingest of a few pages has several commits
    asyncio.run(Life(folder, url).run())
    (folder / "writes").write_text(str(made), encoding="utf-8")


def main(place: Path, url: str, points: int, seed: int | None) -> None:
    """Kill a process at `points` places of its writes, evenly chosen or, with a seed, at random."""
    importlib.import_module("server.knowledge.tables")
    lives = Lives(place, url)
    writes, wanted = lives.undisturbed()
    print(f"{writes} writes, {len(wanted)} rows", flush=True)
    chance = random.Random(seed)
    even = (1 + n * (writes - 1) // max(1, points - 1) for n in range(points))
    for at in even if seed is None else (chance.randint(1, writes) for _ in range(points)):
        same = lives.killed(at) == wanted
        print(f"killed at {at}: {'the same rows' if same else 'OTHER ROWS'}", flush=True)
        if not same:
            sys.exit(1)
        shutil.rmtree(place / str(at))


if __name__ == "__main__":
    if len(sys.argv) == 2:
        with tempfile.TemporaryDirectory() as folder, redis_server(Path(folder)) as server:
            main(Path(folder), server, int(sys.argv[1]), seed=random.randrange(2**32))
    else:
        main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), seed=None)
