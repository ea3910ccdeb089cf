"""What the store of responses forgets, and when."""

from datetime import timedelta
from pathlib import Path

import pytest

from config.server import ResponsesSpec
from server.api.responses.items import said
from server.api.responses.kept import Kept
from server.errors import NotFound, PreviousResponseNotFound
from server.state import State

pytestmark = pytest.mark.anyio


async def test_the_least_recently_used_are_forgotten(tmp_path: Path) -> None:
    async with State.open(tmp_path / "state.db") as state:
        kept = Kept(state, ResponsesSpec(most=2), "")
        for name in ("resp_a", "resp_b"):
            await kept.put(name, None, b"{}", earlier=[], given=[said("user", name)], output=[])
        await kept.conversation("resp_a")  # so `b` is the least recently used
        await kept.put("resp_c", None, b"{}", earlier=[], given=[said("user", "c")], output=[])
        assert (await kept.get("resp_a"), await kept.get("resp_c")) == (b"{}", b"{}")
        with pytest.raises(NotFound):
            await kept.get("resp_b")


async def test_what_was_not_used_for_long_is_forgotten(tmp_path: Path) -> None:
    async with State.open(tmp_path / "state.db") as state:
        item = said("user", "x")
        await Kept(state, ResponsesSpec(), "").put("resp_a", None, b"{}", earlier=[], given=[item], output=[])
        late = Kept(state, ResponsesSpec(keep=timedelta(microseconds=1)), "")
        assert await late.items([item["id"]]) == {}
        with pytest.raises(PreviousResponseNotFound):
            await late.conversation("resp_a")


async def test_what_continues_something_not_kept_is_kept_whole(tmp_path: Path) -> None:
    async with State.open(tmp_path / "state.db") as state:
        kept = Kept(state, ResponsesSpec(), "")
        heard, asked = said("user", "not kept"), said("user", "kept")
        await kept.put("resp_b", "resp_a", b"{}", earlier=[heard], given=[asked], output=[])
        assert await kept.conversation("resp_b") == await kept.input("resp_b") == [heard, asked]


async def test_a_conversation_without_its_beginning_is_not_continued(tmp_path: Path) -> None:
    async with State.open(tmp_path / "state.db") as state:
        kept = Kept(state, ResponsesSpec(), "")
        await kept.put("resp_a", None, b"{}", earlier=[], given=[said("user", "a")], output=[])
        await kept.put("resp_b", "resp_a", b"{}", earlier=[], given=[said("user", "b")], output=[])
        texts = [item["content"][0]["text"] for item in await kept.conversation("resp_b")]
        assert texts == ["a", "b"]
        await kept.delete("resp_a")
        with pytest.raises(PreviousResponseNotFound, match="resp_a"):
            await kept.conversation("resp_b")
