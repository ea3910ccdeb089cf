"""Documents that clients put at the same time, brought in together: one commit for all, and an answer for each."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from itertools import takewhile

from config.knowledge import ChunkSpec
from server.errors import HearthError, KnowledgeUnavailable
from server.knowledge.document import Document
from server.knowledge.report import IngestReport

Bring = Callable[[Sequence[Document], ChunkSpec | None], Awaitable[IngestReport]]
"""Makes documents searchable, each in place of the one with its id. Raises HearthError."""

_MOST_TOGETHER = 256


@dataclass
class _Put:
    documents: Sequence[Document]
    chunk: ChunkSpec | None
    answer: asyncio.Future[IngestReport] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class GroupCommit:
    """Brings in what was put, in its order. Nobody waits for others to come: what came during a commit is the next one.

    `turn` is held while `bring` runs: what comes while others hold it goes together too.
    """

    def __init__(self, turn: asyncio.Lock, bring: Bring) -> None:
        self._turn = turn
        self._bring = bring
        self._waiting: list[_Put] = []
        self._running: asyncio.Task[None] | None = None

    async def put(self, documents: Sequence[Document], chunk: ChunkSpec | None) -> IngestReport:
        """Returns once they are searchable; the report is of all that went together.

        Raises what is wrong with these documents alone. Who is cancelled while a commit has begun has put them
        nevertheless.
        """
        mine = _Put(documents, chunk)
        self._waiting.append(mine)
        if self._running is None:
            self._running = asyncio.create_task(self._run(), name="group commit")
        try:
            return await mine.answer
        finally:
            if mine in self._waiting:
                self._waiting.remove(mine)

    async def close(self) -> None:
        """Let the commit end that has begun; who waits for the next is told that there is none."""
        for each in self._waiting:
            _fail(each, KnowledgeUnavailable("The collection is being closed.", retry_after=2))
        self._waiting.clear()
        if self._running is not None:
            await asyncio.wait([self._running])

    async def _run(self) -> None:
        try:
            while self._waiting:
                async with self._turn:
                    await self._commit(self._next())
        finally:
            self._running = None

    def _next(self) -> list[_Put]:
        """From the front, as many as are cut alike and name no document twice."""
        ids: set[str] = set()
        chunks = {each.chunk for each in self._waiting[:1]}

        def joins(put: _Put) -> bool:
            of = [document.id for document in put.documents]
            if ids and (put.chunk not in chunks or len(ids) + len(of) > _MOST_TOGETHER or not ids.isdisjoint(of)):
                return False
            ids.update(of)
            return True

        group = list(takewhile(joins, self._waiting))
        del self._waiting[: len(group)]
        return group

    async def _commit(self, group: Sequence[_Put]) -> None:
        if not group:
            return
        try:
            report = await self._bring([each for put in group for each in put.documents], group[0].chunk)
        except HearthError as error:
            if len(group) == 1 or error.retry_after is not None:
                for put in group:
                    _fail(put, error)
                return
            # One of them may be at fault for all: each once more by itself.
            for put in group:
                await self._commit([put])
        except BaseException as error:
            for put in group:
                _fail(put, error)
            if not isinstance(error, Exception):
                raise
        else:
            for put in group:
                if not put.answer.done():
                    put.answer.set_result(report)
