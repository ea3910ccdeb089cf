"""MCP servers, started lazily and over HTTP, with the official server library on the other side."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from server.errors import ToolUnavailable
from server.tools.mcp_entry import called
from server.tools.result import Result
from server.tools.toolbox import Toolbox
from tests.live import free_port
from tests.tools.conftest import MODULES, Open, appears

pytestmark = pytest.mark.anyio

SERVED = f"mcp: [{sys.executable}, served.py]"


async def offers(toolbox: Toolbox, tool: str) -> None:
    """Wait until it does: nothing tells of a change but the list itself."""
    async with asyncio.timeout(30):
        while True:
            if tool in [each.name for each in await toolbox.tools()]:
                return
            await asyncio.sleep(0.02)


async def test_a_server_that_is_started(opened: Open, folder: Path) -> None:
    """Of one server, because each start takes seconds: lazily started, noisy, followed, cancelled, started again."""
    allowed = "[add, tell.pid, wait, noise, fail, environment, grow, grown, leave, gone]"
    async with opened(f"  it: {{{SERVED}, timeout: 30s, allow: {allowed}}}\n") as box:
        assert [(each.state, each.tools) for each in box.states()] == [("stopped", ())]
        await _offers_what_it_allows(box)
        await _survives_its_noise(box)
        await box.call("it__grow", {})
        await offers(box, "it__grown")
        assert (await box.call("it__grown", {})).text == "grown"
        await _is_told_of_a_cancelled_call(box, folder)
        first = await box.call("it__tell_pid", {})
        outcome = await box.call("it__leave", {})
        assert outcome.error and "without an answer" in outcome.text
        second = await box.call("it__tell_pid", {})
        assert not second.error and second.text != first.text


async def _offers_what_it_allows(box: Toolbox) -> None:
    tools = {tool.name: tool for tool in await box.tools()}
    assert "it__tell_pid" in tools and "it__forbidden" not in tools and "it__grown" not in tools
    assert tools["it__add"].description == "Add two numbers."
    assert tools["it__add"].parameters["required"] == ["a", "b"]
    assert (await box.call("it__forbidden", {})).text.startswith("There is no tool it__forbidden.")
    [state] = box.states()
    assert state.state == "ready"
    assert state.reason == "allow names what the server does not have: grown, gone"


async def _survives_its_noise(box: Toolbox) -> None:
    assert await box.call("it__add", '{"a": 1, "b": 2}') == Result("3", structured={"result": 3})
    assert (await box.call("it__add", '{"a": 1}')).text == 'The arguments do not fit: "b" is a required property.'
    assert (await box.call("it__noise", {})).text == "still here"
    failed = await box.call("it__fail", {})
    assert failed.error and "fail" in failed.text
    names = (await box.call("it__environment", {})).text.split()
    assert "PATH" in names and not [name for name in names if name.startswith(("PYTHON", "PYTEST"))]


async def _is_told_of_a_cancelled_call(box: Toolbox, folder: Path) -> None:
    begun, cancelled = folder / "begun", folder / "cancelled"
    call = asyncio.create_task(box.call("it__wait", {"begun": str(begun), "cancelled": str(cancelled)}))
    await asyncio.to_thread(appears, begun)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await asyncio.to_thread(appears, cancelled)


@pytest.fixture
def url() -> Iterator[str]:
    port = free_port()
    process = subprocess.Popen([sys.executable, MODULES / "served.py", str(port)], stderr=subprocess.DEVNULL)
    try:
        while process.poll() is None:
            try:
                httpx.get(f"http://127.0.0.1:{port}/", timeout=5, trust_env=False)
                break
            except httpx.TransportError:
                continue
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        process.kill()
        process.wait()


async def test_a_server_at_a_url(opened: Open, url: str, folder: Path) -> None:
    async with opened(f'  it: {{mcp: {{url: "{url}"}}, allow: [add, grow, grown, wait], timeout: 4s}}\n') as box:
        assert [tool.name for tool in await box.tools()] == ["it__add", "it__wait", "it__grow"]
        assert (await box.call("it__add", {"a": 1, "b": 2})).text == "3"
        await box.call("it__grow", {})
        await offers(box, "it__grown")
        outcome = await box.call("it__wait", {"begun": str(folder / "a"), "cancelled": str(folder / "b")})
        assert outcome == Result("it took longer than 4 s and was cancelled.", error=True)
        await asyncio.to_thread(appears, folder / "b")


@pytest.mark.parametrize(
    ("server", "reason"),
    [
        ("[no-such-program-anywhere]", "the program no-such-program-anywhere is not installed"),
        ("[./missing.sh]", "there is no program "),
        ('{url: "http://127.0.0.1:1/mcp"}', "it cannot be reached: ConnectError"),
    ],
)
async def test_what_cannot_be_used_says_why(opened: Open, server: str, reason: str) -> None:
    async with opened(f"  it: {{mcp: {server}}}\n") as box:
        with pytest.raises(ToolUnavailable) as caught:
            await box.tools()
        assert caught.value.message.startswith(f"tools.it cannot be used: {reason}")
        assert (await box.call("it__any", {})).text == caught.value.message
        [state] = box.states()
        assert state.state == "failed"


def test_names_keep_to_what_models_may_call() -> None:
    assert called("git", "git_log") == "git__git_log"
    assert called("a", "b.c/d") == "a__b_c_d"
    assert called("a", "b_c", {"a__b_c"}) != called("a", "b.c")
    long = called("entry", "x" * 200)
    assert len(long) == 64 and long != called("entry", "x" * 201)
