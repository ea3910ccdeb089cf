"""Python tools run in processes of their own: ended when they hang, bounded in memory and output, without secrets."""

import asyncio
import logging
import os
from pathlib import Path

import pytest

from server.errors import ToolUnavailable
from server.tools.result import Result
from tests.tools.conftest import Open, appears

pytestmark = pytest.mark.anyio


async def test_a_function_is_called_sync_or_async_and_what_it_prints_is_logged(
    opened: Open, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "hearth.worker.tools.add")
    tools = '  add: {python: "plain:add", description: Sums.}\n  later: {python: "plain:later"}\n'
    async with opened(tools) as box:
        [add, later] = await box.tools()
        assert (add.name, add.description, add.kind, add.entry) == ("add", "Sums.", "python", "add")
        assert later.description == "Say it a moment later."
        assert add.parameters["properties"]["a"] == {"type": "integer", "description": "The first."}
        assert await box.call("add", '{"a": 40}') == Result("42", structured=42)
        assert await box.call("later", {"text": "héllo"}) == Result("héllo")
        assert [state.state for state in box.states()] == ["ready", "ready"]
    assert [state.state for state in box.states()] == ["stopped", "stopped"]
    assert "adding 40 2" in caplog.text


async def test_a_hung_tool_is_ended_with_all_it_started(opened: Open, folder: Path) -> None:
    file = folder / "pid"
    async with opened('  spawn: {python: "plain:spawn", timeout: 4s}\n') as box:
        outcome = await box.call("spawn", {"file": str(file)})
        assert outcome == Result("spawn took longer than 4 s and was ended.", error=True)
    assert _ended(int(file.read_text(encoding="utf-8")))


async def test_a_cancelled_call_ends_in_the_tool_and_the_next_one_works(opened: Open, folder: Path) -> None:
    async with opened('  meet: {python: "plain:meet"}\n') as box:
        begun, never = folder / "begun", folder / "never"
        call = asyncio.create_task(box.call("meet", {"mine": str(begun), "other": str(never)}))
        await asyncio.to_thread(appears, begun)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        never.touch()
        assert await box.call("meet", {"mine": str(begun), "other": str(never)}) == Result("it is there")


async def test_calls_run_side_by_side_up_to_the_limit(opened: Open, folder: Path) -> None:
    tools = '  meet: {python: "plain:meet", parallel: 2}\n  wait: {python: "plain:wait", parallel: 1, timeout: 1s}\n'
    async with opened(tools) as box:
        one, two = str(folder / "1"), str(folder / "2")
        both = await asyncio.gather(
            box.call("meet", {"mine": one, "other": two}), box.call("meet", {"mine": two, "other": one})
        )
        assert both == [Result("it is there")] * 2
        stuck = await asyncio.gather(*(box.call("wait", {"file": "/no/such/file"}) for _ in range(3)))
        ended, busy = "wait took longer than 1 s and was ended.", "wait was busy with other calls for 1 s."
        assert {outcome.text for outcome in stuck} == {ended, busy}


async def test_memory_is_bounded_and_the_process_stays(opened: Open) -> None:
    tools = '  eat: {python: "plain:eat", memory: 256MiB}\n'
    async with opened(tools) as box:
        assert (await box.call("eat", {"size": 100 * 2**20})).structured == 100 * 2**20
        assert await box.call("eat", {"size": 2**30}) == Result("MemoryError", error=True)
        assert (await box.call("eat", {"size": 5})).structured == 5


async def test_a_crash_costs_that_call_an_error_and_nothing_else(opened: Open) -> None:
    tools = '  crash: {python: "plain:crash"}\n  leave: {python: "plain:leave"}\n  fail: {python: "plain:fail"}\n'
    async with opened(tools) as box:
        for _ in range(2):
            outcome = await box.call("crash", {})
            assert outcome == Result("crash ended without an answer: killed by SIGSEGV.", error=True)
        assert await box.call("leave", {}) == Result("SystemExit: so long", error=True)
        assert await box.call("fail", {"what": "no such key"}) == Result("LookupError: no such key", error=True)


async def test_of_the_environment_a_tool_sees_what_the_recipe_names(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("API_TOKEN", "a secret of the server")
    monkeypatch.setenv("OTHER_TOKEN", "one that is handed on")
    tools = '  environment: {python: "plain:environment", env: {TOKEN: "${env:OTHER_TOKEN}"}}\n'
    async with opened(tools) as box:
        seen = (await box.call("environment", {})).structured
    assert seen["TOKEN"] == "one that is handed on"
    assert "API_TOKEN" not in seen and "OTHER_TOKEN" not in seen
    assert seen["PATH"] == os.environ["PATH"]


async def test_a_long_result_is_cut_and_says_so(opened: Open) -> None:
    async with opened('  repeat: {python: "plain:repeat", output: 10B}\n') as box:
        whole = await box.call("repeat", {"text": "ab", "times": 5})
        assert whole == Result("ababababab")
        cut = await box.call("repeat", {"text": "ä", "times": 50})
        assert cut == Result("äääää\n[cut: these are the first 10 of 100 bytes]")


async def test_a_process_serves_many_calls(opened: Open) -> None:
    async with opened('  count: {python: "plain:count"}\n  thing: {python: "plain:thing"}\n') as box:
        assert [(await box.call("count", {})).structured for _ in range(3)] == [1, 2, 3]
        outcome = await box.call("thing", {})
        assert outcome.error and outcome.text.startswith("It returned a object, which has no JSON form:")


@pytest.mark.parametrize(
    ("tool", "reason"),
    [
        ('python: "plain:ad"', "/plain.py has no ad, did you mean "),
        ('python: "plane:add"', "there is no module plane, neither installed nor in "),
        ('python: "broken:add"', "importing broken failed: ModuleNotFoundError: No module named 'does_not"),
        ('python: "plain:bare"', "bare: no type hint at a"),
        ('python: "plain:silent"', "says nowhere what it does; give it a docstring, or `description`"),
        ("python: nothing", "no installed package has an entry point nothing in the group hearth.tools"),
        ('langchain: "chained:Nameless"', "Nameless has not the interface of a LangChain tool: no name, invoke"),
        ('langchain: "chained:Schemaless"', "Schemaless has not the interface of a LangChain tool: no args_schema"),
        (
            'langchain: "chained:Adder", arguments: {stat: 1}',
            "Adder cannot be made with the arguments given: TypeError",
        ),
        ('langchain: "chained:made", arguments: {start: 1}', "arguments are for a class, and this is a Adder"),
    ],
)
async def test_what_cannot_be_loaded_says_why(opened: Open, tool: str, reason: str) -> None:
    async with opened(f"  it: {{{tool}}}\n") as box:
        with pytest.raises(ToolUnavailable) as caught:
            await box.tools()
        assert caught.value.message.startswith("tools.it ")
        assert reason in caught.value.message
        assert (await box.call("it", {})).error


async def test_where_an_import_fails_is_told(opened: Open, folder: Path) -> None:
    async with opened('  it: {python: "broken:add"}\n') as box:
        with pytest.raises(ToolUnavailable, match=rf"\({folder}/broken.py:3\)"):
            await box.tools()


async def test_a_langchain_tool_by_its_own_interface(opened: Open) -> None:
    tools = (
        '  adder: {langchain: "chained:Adder", arguments: {start: 10}}\n'
        '  made: {langchain: "chained:made"}\n'
        '  mapped: {langchain: "chained:Mapped"}\n'
    )
    async with opened(tools) as box:
        [adder, _, mapped] = await box.tools()
        assert adder.description == "Adds what it is given to what it has."
        assert adder.parameters["required"] == ["a"] and "title" not in adder.parameters
        assert mapped.parameters == {"type": "object", "properties": {"text": {"type": "string"}}}
        assert await box.call("adder", {"a": 1, "b": 2}) == Result("13", structured=13)
        assert await box.call("made", {"a": 1}) == Result("102", structured=102)
        assert await box.call("mapped", '{"text": "four"}') == Result("4", structured=4)


def _ended(pid: int) -> bool:
    """Whether that process is gone, or only its entry is left for somebody to read."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except FileNotFoundError:
        return True
    return status.rpartition(")")[2].split()[0] == "Z"
