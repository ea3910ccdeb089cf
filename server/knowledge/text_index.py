"""The index over the words of one table: in which language it is, and when it has to be another. Knows no connection.

The index tells its own language, so there is nothing to keep beside it. Another one is made while searches use the one
there is, as any update of an index.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, Protocol

from server.knowledge import index
from server.knowledge.language import language_of

log = logging.getLogger(__name__)

AUTO, NONE = "auto", "none"
_READ = 200
"""Chunks whose words tell the language."""
_GREW = 1.5
"""Of the rows by which the language was told: with that many more or fewer it is told again."""


class Indexed(Protocol):
    """A table as its index of words sees it."""

    async def is_indexed(self) -> bool: ...

    async def sample(self, most: int) -> Sequence[tuple[str, str]]:
        """Id and text of some chunks from all over the table."""
        ...

    async def indexing(self, config: Any) -> None:
        """Put an index of words in place of the one there is."""
        ...


class TextIndex:
    """One table's. `asked` is the recipe's `language`: auto, none, or a language of LanceDB's tokenizers."""

    def __init__(self, store: Indexed, table: Any, asked: str) -> None:
        self._store = store
        self._table = table
        self._asked = asked
        self._told: str | None = None
        self._told_at = 0

    async def make(self) -> None:
        """Make words searchable, once there are some."""
        if not await self._store.is_indexed() and (rows := int(await self._table.count_rows())):
            await self._store.indexing(await self._config(rows))

    async def revise(self) -> None:
        """As `make`, and make the index anew where it is due."""
        if (config := await self.due()) is not None:
            log.info("the words of %s are indexed as %s, stems %s", self._table.name, config.language, config.stem)
            await self._store.indexing(config)

    async def due(self) -> Any | None:
        """How words should be indexed, where they are not: the recipe or the documents say another language.

        Documents are asked the first time, and when the table has become half as large again.
        """
        rows = int(await self._table.count_rows())
        if not rows:
            return None
        config = await self._config(rows)
        return None if await self._made() == _said(config) else config

    async def _made(self) -> tuple[str, bool, str] | None:
        for each in await self._table.list_indices():
            if each.columns == [index.WORDS]:
                told = each.index_details
                return str(told.get("language")), bool(told.get("stem")), str(told.get("base_tokenizer"))
        return None

    async def _config(self, rows: int) -> Any:
        if self._asked == NONE:
            return index.words(None)
        if self._asked != AUTO:
            return index.words(self._asked.capitalize())
        if self._told is None or not self._told_at / _GREW < rows < self._told_at * _GREW:
            texts = [text for _, text in await self._store.sample(_READ)]
            self._told, self._told_at = await asyncio.to_thread(language_of, texts), rows
        return index.words(self._told)


def _said(config: Any) -> tuple[str, bool, str]:
    """What the index will say of itself."""
    return str(config.language), bool(config.stem), str(config.base_tokenizer)
