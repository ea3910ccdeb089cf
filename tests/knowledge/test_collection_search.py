"""Searching a collection: each mode finds, filters hold, any text is a query, and nothing heavy is imported early."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.errors import InvalidValue
from server.knowledge import Collection, parse_filter
from tests.knowledge.conftest import Make
from tests.knowledge.hashing import HashEmbedder

pytestmark = pytest.mark.anyio

PAGES = {
    "settings.md": "---\nteam: ops\nyear: 2024\nweight: 1.5\ndraft: true\n---\n# Settings\n\n## Memory\n\n"
    "Set `idle_unload` to free a model's memory. The default is never.\n\n## Port\n\nThe server listens on 8080.\n",
    "keys.md": "---\nteam: it's\nyear: 2020\n---\n# Keys\n\nRotate the keys every month, or ask for new ones.\n",
    "tokyo.md": "# 都市\n\n東京は日本の首都です。人口は千四百万人です。\n\n北京是中国的首都。\n",
    "coffee.md": "# Café\n\nCrème brûlée is served in the café after the running race.\n",
}


@pytest.fixture
async def collection(make: Make, docs: Path) -> Collection:
    for name, text in PAGES.items():
        (docs / name).write_text(text, encoding="utf-8")
    found = make(attributes={"team": "string", "year": "int", "weight": "float", "draft": "bool"})
    await found.__aenter__()
    await found.sync()
    return found


async def first(collection: Collection, query: str, **options: object) -> str:
    hits = (await collection.search(query, **options)).hits  # type: ignore[arg-type]  # the test's own keywords
    return hits[0].uri if hits else ""


@pytest.mark.parametrize("mode", ["vector", "text", "hybrid"])
@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("idle_unload", "settings.md"),
        ("How do I free the memory of a model?", "settings.md"),
        ("rotate keys", "keys.md"),
    ],
)
async def test_an_exact_key_and_a_question_both_find_their_page(
    collection: Collection, mode: str, query: str, expected: str
) -> None:
    assert await first(collection, query, mode=mode) == expected


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("東京", "tokyo.md"),
        ("中国", "tokyo.md"),
        ("cafe", "coffee.md"),
        ("creme", "coffee.md"),
        ("run", "coffee.md"),
        ("unload idle", "settings.md"),
        ("IDLE_UNLOAD", "settings.md"),
        ("memory", "settings.md"),
        ("the", "settings.md"),
    ],
)
async def test_words_are_found_in_any_script_case_and_form(collection: Collection, query: str, expected: str) -> None:
    uris = {hit.uri for hit in (await collection.search(query, mode="text")).hits}
    assert expected in uris


async def test_a_hybrid_search_tells_every_score(collection: Collection) -> None:
    found = await collection.search("idle_unload free a model's memory the default", mode="hybrid")
    best = found.hits[0]
    assert best.uri == "settings.md"
    assert best.scores["text"] > 0
    assert all(0 <= hit.score <= 1 and -1 <= hit.scores["vector"] <= 1.0001 for hit in found.hits)
    assert [hit.score for hit in found.hits] == sorted((hit.score for hit in found.hits), reverse=True)
    by_vector = {hit.id: hit.score for hit in (await collection.search("idle_unload", mode="vector")).hits}
    for hit in (await collection.search("idle_unload", weights=(0.0, 1.0))).hits:
        assert max(0.0, hit.scores["vector"]) == pytest.approx(by_vector[hit.id], abs=1e-5)
    assert set(found.timings_ms) == {"embed", "vector", "text"}
    assert found.tokens > 0


async def test_a_text_search_embeds_nothing(make: Make, docs: Path) -> None:
    (docs / "a.md").write_text("words here", encoding="utf-8")
    embedder = HashEmbedder()
    async with make(embedder) as collection:
        await collection.sync()
        before = embedder.inputs
        found = await collection.search("words", mode="text")
        assert (embedder.inputs, found.tokens, len(found.hits)) == (before, 0, 1)
        assert 0 < found.hits[0].score < 1


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"type": "eq", "key": "team", "value": "ops"}, {"settings.md"}),
        ({"type": "eq", "key": "team", "value": "it's"}, {"keys.md"}),
        ({"type": "eq", "key": "team", "value": "' OR 1=1 --"}, set()),
        ({"type": "ne", "key": "team", "value": "ops"}, {"keys.md", "tokyo.md", "coffee.md"}),
        ({"type": "gt", "key": "year", "value": 2020}, {"settings.md"}),
        ({"type": "gte", "key": "year", "value": 2020.0}, {"settings.md", "keys.md"}),
        ({"type": "lt", "key": "weight", "value": 2}, {"settings.md"}),
        ({"type": "gt", "key": "weight", "value": 1e-9}, {"settings.md"}),
        ({"type": "lte", "key": "weight", "value": -1.5}, set()),
        ({"type": "eq", "key": "draft", "value": True}, {"settings.md"}),
        ({"type": "ne", "key": "draft", "value": True}, {"keys.md", "tokyo.md", "coffee.md"}),
        ({"type": "in", "key": "year", "value": [2020, 2021]}, {"keys.md"}),
        ({"type": "nin", "key": "year", "value": [2020]}, {"settings.md", "tokyo.md", "coffee.md"}),
        ({"type": "eq", "key": "filename", "value": "tokyo.md"}, {"tokyo.md"}),
        ({"type": "eq", "key": "heading", "value": "Settings > Port"}, {"settings.md"}),
        ({"type": "eq", "key": "title", "value": "都市"}, {"tokyo.md"}),
        (
            {
                "type": "or",
                "filters": [
                    {"type": "eq", "key": "uri", "value": "coffee.md"},
                    {"type": "and", "filters": [{"type": "lt", "key": "year", "value": 2022}]},
                ],
            },
            {"coffee.md", "keys.md"},
        ),
    ],
)
@pytest.mark.parametrize("mode", ["vector", "hybrid"])
async def test_filters_hold_in_the_store(collection: Collection, mode: str, value: object, expected: set[str]) -> None:
    found = await collection.search("the words of a page", mode=mode, filters=parse_filter(value), k=20)  # type: ignore[arg-type]  # a parameter of the test
    assert {hit.uri for hit in found.hits} == expected


async def test_filters_hold_for_words_too(collection: Collection) -> None:
    filters = parse_filter({"type": "eq", "key": "team", "value": "it's"})
    assert {hit.uri for hit in (await collection.search("the", mode="text", filters=filters)).hits} == {"keys.md"}
    with pytest.raises(InvalidValue, match="did you mean `team`"):
        await collection.search("x", filters=parse_filter({"type": "eq", "key": "taem", "value": "x"}))


NASTY = [
    '"', '"unbalanced', "AND OR NOT", "(((", "a:b", "text:*", "field^2~1", "\\", "'; DROP TABLE chunks; --", "\x00",
    "😀",     "!!!", "-", "+a -b", "[1 TO 2]", "a\nb\tc", "\ud800", "\u202e\u200d", "%s {}", "/regex/", "x" * 10_000,
    "word " * 2_000, "字" * 10_000, "?", "*", "\u0301" * 50,
]  # fmt: skip


@pytest.mark.parametrize("mode", ["text", "hybrid"])
async def test_any_text_is_a_query(collection: Collection, mode: str) -> None:
    for query in NASTY:
        found = await collection.search(query, mode=mode)  # type: ignore[arg-type]  # a parameter
        assert all(0 <= hit.score <= 1 for hit in found.hits)


async def test_fuzzed_queries_are_never_a_fault(collection: Collection) -> None:
    loop = asyncio.get_running_loop()

    @given(st.text(st.characters(), min_size=1, max_size=60).filter(lambda text: text.strip() != ""))
    def fuzz(query: str) -> None:
        asyncio.run_coroutine_threadsafe(collection.search(query, mode="text"), loop).result(timeout=30)

    await asyncio.to_thread(fuzz)


async def test_a_query_longer_than_the_model_reads_is_embedded_in_pieces(make: Make, docs: Path) -> None:
    (docs / "a.md").write_text("Bears sleep in winter.", encoding="utf-8")
    embedder = HashEmbedder(context=32)
    async with make(embedder) as collection:
        await collection.sync()
        found = await collection.search("Do bears sleep in winter? " * 5_000, mode="vector")
        assert [hit.uri for hit in found.hits] == ["a.md"]
        assert embedder.longest <= 32 * 4


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"query": " \n"}, "query"),
        ({"query": ""}, "query"),
        ({"query": "x", "k": 0}, "k"),
        ({"query": "x", "k": 1001}, "k"),
        ({"query": "x", "mode": "magic"}, "mode"),
        ({"query": "x", "weights": (0.0, 0.0)}, "ranking_options"),
        ({"query": "x", "weights": (-1.0, 1.0)}, "ranking_options"),
        ({"query": "x", "weights": (float("nan"), 1.0)}, "ranking_options"),
    ],
)
async def test_wrong_questions_are_refused_by_name(make: Make, options: dict[str, object], param: str) -> None:
    async with make() as collection:
        with pytest.raises(InvalidValue) as refused:
            await collection.search(**options)  # type: ignore[arg-type]  # wrong on purpose
        assert refused.value.param == param


@pytest.mark.parametrize("mode", ["vector", "text", "hybrid"])
async def test_an_empty_collection_finds_nothing(make: Make, mode: str) -> None:
    async with make() as collection:
        assert (await collection.search("anything", mode=mode)).hits == []  # type: ignore[arg-type]  # a parameter


async def test_k_bounds_the_hits_beyond_the_depth_of_a_leg(make: Make, docs: Path) -> None:
    for n in range(130):
        (docs / f"{n}.md").write_text(f"Page {n} about bears.", encoding="utf-8")
    async with make() as collection:
        await collection.sync()
        for mode in ("vector", "text", "hybrid"):
            assert len((await collection.search("bears", k=120, mode=mode)).hits) == 120  # type: ignore[arg-type]  # a parameter of the test
            assert len((await collection.search("bears", mode=mode)).hits) == 8  # type: ignore[arg-type]  # a parameter of the test


def test_importing_the_room_loads_nothing_heavy() -> None:
    code = (
        "import sys, server.knowledge\n"
        "heavy = {'lancedb', 'pyarrow', 'trafilatura', 'lxml', 'tokenizers', 'torch', 'openvino'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
