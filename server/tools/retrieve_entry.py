"""A search in collections as a tool: numbered passages with their sources, for the model to read and to name."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from config.tool import RetrieveTool
from server.errors import HearthError
from server.knowledge import Hit
from server.tools.result import Result, cut
from server.tools.tool import EntryState, Tool

Search = Callable[[str, str, int | None], Awaitable[Sequence[Hit]]]
"""Collection, query, how many (None: as the collection says) -> hits, nearest first. Raises HearthErrors."""

_QUERY = "What to look for: a question, or words the documents would use."


class RetrieveEntry:
    """An Entry of kind retrieve: nothing to start, the collections are the Runtime's."""

    def __init__(self, name: str, spec: RetrieveTool, search: Search) -> None:
        self.name = name
        self.spec = spec
        self._search = search

    async def start(self) -> None:
        return

    async def tools(self) -> list[Tool]:
        named = ", ".join(self.spec.retrieve)
        description = self.spec.description or f"Searches these documents and returns passages of them: {named}."
        parameters = {
            "type": "object",
            "properties": {"query": {"type": "string", "minLength": 1, "description": _QUERY}},
            "required": ["query"],
            "additionalProperties": False,
        }
        return [Tool(self.name, description, parameters, self.name, "retrieve", self.run)]

    def state(self) -> EntryState:
        return EntryState(self.name, "retrieve", "ready", None, (self.name,))

    async def close(self) -> None:
        return

    async def run(self, arguments: Mapping[str, Any], /) -> Result:
        timeout = self.spec.timeout.total_seconds()
        try:
            async with asyncio.timeout(timeout):
                found = await asyncio.gather(
                    *(self._search(collection, arguments["query"], self.spec.k) for collection in self.spec.retrieve)
                )
        except TimeoutError:
            return Result(f"{self.name} took longer than {timeout:g} s and was ended.", error=True)
        except HearthError as error:
            return Result(error.message, error=True)
        # Scores compare within one way of searching, which collections mostly share; each keeps its own order.
        hits = sorted((hit for each in found for hit in each), key=lambda hit: -hit.score)
        if self.spec.k is not None:
            hits = hits[: self.spec.k]
        return cut(_told(hits), self.spec.output)


def _told(hits: Sequence[Hit]) -> Result:
    if not hits:
        return Result("Nothing was found.", structured={"results": []})
    passages = [f"[{number}] {_source(hit)}\n{hit.text}" for number, hit in enumerate(hits, start=1)]
    return Result("\n\n".join(passages), structured={"results": [_fields(n, hit) for n, hit in enumerate(hits, 1)]})


def _source(hit: Hit) -> str:
    parts = [
        hit.filename,
        *([f"page {hit.page}"] if hit.page is not None else []),
        *([hit.heading] if hit.heading else []),
    ]
    return ", ".join(parts)


def _fields(number: int, hit: Hit) -> dict[str, Any]:
    return {
        "index": number,
        "id": hit.id,
        "collection": hit.collection,
        "document_id": hit.document_id,
        "filename": hit.filename,
        "uri": hit.uri,
        "title": hit.title,
        "heading": hit.heading,
        "page": hit.page,
        "score": round(hit.score, 6),
        "text": hit.text,
    }
