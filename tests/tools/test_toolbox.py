"""All tools of a recipe together: found by name, arguments held against schemas, kept over a reload, searched."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from config import load
from config.tool import McpTool, RetrieveTool
from server.errors import KnowledgeUnavailable
from server.knowledge import Hit
from server.tools.arguments import Fitting
from server.tools.result import Result
from server.tools.toolbox import Toolbox
from tests.tools.conftest import Open, nothing_found

DEEP = "maximum recursion depth exceeded while deserializing an object"
ADD = '  add: {python: "plain:add"}\n'


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("name", "arguments", "told"),
    [
        ("add", '{"a": ', "The arguments do not fit: they are not JSON: Input data was truncated."),
        ("add", "[" * 100_000, f"The arguments do not fit: they are not JSON: {DEEP}."),
        ("add", "[1]", "The arguments do not fit: they are a JSON list, not an object."),
        ("add", '{"a": "1"}', 'The arguments do not fit: a: "1" is not of type "integer".'),
        ("add", "", 'The arguments do not fit: "a" is a required property.'),
        ("ad", "{}", "There is no tool ad. Did you mean add?"),
        ("add__more", "{}", "There is no tool add__more."),
    ],
)
async def test_a_call_that_cannot_be_made_is_told_to_the_model(
    opened: Open, name: str, arguments: str, told: str
) -> None:
    async with opened(ADD) as box:
        assert await box.call(name, arguments) == Result(told, error=True)


@pytest.mark.anyio
async def test_only_the_entries_of_an_assistant_may_be_called(opened: Open) -> None:
    async with opened(ADD + '  later: {python: "plain:later"}\n') as box:
        assert (await box.call("add", {"a": 1}, among=["add"])).text == "3"
        assert (await box.call("add", {"a": 1}, among=["later"])).text == "There is no tool add."
        assert [tool.name for tool in await box.tools(["later", "add"])] == ["later", "add"]
        with pytest.raises(KeyError):
            await box.tools(["nothing"])


def test_a_schema_that_refers_elsewhere_is_refused_and_nothing_is_fetched() -> None:
    with pytest.raises(ValueError, match="Retrieval is disabled"):
        Fitting({"$ref": "http://127.0.0.1:1/schema.json"})
    with pytest.raises(ValueError, match="objekt"):
        Fitting({"type": "objekt"})


@pytest.mark.anyio
async def test_a_reload_keeps_the_processes_of_equal_tools(opened: Open, folder: Path) -> None:
    process, other = '  process: {python: "plain:count"}\n', '  other: {python: "plain:count"}\n'
    async with opened(process + other) as box:
        await box.call("process", {})
        await box.call("other", {})
        recipe = folder / "after.yaml"
        changed = '  other: {python: "plain:count", timeout: 9s}\n'
        recipe.write_text(f"version: 1\ntools:\n{process}{changed}{ADD}", encoding="utf-8")
        await box.become(load(recipe).tools)
        assert box.entries == ("process", "other", "add")
        assert (await box.call("process", {})).structured == 2  # the same process
        assert (await box.call("other", {})).structured == 1
        assert (await box.call("add", {"a": 1})).structured == 3
        await box.become({})
        assert box.entries == () and box.states() == []
        assert (await box.call("add", {"a": 1})).text == "There is no tool add."


def hit(collection: str, text: str, score: float) -> Hit:
    where = ("id", collection, "d", f"{text}.md", f"file:///{text}.md", text, "Heading")
    return Hit(*where, f"All about {text}.", score, {}, 0, 1, 1, {}, page=None)


@pytest.mark.anyio
async def test_a_search_tool_tells_numbered_passages_of_all_its_collections() -> None:
    asked: list[tuple[str, str, int | None]] = []

    async def search(collection: str, query: str, k: int | None) -> Sequence[Hit]:
        asked.append((collection, query, k))
        if query == "closed":
            raise KnowledgeUnavailable("The collection is not open yet.")
        if query == "nothing":
            return []
        return (
            [hit(collection, "moss", 0.9), hit(collection, "fern", 0.1)]
            if collection == "plants"
            else [hit(collection, "cats", 0.5)]
        )

    spec = RetrieveTool(retrieve=("plants", "animals"), k=2)
    async with Toolbox({"look": spec}, search) as box:
        [tool] = await box.tools()
        assert tool.description == "Searches these documents and returns passages of them: plants, animals."
        found = await box.call("look", {"query": "what grows?"})
        assert asked == [("plants", "what grows?", 2), ("animals", "what grows?", 2)]
        assert found.text == ("[1] moss.md, Heading\nAll about moss.\n\n[2] cats.md, Heading\nAll about cats.")
        assert [each["index"] for each in found.structured["results"]] == [1, 2]
        assert await box.call("look", {"query": "nothing"}) == Result("Nothing was found.", False, {"results": []})
        assert await box.call("look", {"query": "closed"}) == Result("The collection is not open yet.", error=True)
        assert (await box.call("look", {})).error


@pytest.mark.anyio
async def test_every_call_is_measured_by_how_it_ended() -> None:
    measured: list[tuple[str, str]] = []
    asked = asyncio.Event()

    async def search(collection: str, query: str, k: int | None) -> Sequence[Hit]:
        if query == "closed":
            raise KnowledgeUnavailable("The collection is not open yet.")
        if query == "never":
            asked.set()
            await asyncio.Future()
        return []

    def note(name: str, outcome: str, elapsed: float) -> None:
        assert elapsed >= 0
        measured.append((name, outcome))

    specs = {"look": RetrieveTool(retrieve=("plants",)), "gone": McpTool(mcp=("no-such-program",))}
    async with Toolbox(specs, search, note) as box:
        for name, query in (("look", "moss"), ("look", "closed"), ("look", ""), ("nothing", ""), ("gone__it", "")):
            await box.call(name, {"query": query})
        waiting = asyncio.create_task(box.call("look", {"query": "never"}))
        await asked.wait()
        waiting.cancel()
        await asyncio.wait({waiting})
    assert measured == [
        ("look", "ok"),
        ("look", "error"),
        ("look", "unfit"),
        ("unknown", "unfit"),
        ("gone", "unavailable"),
        ("look", "cancelled"),
    ]


@pytest.mark.anyio
async def test_a_recipe_without_tools_starts_nothing() -> None:
    async with Toolbox({}, nothing_found) as box:
        assert await box.tools() == [] and box.states() == []
