"""Models that share memory: who makes room is decided purely, and done with real worker processes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from config.model import EchoModel
from server.errors import ModelUnavailable
from server.models.resident import Resident
from server.models.sharing import Occupant, Sharing, is_hopeless, making_room

PATIENCE = 60


def occupant(name: str, size: int, used: float = 0, *, is_idle: bool = True, is_pinned: bool = False) -> Occupant:
    return Occupant(name, size, is_idle, is_pinned, used)


def test_the_least_recently_used_idle_models_leave_and_no_more_than_needed() -> None:
    loaded = [occupant("new", 4, 30), occupant("old", 4, 10), occupant("middle", 4, 20)]
    assert making_room(4, 16, loaded) == []
    assert making_room(5, 16, loaded) == ["old"]
    assert making_room(9, 16, loaded) == ["old", "middle"]
    assert making_room(17, 16, loaded) is None


def test_pinned_and_busy_models_stay() -> None:
    loaded = [occupant("pinned", 6, 1, is_pinned=True), occupant("busy", 4, 2, is_idle=False), occupant("idle", 4, 3)]
    assert making_room(4, 14, loaded) == ["idle"]
    assert making_room(5, 14, loaded) is None, "the busy one may become idle"
    assert not is_hopeless(8, 14, loaded)
    assert is_hopeless(9, 14, loaded), "the pinned one never does"


@asynccontextmanager
async def sharing(folder: Path, budget: int, **models: dict[str, object]) -> AsyncIterator[list[Resident]]:
    """Models of ten bytes each, all loaded once."""
    found = [
        Resident(name, EchoModel.model_validate({"engine": "echo"} | keys), folder) for name, keys in models.items()
    ]
    shared = Sharing(budget, dict.fromkeys(models, 10), found)
    async with AsyncExitStack() as stack:
        for each in found:
            await stack.enter_async_context(each)
        async with asyncio.timeout(PATIENCE):
            await shared.begin()
        yield found


@pytest.mark.anyio
async def test_loading_one_more_unloads_the_one_unused_for_longest(tmp_path: Path) -> None:
    async with (
        sharing(tmp_path, 20, pinned={"pin": True}, one={}, two={}) as [pinned, one, two],
        asyncio.timeout(PATIENCE),
    ):
        assert [each.card is not None for each in (pinned, one, two)] == [True] * 3, "each was loaded once"
        assert [each.state for each in (pinned, one, two)] == ["ready", "stopped", "ready"]
        assert one.available, "it is loaded when somebody asks"
        await one.ready()
        assert [each.state for each in (pinned, one, two)] == ["ready", "ready", "stopped"]
        one._begins()
        loading = asyncio.create_task(two.ready())
        await asyncio.sleep(0)
        assert (one.state, two.state) == ("ready", "stopped"), "one that is in use stays"
        one._ends()
        await loading
        assert [each.state for each in (pinned, one, two)] == ["ready", "stopped", "ready"]


@pytest.mark.anyio
async def test_a_model_for_which_there_can_be_no_room_says_so(tmp_path: Path) -> None:
    async with sharing(tmp_path, 15, pinned={"pin": True}, one={}) as [pinned, one], asyncio.timeout(PATIENCE):
        assert pinned.state == "ready" and one.state == "stopped"
        assert one.error is not None and "policies.tiering.models.memory" in one.error
        with pytest.raises(ModelUnavailable, match="no room beside those that are pinned"):
            await one.ready()


def test_a_pinned_model_is_not_unloaded_when_idle_either() -> None:
    with pytest.raises(ValueError, match="leave one of both out"):
        EchoModel.model_validate({"engine": "echo", "pin": True, "idle_unload": "5m"})
