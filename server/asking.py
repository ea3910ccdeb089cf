"""`hearth ask`: one question from the terminal, to the running server or to a runtime of its own."""

import asyncio
import json
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing

import httpx
from rich.console import Console
from rich.markup import escape

from config import Recipe
from server import chat
from server.answered import fault
from server.chat import Asked
from server.errors import HearthError
from server.models.engine import Message
from server.models.served import Served
from server.runtime import Runtime

_LOAD_SECONDS = 600.0


def ask(recipe: Recipe, question: str, model: str | None, key: str | None, out: Console, err: Console) -> int:
    """Print the answer as it comes; returns the exit code."""
    chats = [*recipe.assistants, *(name for name, spec in recipe.models.items() if spec.task == "chat")]
    chosen = model or next(iter(chats), None)
    if chosen is None:
        err.print(f"{recipe.path}: this recipe has no chat model to ask.")
        return 1
    try:
        for text in _from_server(recipe, question, chosen, key):
            out.print(text, end="", markup=False)
    except httpx.ConnectError:
        err.print("No server is running; loading the recipe for this answer.")
        try:
            asyncio.run(_print_own(recipe, question, chosen, out, err))
        except HearthError as error:
            err.print(error.message, markup=False)
            return 1
    except (httpx.HTTPError, HearthError) as error:
        err.print(str(error), markup=False)
        return 1
    out.print()
    return 0


def _from_server(recipe: Recipe, question: str, model: str, key: str | None) -> Iterator[str]:
    url = f"{recipe.server.listen.url}/v1/chat/completions"
    body = {"model": model, "messages": [{"role": "user", "content": question}], "stream": True}
    headers = {"authorization": f"Bearer {key}"} if key else {}
    with httpx.stream("POST", url, json=body, headers=headers, timeout=_LOAD_SECONDS, trust_env=False) as reply:
        if reply.status_code != 200 or not reply.headers.get("content-type", "").startswith("text/event-stream"):
            reply.read()
            raise fault(reply)
        for line in reply.iter_lines():
            if line.startswith("data: ") and line != "data: [DONE]":
                yield _text(json.loads(line.removeprefix("data: ")))


def _text(event: dict[str, object]) -> str:
    match event:
        case {"error": {"message": str(message)}}:
            raise HearthError(message)
        case {"choices": [{"delta": {"content": str(text)}}, *_]}:
            return text
        case _:
            return ""


async def _print_own(recipe: Recipe, question: str, model: str, out: Console, err: Console) -> None:
    async with aclosing(_own(recipe, question, model, err)) as texts:
        async for text in texts:
            out.print(text, end="", markup=False)


async def _own(recipe: Recipe, question: str, model: str, err: Console) -> AsyncGenerator[str, None]:
    async with Runtime.build(recipe) as runtime:
        target = runtime.target(model)
        needed = target.assistant.knowledge if target.assistant else ()
        telling = asyncio.create_task(_tell(target.model, err))
        try:
            await asyncio.gather(target.model.ready(), *(runtime.shelves[name].ready() for name in needed))
        finally:
            telling.cancel()
        turn = chat.turn(runtime, target, Asked(messages=[Message("user", question)]))
        async with aclosing(turn):
            async for parts in turn:
                if isinstance(parts, list):
                    yield "".join(part.text for part in parts)


async def _tell(model: Served, err: Console) -> None:
    """What loading is at, in one line that changes, and what keeps it waiting, in lines that stay; until cancelled."""
    told: str | None = None
    with err.status("loading") as status:
        async with aclosing(model.changes()) as changes:
            async for _ in changes:
                status.update(escape(getattr(model, "progress", None) or "loading"))
                if model.error is not None and model.error != told:
                    told = model.error
                    err.print(f"{told}; trying again", markup=False)
