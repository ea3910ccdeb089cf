"""Tools and servers that others have published, each in its own environment under .clients. Run by scripts/test-tools.

Of LangChain's community: two that read files and one that sleeps. Of MCP: servers in Python and in JavaScript, over
standard input and output and over streamable HTTP.
"""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import httpx
import pytest

from config import load
from server.tools.result import Result
from server.tools.toolbox import Toolbox
from tests.clients.client import Client
from tests.clients.environment import CannotInstall, installed
from tests.live import free_port, wait_for
from tests.tools.conftest import nothing_found

HERE = Path(__file__).parent
LANGCHAIN = Client("langchain-community", "LangChain's community tools", "langchain-community", HERE)
PYTHON = Client("mcp-python", "MCP servers in Python", "mcp-server-git", HERE)
NODE = Client("mcp-node", "MCP servers in JavaScript", "@modelcontextprotocol/server-everything", HERE)

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


def environment(client: Client) -> Path:
    try:
        return installed(client)
    except CannotInstall as error:
        pytest.skip(f"{client.name}: {error}")


@pytest.fixture(scope="session")
def langchain() -> Path:
    [packages] = environment(LANGCHAIN).glob("lib/python3*/site-packages")
    return packages


@pytest.fixture(scope="session")
def python() -> Path:
    return environment(PYTHON) / "bin"


@pytest.fixture(scope="session")
def node() -> Path:
    return environment(NODE) / "node_modules" / ".bin"


def toolbox(folder: Path, **entries: object) -> AbstractAsyncContextManager[Toolbox]:
    recipe = folder / "recipe.yaml"
    recipe.write_text(json.dumps({"version": 1, "tools": entries}), encoding="utf-8")
    return Toolbox(load(recipe).tools, nothing_found)


async def test_community_tools_that_read_files(langchain: Path, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("Moss grows in spring.", encoding="utf-8")
    given = {"folder": str(langchain), "arguments": {"root_dir": str(tmp_path)}}
    read = {"langchain": "langchain_community.tools:ReadFileTool"} | given
    listed = {"langchain": "langchain_community.tools:ListDirectoryTool"} | given
    async with toolbox(tmp_path, read=read, list=listed) as box:
        [tool, _] = await box.tools()
        assert tool.description == "Read file from disk"
        assert tool.parameters["required"] == ["file_path"]
        assert await box.call("read", '{"file_path": "note.txt"}') == Result("Moss grows in spring.")
        assert "note.txt" in (await box.call("list", {})).text
        assert "Access denied" in (await box.call("read", '{"file_path": "/etc/passwd"}')).text


async def test_a_community_tool_that_hangs_is_ended(langchain: Path, tmp_path: Path) -> None:
    spec = {"langchain": "langchain_community.tools:SleepTool", "folder": str(langchain), "timeout": "1s"}
    async with toolbox(tmp_path, sleep=spec) as box:
        assert (await box.call("sleep", '{"sleep_time": 0}')).text == "Agent slept for 0 seconds."
        late = await box.call("sleep", '{"sleep_time": 100}')
        assert late == Result("sleep took longer than 1 s and was ended.", error=True)
        assert (await box.call("sleep", '{"sleep_time": 0}')).text == "Agent slept for 0 seconds."


OURS = '''
from typing import Annotated
from langchain_core.tools import BaseTool, InjectedToolArg, tool


class Shout(BaseTool):
    name: str = "shout"
    description: str = "Says it louder."
    marks: int = 1

    def _run(self, text: str) -> str:
        raise NotImplementedError("only async")

    async def _arun(self, text: str) -> str:
        return text.upper() + "!" * self.marks


@tool
def sum_of(numbers: list[int], user: Annotated[str, InjectedToolArg] = "nobody") -> dict:
    """Add numbers up.

    Args:
        numbers: What to add.
    """
    return {"sum": sum(numbers), "user": user}
'''


async def test_tools_of_our_own_with_the_real_base_class(langchain: Path, tmp_path: Path) -> None:
    (tmp_path / "ours.py").write_text(OURS, encoding="utf-8")
    given = {"folder": str(tmp_path), "env": {"PYTHONPATH": str(langchain)}}
    shout = {"langchain": "ours:Shout", "arguments": {"marks": 2}} | given
    async with toolbox(tmp_path, shout=shout, sum={"langchain": "ours:sum_of"} | given) as box:
        [_, tool] = await box.tools()
        assert list(tool.parameters["properties"]) == ["numbers"]  # what LangChain injects is no business of the model
        assert await box.call("shout", '{"text": "moss"}') == Result("MOSS!!")
        assert (await box.call("sum", '{"numbers": [1, 2]}')).structured == {"sum": 3, "user": "nobody"}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository of git with one commit."""
    repository = tmp_path / "repository"
    repository.mkdir()
    who = {"GIT_AUTHOR_NAME": "A", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "A", "GIT_COMMITTER_EMAIL": "a@b"}
    for command in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "The first of all"]):
        subprocess.run(["git", *command], cwd=repository, env=os.environ | who, timeout=60, check=True)
    return repository


async def test_servers_in_python(python: Path, repository: Path, tmp_path: Path) -> None:
    time = {"mcp": [str(python / "mcp-server-time")]}
    git = {"mcp": [str(python / "mcp-server-git"), "--repository", str(repository)], "allow": ["git_log"]}
    async with toolbox(tmp_path, time=time, git=git) as box:
        names = [tool.name for tool in await box.tools()]
        assert "time__get_current_time" in names and "git__git_log" in names and "git__git_commit" not in names
        told = json.loads((await box.call("time__get_current_time", '{"timezone": "Asia/Tokyo"}')).text)
        assert abs(datetime.fromisoformat(told["datetime"]) - datetime.now(ZoneInfo("Asia/Tokyo"))).days == 0
        log = await box.call("git__git_log", {"repo_path": str(repository), "max_count": 1})
        assert "The first of all" in log.text and not log.error


async def test_servers_in_javascript(node: Path, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("Moss grows in spring.", encoding="utf-8")
    everything = {"mcp": [str(node / "mcp-server-everything")], "timeout": "2s"}
    files = {"mcp": [str(node / "mcp-server-filesystem"), str(tmp_path)], "allow": ["read_text_file"]}
    async with toolbox(tmp_path, everything=everything, files=files) as box:
        assert (await box.call("everything__get-sum", '{"a": 2, "b": 3}')).text == "The sum of 2 and 3 is 5."
        picture = await box.call("everything__get-tiny-image", {})
        assert "[image of type image/png," in picture.text
        late = await box.call("everything__trigger-long-running-operation", {"duration": 60, "steps": 2})
        assert late == Result("everything took longer than 2 s and was cancelled.", error=True)
        assert (await box.call("everything__echo", '{"message": "still there"}')).text == "Echo: still there"
        read = await box.call("files__read_text_file", {"path": str(tmp_path / "note.txt")})
        assert read.text == "Moss grows in spring."
        assert (await box.call("files__read_text_file", {"path": "/etc/passwd"})).error
        assert (await box.call("files__write_file", {})).text.startswith("There is no tool files__write_file.")


@pytest.fixture
def url(node: Path, tmp_path: Path) -> Iterator[str]:
    port, log = free_port(), tmp_path / "server.log"
    command = [str(node / "mcp-server-everything"), "streamableHttp"]
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=os.environ | {"PORT": str(port)}, stdout=output, stderr=output)
    try:
        wait_for(lambda: _answers(port), "the server did not begin", log, process)
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        process.kill()
        process.wait()


def _answers(port: int) -> bool:
    try:
        httpx.get(f"http://127.0.0.1:{port}/", timeout=5, trust_env=False)
    except httpx.TransportError:
        return False
    return True


async def test_a_server_in_javascript_over_streamable_http(url: str, tmp_path: Path) -> None:
    async with toolbox(tmp_path, everything={"mcp": {"url": url}, "allow": ["get-sum", "echo"]}) as box:
        assert {tool.name for tool in await box.tools()} == {"everything__echo", "everything__get-sum"}
        assert (await box.call("everything__get-sum", '{"a": 2, "b": 3}')).text == "The sum of 2 and 3 is 5."
        assert (await box.call("everything__get-sum", '{"a": "x", "b": 3}')).error
