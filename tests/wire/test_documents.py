"""Documents pushed into a collection of the recipe: searchable when the answer comes, replaced, listed, taken out."""

from typing import Any

import httpx
import pytest

from tests.knowledge.office import docx, paragraph, pdf
from tests.live import Live

ROUTE = "/v1/knowledge/handbook/documents"


def put(live: Live, each: str, **sent: Any) -> httpx.Response:
    with live.client() as client:
        return client.put(f"{ROUTE}/{each}", **sent)


def found(live: Live, query: str, **more: Any) -> list[str]:
    with live.client() as client:
        page = client.post("/v1/retrieve", json={"query": query, "collections": ["handbook"]} | more).json()
    return [chunk["document_id"] for chunk in page["data"]]


def test_a_document_is_searchable_when_the_answer_comes_and_is_replaced_by_its_id(knowing: Live) -> None:
    first = put(
        knowing, "ops/mail.md", json={"text": "# Mail\n\nThe mail comes at noon.", "attributes": {"year": 2026}}
    )
    assert first.status_code == 200, first.text
    told = first.json()
    assert (told["object"], told["id"], told["collection"]) == ("knowledge.document", "ops/mail.md", "handbook")
    assert (told["filename"], told["title"], told["attributes"]) == ("mail.md", "Mail", {"year": 2026})
    where = {"type": "eq", "key": "year", "value": 2026}
    assert found(knowing, "mail", filters=where) == ["ops/mail.md"]
    put(knowing, "ops/mail.md", json={"text": "The post arrives in the evening.", "title": "Post"})
    assert found(knowing, "mail", filters=where) == []
    assert found(knowing, "when does the post arrive?", k=1) == ["ops/mail.md"]
    with knowing.client() as client:
        assert client.get(f"{ROUTE}/ops/mail.md").json()["title"] == "Post"
        deleted = client.delete(f"{ROUTE}/ops/mail.md").json()
        assert deleted == {"id": "ops/mail.md", "deleted": True, "object": "knowledge.document.deleted"}
        assert client.delete(f"{ROUTE}/ops/mail.md").status_code == 404
    assert "ops/mail.md" not in found(knowing, "post")


def test_a_file_is_pushed_as_it_is(knowing: Live) -> None:
    markdown = "---\nteam: web\n---\n# Owls\n\nOwls fly at night.\n"
    page = "<html><head><title>Bats</title></head><body><p>Bats hang upside down.</p></body></html>"
    owls = put(knowing, "owls", content=markdown, headers={"content-type": "text/markdown; charset=utf-8"})
    bats = put(knowing, "bats", content=page, headers={"content-type": "text/html"})
    assert (owls.json()["title"], owls.json()["attributes"]) == ("Owls", {"team": "web"})
    assert bats.json()["title"] == "Bats"
    assert found(knowing, "who hangs upside down?", k=1) == ["bats"]
    with knowing.client() as client:
        listed = client.get(ROUTE, params={"order": "asc", "limit": 2}).json()
        assert ([each["id"] for each in listed["data"]], listed["has_more"]) == (["bats", listed["last_id"]], True)
        for each in ("owls", "bats"):
            client.delete(f"{ROUTE}/{each}")


def test_pdf_docx_tables_and_code_are_pushed_as_they_are(knowing: Live) -> None:
    word = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
    sent = {
        "tower": (pdf([["Towers."], ["The tower clock strikes thirteen."]], title="Towers"), "application/pdf"),
        "mill": (docx(paragraph("The mill grinds barley."), title="Mills"), word),
        "wells": (b"name;depth\nThe deep well;ninety metres\n", "text/csv"),
        "src/bell.py": (b"def ring_the_bell():\n    return 3\n", "text/x-python"),
        "cafe": ("Le caf\u00e9 ouvre.".encode("cp1252"), "text/plain; charset=windows-1252"),
    }
    told = {
        each: put(knowing, each, content=raw, headers={"content-type": media}).json()
        for each, (raw, media) in sent.items()
    }
    titles = {each: answer["title"] for each, answer in told.items()}
    assert titles == {"tower": "Towers", "mill": "Mills", "wells": "wells", "src/bell.py": "bell.py", "cafe": "cafe"}
    asked = {
        "what strikes thirteen?": "tower",
        "barley mill": "mill",
        "deep well": "wells",
        "ring the bell": "src/bell.py",
    }
    assert {query: found(knowing, query, k=1) for query in asked} == {query: [each] for query, each in asked.items()}
    with knowing.client() as client:
        page = client.post(
            "/v1/retrieve", json={"query": "strikes thirteen", "collections": ["handbook"], "k": 1}
        ).json()
        assert page["data"][0]["span"]["page"] == 1
        for each in sent:
            client.delete(f"{ROUTE}/{each}")


def test_a_document_keeps_the_licence_it_is_sent_with(knowing: Live) -> None:
    first = put(knowing, "song", json={"text": "A song of summer grass.", "licence": "CC-BY-4.0"})
    assert first.json()["licence"] == "CC-BY-4.0"
    with knowing.client() as client:
        hit = client.post("/v1/retrieve", json={"query": "summer grass", "collections": ["handbook"], "k": 1}).json()
        assert (hit["data"][0]["document_id"], hit["data"][0]["licence"]) == ("song", "CC-BY-4.0")
        client.delete(f"{ROUTE}/song")


@pytest.mark.parametrize(
    ("sent", "status", "param"),
    [
        ({"json": {"text": " "}}, 400, "text"),
        ({"json": {"title": "no text"}}, 400, "text"),
        ({"json": {"text": "x", "attributes": {"colour": "red"}}}, 400, "attributes"),
        ({"json": {"text": "x", "attributes": {"year": "new"}}}, 400, "attributes"),
        ({"json": {"text": "---\nyear: new\n---\nx"}}, 400, "text"),
        ({"content": b"\0\1", "headers": {"content-type": "text/plain"}}, 400, "text"),
        ({"content": b"\xff\xff", "headers": {"content-type": "text/markdown"}}, 400, "text"),
        ({"content": b"caf\xe9", "headers": {"content-type": "text/plain; charset=klingon"}}, 400, "text"),
        ({"content": b"%PDF", "headers": {"content-type": "application/pdf"}}, 400, "text"),
        ({"content": pdf([["x"]], locked=True), "headers": {"content-type": "application/pdf"}}, 400, "text"),
        ({"content": b"x", "headers": {"content-type": "image/png"}}, 415, None),
        ({"json": {"text": "x", "licence": ""}}, 400, "licence"),
    ],
)
def test_what_cannot_be_a_document_is_refused(knowing: Live, sent: dict[str, Any], status: int, param: str) -> None:
    reply = put(knowing, "refused", **sent)
    assert (reply.status_code, reply.json()["error"]["param"]) == (status, param), reply.text
    assert put(knowing, "x" * 513, json={"text": "x"}).json()["error"]["param"] == "document_id"


def test_what_a_source_of_the_recipe_brings_is_not_changed(knowing: Live) -> None:
    with knowing.client() as client:
        (own,) = [each["id"] for each in client.get(ROUTE).json()["data"] if each["filename"] == "keys.md"]
        assert "source of the recipe" in put(knowing, own, json={"text": "x"}).json()["error"]["message"]
        assert client.delete(f"{ROUTE}/{own}").status_code == 409
        assert client.get("/v1/knowledge/handbook").json()["state"] == "ready"
        unknown = client.get("/v1/knowledge/handbok/documents").json()["error"]
    assert (unknown["code"], unknown["param"]) == ("collection_not_found", "collection")
    assert "handbook" in unknown["message"]


def test_pushing_needs_the_scope_ingest(keyed: Live) -> None:
    with keyed.client("sk-retrieve-12345") as searching:
        assert searching.put(f"{ROUTE}/x", json={"text": "x"}).json()["error"]["code"] == "insufficient_scope"
        assert searching.get(ROUTE).json()["error"]["code"] == "collection_not_found"
