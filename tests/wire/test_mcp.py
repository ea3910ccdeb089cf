"""Hearth as an MCP server, asked by the official client: over HTTP, over `hearth mcp`, with keys and their scopes."""

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx
import pytest
from mcp import Client, MCPError, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client

from tests.live import Live
from tests.wire.tooled import INFER, SEARCH, Tooled

pytestmark = pytest.mark.anyio
QUESTION = {"query": "When does the ferry to Marram leave?", "collections": ["island"]}
DECLARED = {"add", "spell", "fail", "wait", "hang", "flood", "lookup"}


@asynccontextmanager
async def over_http(tooled: Tooled, key: str, mode: Any = "auto") -> AsyncIterator[Client]:
    headers = {"authorization": f"Bearer {key}"}
    async with create_mcp_http_client(headers=headers) as http:
        transport = streamable_http_client(f"{tooled.live.url}/mcp", http_client=http)
        async with Client(transport, mode=mode, read_timeout_seconds=60) as client:
            yield client


@asynccontextmanager
async def over_stdio(tooled: Tooled, key: str, **environment: str) -> AsyncIterator[Client]:
    told = {"HEARTH__SERVER__LISTEN": tooled.live.url.removeprefix("http://"), "HEARTH_KEY": key} | environment
    command = [*("-m", "server", "mcp", "--recipe", str(tooled.recipe))]
    server = StdioServerParameters(command=sys.executable, args=command, env=dict(os.environ) | told)
    async with Client(server, read_timeout_seconds=120) as client:
        yield client


async def names(client: Client) -> set[str]:
    return {tool.name for tool in (await client.list_tools()).tools}


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_the_official_client_lists_and_calls_over_http(mode: str, tooled: Tooled) -> None:
    async with over_http(tooled, "sk-admin-12345", mode) as client:
        assert client.server_info is not None and client.server_info.name == "hearth"
        assert await names(client) == {"retrieve", "ingest", *DECLARED}
        found = await client.call_tool("retrieve", QUESTION)
        assert not found.is_error and "leaves at high tide" in found.content[0].text  # type: ignore[union-attr]
        assert found.structured_content and found.structured_content["results"][0]["filename"] == "ferry.md"
        added = await client.call_tool("add", {"a": 40})
        assert (added.content[0].text, added.is_error) == ("42", False)  # type: ignore[union-attr]


async def test_a_document_that_is_ingested_is_found_at_once(tooled: Tooled) -> None:
    async with over_http(tooled, "sk-admin-12345") as client:
        text = "# Keys\n\nThe spare key of the lighthouse hangs behind the stove."
        put = await client.call_tool("ingest", {"collection": "kitchen", "id": "notes/key", "text": text})
        assert not put.is_error, put.content
        found = await client.call_tool("retrieve", {"query": "Where is the spare key of the lighthouse?", "k": 1})
        assert found.structured_content and found.structured_content["results"][0]["document_id"] == "notes/key"


async def test_what_goes_wrong_in_a_tool_is_its_result_and_what_is_asked_wrong_a_fault(tooled: Tooled) -> None:
    async with over_http(tooled, "sk-admin-12345") as client:
        for name, arguments, told in [
            ("fail", {}, "the tea is cold"),
            ("add", {"a": "x"}, "fit"),
            ("retrieve", {}, "query"),
            ("retrieve", {"query": "a", "collections": ["nowhere"]}, "nowhere"),
            ("ingest", {"text": "a"}, "island, kitchen"),
        ]:
            result = await client.call_tool(name, arguments)
            assert result.is_error and told in result.content[0].text, name  # type: ignore[union-attr]
        with pytest.raises(MCPError, match="Unknown tool"):
            await client.call_tool("nothere", {})


async def test_a_key_sees_and_calls_what_its_scopes_open(tooled: Tooled) -> None:
    async with over_http(tooled, SEARCH) as client:
        assert await names(client) == {"retrieve"}
        with pytest.raises(MCPError, match="Unknown tool"):
            await client.call_tool("ingest", {"collection": "kitchen", "text": "a"})
    async with over_http(tooled, INFER) as client:
        assert await names(client) == DECLARED
    async with httpx.AsyncClient(base_url=tooled.live.url, trust_env=False) as client_:
        reply = await client_.post("/mcp", json={"jsonrpc": "2.0", "id": 1, "method": "ping"})
    assert reply.status_code == 401


async def test_the_official_client_speaks_to_the_running_server_over_stdio(tooled: Tooled) -> None:
    async with over_stdio(tooled, SEARCH) as client:
        assert await names(client) == {"retrieve"}
        found = await client.call_tool("retrieve", QUESTION)
        assert found.structured_content and found.structured_content["results"][0]["filename"] == "ferry.md"


async def test_without_a_server_hearth_mcp_loads_the_recipe_itself(tooled: Tooled) -> None:
    data = str(tooled.recipe.parent / "mcp-data")
    told = {"HEARTH__SERVER__LISTEN": "127.0.0.1:9", "HEARTH__SERVER__DATA": data}
    async with over_stdio(tooled, "", **told) as client:
        assert {"retrieve", "ingest"} <= await names(client)
        added = await client.call_tool("add", {"a": 1})
        assert added.content[0].text == "3"  # type: ignore[union-attr]


def test_messages_are_answered_as_json_rpc_has_it(tooled: Tooled) -> None:
    def ask(body: Any, **headers: str) -> httpx.Response:
        with tooled.live.client("sk-admin-12345") as client:
            told = {"content": body} if isinstance(body, str) else {"json": body}
            return client.post("/mcp", headers={"content-type": "application/json"} | headers, **told)

    first = ask({"jsonrpc": "2.0", "id": 7, "method": "initialize", "params": {"protocolVersion": "1999-01-01"}})
    assert first.json()["id"] == 7 and first.json()["result"]["protocolVersion"] == "2025-11-25"
    assert len(first.headers["mcp-session-id"]) == 32
    assert ask({"jsonrpc": "2.0", "method": "notifications/initialized"}).status_code == 202
    both = ask([{"jsonrpc": "2.0", "id": "a", "method": "ping"}, {"jsonrpc": "2.0", "id": "b", "method": "nope"}])
    assert [each.get("result", each.get("error", {}).get("code")) for each in both.json()] == [{}, -32601]
    many = ask([{"jsonrpc": "2.0", "id": number, "method": "ping"} for number in range(21)]).json()["error"]
    assert many["code"] == -32600 and "at most 20" in many["message"]
    assert ask("{").json()["error"]["code"] == -32700
    assert ask({"id": 3, "method": "ping"}).json()["error"]["code"] == -32600
    assert ask({"jsonrpc": "2.0", "id": 4, "method": "tools/call", "params": {}}).json()["error"]["code"] == -32602
    assert ask({"jsonrpc": "2.0", "id": 1, "method": "ping"}, **{"mcp-protocol-version": "1.0"}).status_code == 400
    with tooled.live.client("sk-admin-12345") as client:
        assert client.get("/mcp").status_code == 405


async def test_a_call_that_is_cancelled_ends_in_the_tool(tooled: Tooled) -> None:
    headers = {"authorization": "Bearer sk-admin-12345", "mcp-session-id": "abc"}
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "wait", "arguments": {}}}
    cancelled = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}
    answers: list[httpx.Response] = []
    async with httpx.AsyncClient(base_url=tooled.live.url, headers=headers, timeout=60, trust_env=False) as client:

        async def ask() -> None:
            answers.append(await client.post("/mcp", json=call))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            process = await anyio.to_thread.run_sync(tooled.waiting)
            assert (await client.post("/mcp", json=cancelled)).status_code == 202
    assert (answers[0].status_code, answers[0].content) == (202, b"")
    await anyio.to_thread.run_sync(tooled.gone, process)


def test_a_foreign_page_is_refused(wire: Live) -> None:
    ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    with wire.client() as client:
        assert client.post("/mcp", json=ping, headers={"origin": "https://evil.example"}).status_code == 403
        assert client.post("/mcp", json=ping, headers={"origin": "http://localhost:3000"}).json()["result"] == {}
