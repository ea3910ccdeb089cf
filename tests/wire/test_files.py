"""`/v1/files` with the real OpenAI SDK: what is uploaded comes back, and no name or body leads out of its place."""

import hashlib
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from openai import NotFoundError, OpenAI

from tests.live import Live

_BOUNDARY = "a-boundary"


@pytest.fixture
def sdk(wire: Live) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{wire.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def part(name: str, value: bytes, filename: str | None = None) -> bytes:
    told = f'form-data; name="{name}"' + ("" if filename is None else f'; filename="{filename}"')
    return f"--{_BOUNDARY}\r\nContent-Disposition: {told}\r\n\r\n".encode() + value + b"\r\n"


def send(live: Live, *parts: bytes, end: bytes = b"--a-boundary--\r\n", **headers: str) -> httpx.Response:
    told = {"content-type": f"multipart/form-data; boundary={_BOUNDARY}"} | headers
    with live.client() as client:
        return client.post("/v1/files", content=b"".join(parts) + end, headers=told)


def test_a_file_comes_back_as_it_was_with_every_field_clients_read(sdk: OpenAI) -> None:
    raw = bytes(range(256)) * 800
    file = sdk.files.create(
        file=("notes.md", raw), purpose="user_data", expires_after={"anchor": "created_at", "seconds": 3600}
    )
    assert file.id.startswith("file-")
    assert (file.object, file.bytes, file.filename) == ("file", len(raw), "notes.md")
    assert (file.purpose, file.status, file.status_details) == ("user_data", "processed", None)
    assert file.expires_at == file.created_at + 3600
    assert sdk.files.retrieve(file.id) == file
    content = sdk.files.content(file.id)
    assert content.read() == raw
    assert content.response.headers["content-disposition"] == "attachment; filename*=UTF-8''notes.md"
    assert content.response.headers["x-content-type-options"] == "nosniff"


def test_a_deleted_file_is_gone_with_its_bytes_unless_another_has_the_same(sdk: OpenAI, wire: Live) -> None:
    raw = b"the same bytes in two files"
    one, two = (sdk.files.create(file=(name, raw), purpose="assistants") for name in ("one.txt", "two.txt"))
    digest = hashlib.sha256(raw).hexdigest()
    bytes_on_disk = wire.log.parent / "files" / digest[:2] / digest
    deleted = sdk.files.delete(one.id)
    assert (deleted.id, deleted.deleted, deleted.object) == (one.id, True, "file")
    assert sdk.files.content(two.id).read() == raw
    sdk.files.delete(two.id)
    assert not bytes_on_disk.exists()
    with pytest.raises(NotFoundError) as error:
        sdk.files.retrieve(two.id)
    assert error.value.param == "file_id"


def test_files_are_listed_in_pages_newest_first_and_by_purpose(sdk: OpenAI) -> None:
    made = [sdk.files.create(file=(f"{n}.jsonl", b"{}"), purpose="batch").id for n in range(5)]
    assert [file.id for file in sdk.files.list(purpose="batch")] == made[::-1]
    assert [file.id for file in sdk.files.list(purpose="batch", order="asc", limit=2)] == made
    page = sdk.files.list(purpose="batch", order="asc", limit=2, after=made[1])
    assert ([file.id for file in page.data], page.has_more) == (made[2:4], True)
    with pytest.raises(NotFoundError, match="not in this list"):
        sdk.files.list(after="file-nowhere")


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\me\\notes.md", "notes.md"),
        ("..", "upload"),
        ("a\x07b.txt", "ab.txt"),
        ("Prüfung 漢字.md", "Prüfung 漢字.md"),
        ("n" * 300 + ".md", "n" * 252 + ".md"),
    ],
)
def test_a_name_is_shown_and_never_a_path(wire: Live, sent: str, kept: str) -> None:
    reply = send(wire, part("purpose", b"assistants"), part("file", b"x", sent))
    assert reply.status_code == 200, reply.text
    assert reply.json()["filename"] == kept
    inside = {path.relative_to(wire.log.parent / "files").parts[0] for path in (wire.log.parent / "files").iterdir()}
    assert all(len(name) == 2 or name == "incoming" for name in inside)


def test_the_file_may_come_before_its_purpose_and_other_parts_are_named(wire: Live) -> None:
    reply = send(wire, part("file", b"x", "a.txt"), part("colour", b"red"), part("purpose", b"vision"))
    assert reply.status_code == 200, reply.text
    assert reply.json()["purpose"] == "vision"
    assert reply.headers["x-ignored-params"] == "colour"


_FILE = part("file", b"x", "a.txt")
_PURPOSE = part("purpose", b"assistants")


@pytest.mark.parametrize(
    ("parts", "param"),
    [
        ((_PURPOSE,), "file"),
        ((_FILE,), "purpose"),
        ((_PURPOSE, part("file", b"x")), "file"),
        ((_PURPOSE, _FILE, _FILE), "file"),
        ((_PURPOSE, _PURPOSE, _FILE), "purpose"),
        ((part("purpose", b"dancing"), _FILE), "purpose"),
        ((part("purpose", b"a" * 5000), _FILE), "purpose"),
        ((_PURPOSE, _FILE, part("expires_after[anchor]", b"created_at")), "expires_after"),
        (
            (_PURPOSE, _FILE, part("expires_after[anchor]", b"created_at"), part("expires_after[seconds]", b"60")),
            "expires_after[seconds]",
        ),
    ],
)
def test_a_wrong_part_is_refused_by_name(wire: Live, parts: tuple[bytes, ...], param: str) -> None:
    reply = send(wire, *parts)
    assert reply.status_code == 400, reply.text
    assert reply.json()["error"]["param"] == param


def test_a_body_that_is_no_multipart_is_refused_and_leaves_nothing(wire: Live) -> None:
    cut_off = send(wire, _PURPOSE, part("file", b"x" * 3_000_000, "a.txt")[:200_000], end=b"")
    no_parts = send(wire, end=b"nothing of the kind")
    crowd = send(wire, *(part(f"p{n}", b"") for n in range(40)))
    for reply in (cut_off, no_parts, crowd):
        assert (reply.status_code, reply.json()["error"]["code"]) == (400, "invalid_request"), reply.text
    unlabelled = send(wire, _PURPOSE, _FILE, **{"content-type": "application/json"})
    assert (unlabelled.status_code, unlabelled.json()["error"]["code"]) == (415, "unsupported_media_type")
    assert list((wire.log.parent / "files" / "incoming").iterdir()) == []


def test_an_upload_beyond_the_limit_is_refused_and_leaves_nothing(wire: Live) -> None:
    reply = send(wire, _PURPOSE, part("file", b"x" * 300 * 1024, "large.txt"))
    assert (reply.status_code, reply.json()["error"]["code"]) == (413, "body_too_large")
    assert list((wire.log.parent / "files" / "incoming").iterdir()) == []


def test_head_tells_the_size_and_the_routes_stand_without_the_prefix(sdk: OpenAI, wire: Live) -> None:
    file = sdk.files.create(file=("a.txt", b"twelve bytes"), purpose="assistants")
    with wire.client() as client:
        head = client.head(f"/files/{file.id}/content")
        assert (head.headers["content-length"], head.content) == ("12", b"")
        assert client.get(f"/files/{file.id}/content").content == b"twelve bytes"
        assert client.get(f"/files/{file.id}").json() == client.get(f"/v1/files/{file.id}").json()


def test_files_need_scopes(keyed: Live) -> None:
    with keyed.client("sk-retrieve-12345") as searching, keyed.client("sk-infer-12345") as chatting:
        assert searching.get("/v1/files").status_code == 200
        assert searching.delete("/v1/files/file-x").json()["error"]["code"] == "insufficient_scope"
        refused = searching.post("/v1/files", files={"file": ("a.txt", b"x")}, data={"purpose": "assistants"})
        assert refused.json()["error"]["code"] == "insufficient_scope"
        assert chatting.get("/v1/files").json()["error"]["code"] == "insufficient_scope"


def test_the_document_shows_the_form(wire: Live) -> None:
    with wire.client() as client:
        document: dict[str, Any] = client.get("/openapi.json").json()
    operation = document["paths"]["/v1/files"]["post"]
    media = operation["requestBody"]["content"]["multipart/form-data"]["schema"]
    form = document["components"]["schemas"][media["$ref"].rpartition("/")[2]]
    assert form["properties"]["file"] == {"type": "string", "format": "binary"}
    assert form["required"] == ["file", "purpose"]
    parameters = {each["name"]: each for each in document["paths"]["/v1/files"]["get"]["parameters"]}
    assert parameters["limit"]["in"] == "query"
