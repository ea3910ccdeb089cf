"""`hearth search`: one search from the terminal, in the running server or in a runtime of its own."""

import asyncio
from typing import Any

import httpx
import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from config import Recipe
from server.answered import told
from server.api.retrieve import retrieved
from server.api.wire_retrieve import RetrievalPage, RetrieveRequest
from server.errors import HearthError
from server.runtime import Runtime

_LOAD_SECONDS = 600.0
_SHOWN = 240
"""Characters of a chunk in the table."""
_WIDE = 200


def search(
    recipe: Recipe,
    collection: str,
    query: str,
    k: int | None,
    mode: str | None,
    key: str | None,
    out: Console,
    err: Console,
    *,
    as_json: bool,
) -> int:
    """Print what was found, nearest first; returns the exit code, 1 where it could not be searched."""
    body = {
        "query": query,
        "collections": [collection],
        "k": k,
        "mode": mode,
        "include": ["explain"] if as_json else [],
    }
    try:
        try:
            page = _from_server(recipe, body, key)
        except httpx.ConnectError:
            err.print("No server is running; loading the recipe for this search.")
            page = asyncio.run(_own(recipe, collection, body))
    except (httpx.HTTPError, HearthError) as error:
        err.print(str(error), markup=False)
        return 1
    if as_json:
        out.print(msgspec.json.format(msgspec.json.encode(page)).decode(), markup=False)
    else:
        _show(page["data"], out)
    return 0


def _from_server(recipe: Recipe, body: dict[str, Any], key: str | None) -> Any:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    url = f"{recipe.server.listen.url}/v1/retrieve"
    reply = httpx.post(url, json=body, headers=headers, timeout=_LOAD_SECONDS, trust_env=False)
    return msgspec.to_builtins(told(reply, RetrievalPage))


async def _own(recipe: Recipe, collection: str, body: dict[str, Any]) -> Any:
    asked = msgspec.convert(body, RetrieveRequest)
    async with Runtime.build(recipe) as runtime:
        if (shelf := runtime.shelves.get(collection)) is not None:  # else the search says what there is
            await shelf.ready()
            if (ranker := shelf.spec.search.rerank) is not None:
                await runtime.models[ranker].ready()
        return msgspec.to_builtins(await retrieved(runtime, asked))


def _show(chunks: list[dict[str, Any]], out: Console) -> None:
    if not chunks:
        out.print("Nothing was found.")
        return
    if not out.is_terminal:
        out.width = _WIDE  # for whom reads it by program, a line stays a line
    table = Table("score", "file", "where", "text", box=None, pad_edge=False)
    for chunk in chunks:
        text = " ".join(" ".join(part["text"] for part in chunk["content"]).split())
        shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]} ..."
        table.add_row(f"{chunk['score']:.3f}", Text(chunk["filename"]), Text(_where(chunk)), Text(shown))
    out.print(table)


def _where(chunk: dict[str, Any]) -> str:
    page = chunk["span"]["page"]
    parts = [f"page {page}"] if page is not None else []
    return ", ".join([*parts, *([chunk["heading"]] if chunk["heading"] else [])])
