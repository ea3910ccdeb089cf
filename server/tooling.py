"""`hearth tools`: what the tools of a recipe are, whether they work, and one call of one; and what `hearth check` says.

Everything runs in processes of this command's own, within the recipe's limits; a running server's tools are left alone.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from importlib import metadata
from typing import Any

import httpx
import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from config import Recipe
from config.tool import McpTool, McpUrl, PythonTool, RetrieveTool, ToolSpec
from server.answered import told
from server.api.wire_retrieve import RetrievalPage
from server.errors import ToolUnavailable
from server.knowledge import Hit
from server.runtime import Runtime
from server.tools.mcp_entry import missing
from server.tools.plugin import GROUP
from server.tools.result import Result
from server.tools.tool import Tool
from server.tools.toolbox import Toolbox

_ANSWER_SECONDS = 5.0
_SEARCH_SECONDS = 600.0
_AT_ONCE = 4
"""Entries that are started side by side; importing is work for a processor."""


class Offer(msgspec.Struct):
    """One entry as it was found: its tools, or why there are none. `running` is its state in the running server."""

    entry: str
    kind: str
    state: str
    reason: str | None
    tools: list[dict[str, Any]]
    running: str | None = None


# ---- list -----------------------------------------------------------------------------------------------------------


def show(recipe: Recipe, out: Console, err: Console, *, as_json: bool) -> int:
    """Start every tool and print what it offers; returns the exit code, 1 where one does not start."""
    offers = asyncio.run(_offers(recipe, recipe.tools))
    running = _running(recipe)
    for offer in offers:
        offer.running = running.get(offer.entry)
    if as_json:
        out.print(msgspec.json.format(msgspec.json.encode(offers)).decode(), markup=False)
    elif offers:
        _print(offers, out)
    else:
        out.print(f"{recipe.path} declares no tools.", markup=False)
    if not as_json:
        for line in _undeclared(recipe):
            out.print(line, markup=False)
    failed = [offer for offer in offers if offer.reason is not None]
    for offer in failed:
        err.print(f"{recipe.path}: {offer.reason}", markup=False)
    return 1 if failed else 0


async def _offers(recipe: Recipe, specs: Mapping[str, ToolSpec]) -> list[Offer]:
    at_once = asyncio.Semaphore(_AT_ONCE)
    logging.getLogger("hearth.worker").setLevel(logging.CRITICAL)  # what is wrong is printed, once

    async def offer(name: str, spec: ToolSpec) -> Offer:
        async with at_once, Toolbox({name: spec}, _no_search) as toolbox:
            try:
                tools = await toolbox.tools()
            except ToolUnavailable as error:
                return Offer(name, spec.kind, "failed", error.message, [])
            [state] = toolbox.states()
            return Offer(name, spec.kind, state.state, state.reason and f"tools.{name}: {state.reason}", _plain(tools))

    return list(await asyncio.gather(*(offer(name, spec) for name, spec in specs.items())))


async def _no_search(collection: str, query: str, k: int | None) -> Sequence[Hit]:
    raise AssertionError("nothing is searched to list tools")


def _plain(tools: list[Tool]) -> list[dict[str, Any]]:
    return [{"name": each.name, "description": each.description, "parameters": each.parameters} for each in tools]


def _print(offers: list[Offer], out: Console) -> None:
    if not out.is_terminal:
        for offer in offers:
            out.print(f"{offer.entry}: {offer.kind}, {_state(offer)}", markup=False)
            for tool in offer.tools:
                out.print(f"  {_signature(tool)}: {_summary(tool)}", markup=False)
        return
    table = Table("entry", "kind", "state", "tool", "what it does", box=None, pad_edge=False, header_style="bold")
    for offer in offers:
        first = (Text(offer.entry), Text(offer.kind), Text(_state(offer)))
        for number, tool in enumerate(offer.tools or [{}]):
            head = first if number == 0 else ("", "", "")
            table.add_row(*head, Text(_signature(tool) if tool else ""), Text(_summary(tool) if tool else ""))
    out.print(table, soft_wrap=False)


def _state(offer: Offer) -> str:
    return offer.state if offer.running is None else f"{offer.state}; in the running server {offer.running}"


def _signature(tool: Mapping[str, Any]) -> str:
    """Such as add(a: integer, b: integer = 2)."""
    schema = tool["parameters"]
    required = set(schema.get("required", ()))
    return f"{tool['name']}({', '.join(_parameters(schema.get('properties', {}), required))})"


def _parameters(properties: Mapping[str, Any], required: set[str]) -> Iterator[str]:
    for name, schema in properties.items():
        described = schema if isinstance(schema, Mapping) else {}
        kind = _kind(described)
        shown = f"{name}: {kind}" if kind else str(name)
        if name not in required:
            shown += f" = {msgspec.json.encode(described['default']).decode()}" if "default" in described else " = ..."
        yield shown


def _kind(schema: Mapping[str, Any]) -> str:
    """The types of a parameter, such as string | null; empty where its schema does not say."""
    told = schema.get("type", [each.get("type") for each in schema.get("anyOf", ()) if isinstance(each, Mapping)])
    kinds = [told] if isinstance(told, str) else told
    return " | ".join(kinds) if all(isinstance(each, str) for each in kinds) else ""


def _summary(tool: Mapping[str, Any]) -> str:
    return next(iter(tool["description"].strip().splitlines()), "")


def _running(recipe: Recipe) -> dict[str, str]:
    """The state of each entry in the recipe's server; empty where no Hearth answers."""
    try:
        reply = httpx.get(f"{recipe.server.listen.url}/health", timeout=_ANSWER_SECONDS, trust_env=False)
        return {name: str(each["state"]) for name, each in reply.json()["tools"].items()}
    except (httpx.HTTPError, ValueError, LookupError, TypeError, AttributeError):  # nobody, or another program
        return {}


def _undeclared(recipe: Recipe) -> list[str]:
    """What installed packages offer and no entry of the recipe takes."""
    taken = {spec.python for spec in recipe.tools.values() if isinstance(spec, PythonTool)}
    points = sorted(metadata.entry_points(group=GROUP), key=lambda point: point.name)
    return [
        f"Installed, not in the recipe: {point.name} ({point.value}); declare it as  NAME: {{python: {point.name}}}"
        for point in points
        if point.name not in taken and point.value not in taken
    ]


# ---- call -----------------------------------------------------------------------------------------------------------


def call(recipe: Recipe, name: str, arguments: str, key: str | None, out: Console, err: Console) -> int:
    """Call one tool with JSON arguments and print what it returns; returns the exit code, 1 for an error."""
    logging.getLogger("hearth.worker").setLevel(logging.CRITICAL)
    outcome = asyncio.run(_called(recipe, name, arguments, key))
    console = err if outcome.error else out
    console.print(outcome.text, markup=False)
    return 1 if outcome.error else 0


async def _called(recipe: Recipe, name: str, arguments: str, key: str | None) -> Result:
    entry = name.partition("__")[0]
    spec = recipe.tools.get(entry)
    if isinstance(spec, RetrieveTool):
        return await _searched(recipe, entry, spec, arguments, key)
    # Of an unknown name the toolbox tells what there is, without starting the rest.
    specs = {entry: spec} if spec is not None else recipe.tools
    toolbox = Toolbox(specs, _no_search)
    async with _entered(toolbox, spec is not None):
        return await toolbox.call(name, arguments)


@asynccontextmanager
async def _entered(toolbox: Toolbox, start: bool) -> AsyncIterator[None]:
    if not start:
        yield
        return
    async with toolbox:
        yield


async def _searched(recipe: Recipe, entry: str, spec: RetrieveTool, arguments: str, key: str | None) -> Result:
    """In the running server, which has its collections open, or else in a runtime of its own."""

    async def ask(collection: str, query: str, k: int | None) -> Sequence[Hit]:
        headers = {"authorization": f"Bearer {key}"} if key else {}
        asked = {"query": query, "collections": [collection], "k": k}
        async with httpx.AsyncClient(trust_env=False, timeout=_SEARCH_SECONDS) as client:
            reply = await client.post(f"{recipe.server.listen.url}/v1/retrieve", json=asked, headers=headers)
        return [_hit(each) for each in msgspec.to_builtins(told(reply, RetrievalPage).data)]

    try:
        return await Toolbox({entry: spec}, ask).call(entry, arguments)
    except httpx.ConnectError:
        pass
    except httpx.HTTPError as error:
        return Result(f"{recipe.server.listen.url} gave no answer: {error or type(error).__name__}.", error=True)
    only = recipe.model_copy(update={"tools": {entry: spec}})
    async with Runtime.build(only) as runtime:
        for name in spec.retrieve:
            await runtime.shelves[name].ready()
            if (ranker := runtime.shelves[name].spec.search.rerank) is not None:
                await runtime.models[ranker].ready()
        return await runtime.tools.call(entry, arguments)


def _hit(chunk: Mapping[str, Any]) -> Hit:
    told = {name: chunk[name] for name in Hit.__struct_fields__ if name in chunk}
    span = chunk["span"]
    text = "".join(part["text"] for part in chunk["content"])
    return msgspec.convert(told | span | {"text": text}, Hit)


# ---- check ----------------------------------------------------------------------------------------------------------


def inspect(recipe: Recipe) -> tuple[list[str], list[str]]:
    """What `hearth check` says of tools, and what is wrong with them.

    Python code is loaded, in a process with its limits; programs of MCP servers have to be there and are not started.
    """
    code = {name: spec for name, spec in recipe.tools.items() if not isinstance(spec, McpTool | RetrieveTool)}
    offers = asyncio.run(_offers(recipe, code)) if code else []
    lines = [f"tools.{each.entry}: {each.kind}, {_signature(tool)}" for each in offers for tool in each.tools]
    faults = [f"{recipe.path}: {each.reason}" for each in offers if each.reason is not None]
    for name, spec in recipe.tools.items():
        if isinstance(spec, McpTool) and not isinstance(spec.mcp, McpUrl):
            fault = missing(spec)
            faults += [f"{recipe.path}: tools.{name}.mcp: {fault}"] if fault else []
            lines += [] if fault else [f"tools.{name}: mcp, starts {spec.mcp[0]} at its first use"]
        elif isinstance(spec, McpTool | RetrieveTool):
            lines.append(f"tools.{name}: {spec.kind}")
    return lines, faults
