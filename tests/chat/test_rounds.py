"""From round to round of a turn: ids of calls, what is kept until the client returns, what a search brought."""

from collections.abc import Collection
from types import SimpleNamespace
from typing import Any

import pytest

from server.chat import mixed
from server.chat.answer import Part
from server.chat.asked import Asked
from server.chat.fallback import Turn
from server.chat.knowledge import Knowledge
from server.chat.loop import looped
from server.chat.mixed import Mixed
from server.chat.tool_run import ToolDone
from server.models.dialect import Tools
from server.models.engine import Message, ToolCall
from server.models.tool_formats import CallStart, ToolSpec
from server.tools.result import Result

pytestmark = pytest.mark.anyio

NOBODY: Any = SimpleNamespace(assistant=None)


async def test_a_clients_call_has_an_id_of_its_own_whatever_the_model_calls_it() -> None:
    """By it the server knows what it ran beside; some servers begin with call_0 in every answer."""
    asked = Asked(tools=Tools([ToolSpec("look", {}), ToolSpec("clock", {})]), served=frozenset({"clock"}))

    async def answer(_: Asked) -> Turn:
        yield [Part("", 1, calls=[CallStart(0, "look", "call_0")])]
        yield [Part("", 1, finish_reason="tool_calls")]

    ids = set()
    for _ in range(2):
        async for step in looped(NOBODY, NOBODY, asked, Knowledge(NOBODY, None), answer):
            assert isinstance(step, list)
            ids |= {call.id for part in step for call in part.calls if isinstance(call, CallStart)}
    assert len(ids) == 2 and "call_0" not in ids


def test_what_is_kept_again_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixed, "_MOST_CHARACTERS", 100)
    kept = Mixed()

    def said(name: str) -> list[Message]:
        both = [ToolCall(name, "look", ""), ToolCall(f"{name}-ours", "clock", "")]
        return [Message("assistant", "x" * 30, tool_calls=both), Message("tool", "noon", tool_call_id=f"{name}-ours")]

    kept.keep(["one"], said("one"))
    for _ in range(10):
        kept.keep(["two"], said("two"))
    whole = kept.restored([Message("assistant", "", tool_calls=[ToolCall("one", "look", "")])])
    assert [each.text for each in whole] == ["", "noon"], "the first one is there still"


def test_a_search_that_was_cut_to_its_tools_limit_is_read_as_it_stands() -> None:
    """Cut, it has no structured values; the turn goes on all the same."""
    assert Knowledge(NOBODY, None).brought("[1] a.md\nHalf", None) == ("[1] a.md\nHalf", [])


async def test_what_was_not_offered_is_not_run_nor_anything_after_the_last_round() -> None:
    """An MCP server can get a tool in the middle of a turn; a model can call what it is no longer shown."""
    ran: list[str] = []

    async def call(name: str, arguments: str, among: Collection[str]) -> Result:
        if among:
            ran.append(name)
        return Result("noon" if among else f"There is no tool {name}.", error=not among)

    runtime: Any = SimpleNamespace(tools=SimpleNamespace(call=call), recipe=SimpleNamespace(tools={}))
    target: Any = SimpleNamespace(assistant=SimpleNamespace(tools=["clock"], rounds=2))
    asked = Asked(tools=Tools([ToolSpec("clock", {})]), served=frozenset({"clock"}))

    async def answer(_: Asked) -> Turn:
        yield [Part("", 1, calls=[CallStart(0, "clock"), CallStart(1, "clock__new")])]
        yield [Part("", 1, finish_reason="tool_calls")]

    done: list[ToolDone] = []
    async for step in looped(runtime, target, asked, Knowledge(NOBODY, None), answer):
        assert isinstance(step, list)
        done += [run for part in step for run in part.runs if isinstance(run, ToolDone)]
    assert ran == ["clock", "clock"], "in each of the two rounds"
    assert {each.output for each in done if each.name == "clock__new"} == {
        "There is no tool clock__new.",
        "No more tools may be called in this turn.",
    }
    assert [each.output for each in done[-2:]] == ["No more tools may be called in this turn."] * 2
