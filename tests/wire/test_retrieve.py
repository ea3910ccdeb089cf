"""`/v1/retrieve`: several collections and queries at once, gathered by file, within a budget, in pages, explained."""

from typing import Any

import httpx
import pytest

from tests.live import Live


def ask(knowing: Live, **asked: Any) -> httpx.Response:
    with knowing.client() as client:
        return client.post("/v1/retrieve", json={"query": "which animal sleeps at day?"} | asked)


def page(knowing: Live, **asked: Any) -> dict[str, Any]:
    reply = ask(knowing, **asked)
    assert reply.status_code == 200, reply.text
    found: dict[str, Any] = reply.json()
    return found


def test_every_collection_is_searched_unless_some_are_named(knowing: Live) -> None:
    everywhere = page(knowing, k=20)
    assert {chunk["collection"] for chunk in everywhere["data"]} == {"handbook", "animals", "plants"}
    assert set(everywhere["index_version"]) == {"handbook", "animals", "plants"}
    named = page(knowing, k=20, collections=["plants"])
    assert {chunk["filename"] for chunk in named["data"]} == {"moss.md"}
    assert named["data"][0].keys() >= {"id", "uri", "heading", "scores", "span", "token_count", "citation"}
    assert ask(knowing, collections=["plant"]).json()["error"]["code"] == "collection_not_found"


def test_several_queries_find_each_chunk_once_under_its_best_score(knowing: Live) -> None:
    queries = ["who barks at the mail?", "what do cats do?"]
    both = page(knowing, query=queries, k=20, mode="vector")
    assert both["search_query"] == queries
    scores = [chunk["score"] for chunk in both["data"]]
    assert scores == sorted(scores, reverse=True)
    assert len({chunk["id"] for chunk in both["data"]}) == len(scores)
    for query in queries:
        for chunk in page(knowing, query=query, k=20, mode="vector")["data"]:
            (same,) = [each for each in both["data"] if each["id"] == chunk["id"]]
            assert same["score"] >= chunk["score"]


def test_chunks_are_gathered_by_file(knowing: Live) -> None:
    found = page(knowing, collections=["animals"], group_by="file", k=2, mode="vector")
    assert [chunk["filename"] for chunk in found["data"]] == ["cats.md", "dogs.md"]
    cats = found["data"][0]
    assert len(cats["content"]) == len(cats["chunks"]) == 6
    assert (cats["chunks"][0]["id"], cats["chunks"][0]["score"]) == (cats["id"], cats["score"])
    assert cats["token_count"] == sum(each["token_count"] for each in cats["chunks"])
    assert "chunks" not in page(knowing, k=1)["data"][0]


def test_pages_follow_one_another_without_a_gap(knowing: Live) -> None:
    whole = [chunk["id"] for chunk in page(knowing, k=20)["data"]]
    seen, token = [], None
    while True:
        part = page(knowing, k=3, page=token)
        seen += [chunk["id"] for chunk in part["data"]]
        assert part["has_more"] == (part["next_page"] is not None)
        if not part["has_more"]:
            break
        token = part["next_page"]
    assert seen == whole
    for wrong in ("3", "page_x", "page_999999"):
        assert ask(knowing, page=wrong).json()["error"]["param"] == "page"


def test_a_budget_holds_as_many_of_the_nearest_as_fit(knowing: Live) -> None:
    whole = page(knowing, k=20)["data"]
    budget = sum(chunk["token_count"] for chunk in whole[:3])
    found = page(knowing, k=20, max_tokens=budget)
    assert [chunk["id"] for chunk in found["data"]] == [chunk["id"] for chunk in whole[:3]]
    assert found["next_page"] == "page_3"
    assert page(knowing, k=20, max_tokens=budget - 1)["next_page"] == "page_2"
    assert page(knowing, k=20, max_tokens=1)["data"] == []


def test_a_threshold_and_weights_rank_as_they_say(knowing: Live) -> None:
    scores = [chunk["score"] for chunk in page(knowing, k=20, mode="vector")["data"]]
    kept = page(knowing, k=20, mode="vector", ranking_options={"score_threshold": scores[1]})["data"]
    assert [chunk["score"] for chunk in kept] == [score for score in scores if score >= scores[1]]
    for weights, mode in (((1, 0), "vector"), ((0, 1), "text")):
        hybrid = {"embedding_weight": weights[0], "text_weight": weights[1]}
        (first,) = page(knowing, k=1, query="spring moss", ranking_options={"hybrid_search": hybrid})["data"]
        assert first["id"] == page(knowing, k=1, query="spring moss", mode=mode)["data"][0]["id"]


def test_hybrid_scores_of_several_collections_compare(knowing: Live) -> None:
    found = page(knowing, query="who barks at the mail?", k=20)["data"]
    assert found[0]["filename"] == "dogs.md"
    assert [chunk["collection"] for chunk in found if chunk["score"] > 0.9] == ["animals"]
    best = {leg: max(chunk["scores"].get(leg, 0) for chunk in found) for leg in ("vector", "text")}
    for chunk in found:
        shares = [max(0, chunk["scores"].get(leg, 0)) / best[leg] for leg in ("vector", "text")]
        assert chunk["score"] == pytest.approx(sum(shares) / 2, abs=1e-4)


def test_vectors_and_an_explanation_come_when_asked_for(knowing: Live) -> None:
    where = {"type": "gte", "key": "year", "value": 2022}
    found = page(knowing, collections=["animals"], k=2, filters=where, include=["vector", "explain"])
    for chunk in found["data"]:
        assert len(chunk["vector"]) == 384
        assert sum(value * value for value in chunk["vector"]) == pytest.approx(1, abs=1e-3)
    (told,) = found["explain"]
    assert (told["collection"], told["mode"], told["filter"]) == ("animals", "hybrid", "(`attribute_year` >= 2022)")
    assert told["weights"] == {"embedding_weight": 1, "text_weight": 1}
    assert set(told["timings_ms"]) == {"embed", "vector", "text"}
    plain = page(knowing, k=1)
    assert "explain" not in plain
    assert "vector" not in plain["data"][0]


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"query": ""}, "query"),
        ({"k": 0}, "k"),
        ({"group_by": "page"}, "group_by"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"include": ["text"]}, "include[0]"),
        ({"filters": {"type": "eq", "key": "colour", "value": "red"}}, "filters"),
    ],
)
def test_a_wrong_field_is_refused_by_name(knowing: Live, asked: dict[str, Any], param: str) -> None:
    reply = ask(knowing, **asked)
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, param), reply.text


@pytest.mark.parametrize(("more", "name"), [({"as_of": 3}, "as_of"), ({"ranking_options": {"ranker": "x"}}, "ranker")])
def test_a_field_it_does_not_have_is_refused(knowing: Live, more: dict[str, Any], name: str) -> None:
    reply = ask(knowing, **more)
    assert reply.status_code == 400
    assert f"`{name}`" in reply.json()["error"]["message"]
