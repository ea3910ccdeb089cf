"""Documents that clients put at the same time, brought in together: one commit for all, and an answer for each.

While one group is written the next is cut and embedded, which needs no lock.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any, TypeVar

from config.knowledge import ChunkSpec
from server.errors import HearthError, KnowledgeUnavailable
from server.knowledge.document import Document
from server.knowledge.ingest import Ahead
from server.knowledge.report import IngestReport
from server.models.caller import CALLER

Prepare = Callable[[Sequence[Document], ChunkSpec | None], Coroutine[Any, Any, Ahead | None]]
"""Makes of documents what can be made without the turn to write. Raises HearthError."""
Bring = Callable[[Sequence[Document], ChunkSpec | None, Ahead | None], Coroutine[Any, Any, IngestReport]]
"""Makes documents searchable, each in place of the one with its id. Raises HearthError."""

T = TypeVar("T")
_MOST_TOGETHER = 256
_LONG_S = 10.0
"""A fault that took so long is one of a lock or a deadline, and not waited for again by each."""


@dataclass(eq=False)
class _Put:
    documents: Sequence[Document]
    chunk: ChunkSpec | None
    context: Context = field(default_factory=copy_context)
    answer: asyncio.Future[IngestReport] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def is_like(self, other: "_Put") -> bool:
        """Whether one commit does for both: cut alike, and at one caller's cost."""
        return self.chunk == other.chunk and self.context.get(CALLER) is other.context.get(CALLER)


class GroupCommit:
    """Brings in what was put, in its order. Nobody waits for others to come: what comes meanwhile is the next group.

    `turn` is held while `bring` runs, and not while `prepare` does, which is a group ahead.
    """

    def __init__(self, turn: asyncio.Lock, prepare: Prepare, bring: Bring) -> None:
        self._turn = turn
        self._prepare = prepare
        self._bring = bring
        self._waiting: list[_Put] = []
        self._preparing: asyncio.Task[None] | None = None
        self._committing: asyncio.Task[None] | None = None

    async def put(self, documents: Sequence[Document], chunk: ChunkSpec | None) -> IngestReport:
        """Returns once they are searchable; the report is of all that went together.

        Raises what is wrong with these documents, or with all. Who is cancelled after their commit has begun has put
        them nevertheless.
        """
        mine = _Put(documents, chunk)
        self._waiting.append(mine)
        if self._preparing is None:
            self._preparing = asyncio.create_task(self._run(), name="group commit")
        try:
            return await mine.answer
        finally:
            if mine in self._waiting:
                self._waiting.remove(mine)

    async def close(self) -> None:
        """Let the commits end that have begun; who waits for the next is told that there is none."""
        _fail(self._waiting, KnowledgeUnavailable("The collection is being closed.", retry_after=2))
        self._waiting.clear()
        if self._preparing is not None:
            await asyncio.wait([self._preparing])
        if self._committing is not None:
            await asyncio.wait([self._committing])

    async def _run(self) -> None:
        try:
            while self._waiting:
                group = self._next()
                ahead = await self._prepared(group)
                if self._committing is not None:
                    await asyncio.wait([self._committing])
                self._committing = asyncio.create_task(self._in_turn(group, ahead), name="group commit, writing")
        finally:
            self._preparing = None

    async def _prepared(self, group: Sequence[_Put]) -> Ahead | None:
        """None where it failed: bringing them in finds out once more, and which of them is at fault.

        A fault that took long is all of theirs at once: nobody waits for a deadline twice.
        """
        documents = [each for put in group for each in put.documents]
        began = time.monotonic()
        try:
            return await _as_asked(group[0], self._prepare(documents, group[0].chunk))
        except HearthError as error:
            if time.monotonic() - began >= _LONG_S:
                _fail(group, error)
            return None
        except (OSError, ValueError, RuntimeError):
            return None
        except BaseException as error:
            _fail(group, error)
            raise

    async def _in_turn(self, group: Sequence[_Put], ahead: Ahead | None) -> None:
        async with self._turn:
            if here := [put for put in group if not put.answer.done()]:
                await self._commit(here, ahead)

    def _next(self) -> list[_Put]:
        """From the front, as many as go together and name no document twice."""
        ids: set[str] = set()

        def joins(put: _Put) -> bool:
            of = {document.id for document in put.documents}
            too_many = len(ids) + len(of) > _MOST_TOGETHER
            if ids and (too_many or not put.is_like(self._waiting[0]) or not ids.isdisjoint(of)):
                return False
            ids.update(of)
            return True

        group = list(takewhile(joins, self._waiting))
        del self._waiting[: len(group)]
        return group

    async def _commit(self, group: Sequence[_Put], ahead: Ahead | None) -> None:
        began = time.monotonic()
        try:
            documents = [each for put in group for each in put.documents]
            report = await _as_asked(group[0], self._bring(documents, group[0].chunk, ahead))
        except HearthError as error:
            if len(group) > 1 and time.monotonic() - began < _LONG_S:
                # One of them may be at fault for all: each once more by itself.
                for put in group:
                    await self._commit([put], ahead)
            else:
                _fail(group, error)
        except BaseException as error:
            _fail(group, error)
            raise
        else:
            for put in group:
                if not put.answer.done():
                    put.answer.set_result(report)


async def _as_asked(put: _Put, what: Coroutine[Any, Any, T]) -> T:
    """In the context of who asked, whose limits count what is embedded."""
    return await asyncio.create_task(what, context=put.context)


def _fail(group: Sequence[_Put], error: BaseException) -> None:
    for put in group:
        if not put.answer.done():
            put.answer.set_exception(error)
