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
            assert same["score"] >= chunk["score"] - 1e-5  # embedded in another batch


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
    query = "who barks at the mail?"
    found = page(knowing, query=query, k=20)["data"]
    assert found[0]["filename"] == "dogs.md"
    scores = [chunk["score"] for chunk in found]
    assert scores == sorted(scores, reverse=True)
    alone = page(knowing, query=query, k=20, collections=["animals"])["data"]
    assert found[0]["score"] == alone[0]["score"]
    by_id = {chunk["id"]: chunk["score"] for chunk in page(knowing, query=query, k=20, collections=["plants"])["data"]}
    (moss,) = [chunk for chunk in found if chunk["collection"] == "plants"]
    assert moss["score"] <= by_id[moss["id"]]


def test_vectors_and_an_explanation_come_when_asked_for(knowing: Live) -> None:
    where = {"type": "gte", "key": "year", "value": 2022}
    found = page(knowing, collections=["animals"], k=2, filters=where, include=["vector", "explain"])
    for chunk in found["data"]:
        assert len(chunk["vector"]) == 384
        assert sum(value * value for value in chunk["vector"]) == pytest.approx(1, abs=1e-3)
    (told,) = found["explain"]
    assert (told["collection"], told["mode"], told["filter"]) == ("animals", "hybrid", "(`attribute_year` >= 2022)")
    assert sum(told["weights"].values()) == pytest.approx(1, abs=1e-3)
    assert told["confidence"] == {"vector": 1, "text": 1}
    assert told["ranker"] is None
    assert set(told["ranks"]) == {chunk["id"] for chunk in found["data"]}
    assert told["ranks"][found["data"][0]["id"]]["vector"] in (1, 2)
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


@pytest.mark.parametrize(
    ("more", "name"), [({"rewrite": True}, "rewrite"), ({"ranking_options": {"rankr": "x"}}, "rankr")]
)
def test_a_field_it_does_not_have_is_refused(knowing: Live, more: dict[str, Any], name: str) -> None:
    reply = ask(knowing, **more)
    assert reply.status_code == 400
    assert f"`{name}`" in reply.json()["error"]["message"]


def test_a_reranker_puts_what_was_found_in_its_own_order(knowing: Live) -> None:
    asked: dict[str, Any] = {"collections": ["animals"], "query": "cats of kind 3", "k": 7}
    ranking = {"ranker": "judge"}
    found = page(knowing, **asked, ranking_options=ranking, include=["explain"])
    scores = [chunk["scores"]["rerank"] for chunk in found["data"]]
    assert [chunk["score"] for chunk in found["data"]] == scores == sorted(scores, reverse=True)
    assert {chunk["id"] for chunk in found["data"]} == {chunk["id"] for chunk in page(knowing, **asked)["data"]}
    assert found["usage"]["rerank_tokens"] > 0
    assert found["timings_ms"]["rerank"] > 0
    assert found["explain"][0]["ranker"] == "judge"
    texts = [f"{chunk['heading']}\n\n{chunk['content'][0]['text']}" for chunk in found["data"]]
    with knowing.client() as client:
        body = {"model": "judge", "query": asked["query"], "documents": texts}
        direct = client.post("/v1/rerank", json=body).json()["results"]
    by_place = {each["index"]: each["relevance_score"] for each in direct}
    assert [by_place[place] for place in range(len(texts))] == pytest.approx(scores, abs=1e-3)
    near = {chunk["id"] for chunk in page(knowing, **(asked | {"k": 2}))["data"]}
    few = page(knowing, **(asked | {"k": 2}), ranking_options=ranking | {"depth": 2})["data"]
    assert {chunk["id"] for chunk in few} == near


@pytest.mark.parametrize(("ranker", "status"), [("embed", 400), ("nobody", 404)])
def test_a_ranker_that_cannot_rank_is_a_fault(knowing: Live, ranker: str, status: int) -> None:
    reply = ask(knowing, ranking_options={"ranker": ranker})
    assert (reply.status_code, reply.json()["error"]["param"]) == (status, "ranking_options.ranker")
    plain = page(knowing, ranking_options={"ranker": "none"})
    assert all("rerank" not in chunk["scores"] for chunk in plain["data"])


def test_neighbours_are_joined_to_a_chunk(knowing: Live) -> None:
    asked: dict[str, Any] = {"collections": ["animals"], "query": "Cats of kind 3", "k": 1, "mode": "text"}
    (chunk,) = page(knowing, **asked)["data"]
    (wide,) = page(knowing, **asked, neighbours=1)["data"]
    (text,) = (each["text"] for each in wide["content"])
    assert wide["id"] == chunk["id"]
    assert chunk["content"][0]["text"] in text
    assert [f"kind {n}" in text for n in range(6)] == [False, False, True, True, True, False]
    assert text.count("kind 3") == 1
    assert wide["span"]["start"] < chunk["span"]["start"] < chunk["span"]["end"] < wide["span"]["end"]
    assert wide["span"]["end"] - wide["span"]["start"] == len(text)
    assert wide["token_count"] > chunk["token_count"]
    assert page(knowing, **asked, neighbours=1, max_tokens=chunk["token_count"])["data"] == []
    refused = ask(knowing, **asked, neighbours=1, group_by="file")
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "neighbours")


def test_an_earlier_version_is_searched_as_it_was(knowing: Live) -> None:
    asked: dict[str, Any] = {"collections": ["plants"], "query": "ferns", "mode": "vector"}
    before = page(knowing, **asked)["index_version"]
    with knowing.client() as client:
        client.put("/v1/knowledge/plants/documents/fern", json={"text": "Ferns grow in the shade."}).raise_for_status()
        try:
            now = page(knowing, **asked)
            earlier = page(knowing, **asked, as_of=before["plants"])
            assert page(knowing, **asked, as_of=before)["data"] == earlier["data"]
        finally:
            client.delete("/v1/knowledge/plants/documents/fern").raise_for_status()
    assert now["data"][0]["document_id"] == "fern"
    assert "fern" not in {chunk["document_id"] for chunk in earlier["data"]}
    assert earlier["index_version"] == before
    assert now["index_version"]["plants"] > before["plants"]


def test_tiers_that_are_not_there_are_refused(knowing: Live) -> None:
    asked: dict[str, Any] = {"collections": ["plants"], "mode": "vector"}
    assert page(knowing, **asked, tiers=["hot", "warm"])["data"] == page(knowing, **asked)["data"]
    for tiers in (["cold"], ["warm", "cold"], ["tepid"], []):
        reply = ask(knowing, **asked, tiers=tiers)
        assert reply.status_code == 400
        assert reply.json()["error"]["param"].startswith("tiers")


@pytest.mark.parametrize("as_of", [999_999, {"plants": 999_999}, {"animals": 1}])
def test_a_version_that_is_not_there_is_refused(knowing: Live, as_of: object) -> None:
    reply = ask(knowing, collections=["plants"], as_of=as_of)
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "as_of")
    several = ask(knowing, as_of=1)
    assert (several.status_code, several.json()["error"]["param"]) == (400, "as_of")
