"""The OpenAPI document and its page: complete, true to this server's recipe, and whole without a network."""

import json
import re
from typing import Any

import jsonschema_rs
import pytest

from tests.live import Live

ANSWERED = ["ChatRequest", "CompletionRequest", "EmbeddingsRequest", "MessagesRequest", "CountTokensRequest"]


@pytest.fixture(scope="module")
def document(wire: Live) -> dict[str, Any]:
    with wire.client() as client:
        found: dict[str, Any] = client.get("/openapi.json").json()
        return found


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [(path, method, each) for path, item in document["paths"].items() for method, each in item.items()]


def validator(document: dict[str, Any], schema: dict[str, Any]) -> Any:
    whole = json.dumps({**schema, "components": document["components"]})
    return jsonschema_rs.Draft202012Validator(json.loads(whole))


def test_models_are_named_by_what_they_are_for(document: dict[str, Any]) -> None:
    bodies = document["components"]["schemas"]
    assert bodies["ChatRequest"]["properties"]["model"]["anyOf"][0]["enum"][:2] == ["echo", "gpt-4o-mini"]
    assert bodies["EmbeddingsRequest"]["properties"]["model"]["enum"] == ["embed"]
    assert "/v1/rerank" not in document["paths"], "no model of this recipe reranks"


def test_every_operation_has_a_tag_a_summary_and_its_headers(document: dict[str, Any]) -> None:
    tags = {each["name"] for each in document["tags"]}
    for path, method, operation in operations(document):
        assert operation["summary"], (path, method)
        assert set(operation["tags"]) <= tags
        for reply in operation["responses"].values():
            assert "x-request-id" in reply["headers"], (path, method)
    answers = document["paths"]["/v1/chat/completions"]["post"]["responses"]
    assert "x-ignored-params" in answers["200"]["headers"]
    assert "retry-after" in answers["503"]["headers"]


def test_examples_are_valid_by_their_own_schemas(document: dict[str, Any]) -> None:
    checked = 0
    for path, _, operation in operations(document):
        contents = [operation.get("requestBody", {}), *operation["responses"].values()]
        for media in (media for each in contents for media in each.get("content", {}).values()):
            if "example" in media:
                faults = list(validator(document, media["schema"]).iter_errors(media["example"]))
                assert not faults, (path, faults)
                checked += 1
    assert checked > 10


@pytest.mark.parametrize("kind", ANSWERED)
def test_examples_of_requests_are_answered_as_the_document_says(
    wire: Live, document: dict[str, Any], kind: str
) -> None:
    reference = f"#/components/schemas/{kind}"
    for path, _, operation in operations(document):
        media = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
        if media.get("schema", {}).get("$ref") != reference:
            continue
        with wire.client() as client:
            reply = client.post(path, json=media["example"])
        assert reply.status_code == 200, reply.text
        schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
        assert validator(document, schema).is_valid(reply.json())


def test_events_of_streams_are_described(document: dict[str, Any]) -> None:
    content = document["paths"]["/v1/chat/completions"]["post"]["responses"]["200"]["content"]
    assert "ChatChunk" in json.dumps(content["text/event-stream"])
    assert "ErrorReply" in json.dumps(content["text/event-stream"])
    assert {"ChatChunk", "ErrorReply"} <= set(document["components"]["schemas"])


def test_keys_are_asked_for_where_the_document_says(wire: Live, keyed: Live) -> None:
    with keyed.client() as client:
        document = client.get("/openapi.json").json()
        secured = [(path, method) for path, method, each in operations(document) if "security" in each]
        assert ("/v1/chat/completions", "post") in secured
        assert ("/healthz", "get") not in secured
        for path, method in secured:
            assert client.request(method, path.replace("{", "").replace("}", "")).status_code == 401, path
    with wire.client() as client:
        assert not any("security" in each for _, _, each in operations(client.get("/openapi.json").json()))


def test_the_page_is_whole_without_a_network(wire: Live) -> None:
    with wire.client() as client:
        page = client.get("/docs")
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert not re.findall(r"(?:src|href)=[\"'](?:https?:)?//", page.text)
        assert client.get("/").json()["documentation"].endswith("/docs")


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/v1/audio/speech", "no engine speaks"),
        ("/v1/audio/transcriptions", "no engine hears"),
        ("/v1/images/generations", "no engine makes images"),
        ("/v1/moderations", "response_format"),
        ("/v1/batches", "wait their turn"),
        ("/v1/fine_tuning/jobs", "not trained"),
        ("/v1/assistants", "/v1/models"),
        ("/v1/threads/a/runs", "previous_response_id"),
        ("/v1/realtime", "/v1/chat/completions"),
        ("/v1/uploads", "/v1/files"),
        ("/v1/evals", "evaluated"),
        ("/v1/containers", "tool"),
        ("/images/generations", "no engine makes images"),
    ],
)
def test_what_openai_has_and_hearth_has_not_is_told(wire: Live, path: str, said: str) -> None:
    with wire.client() as client:
        reply = client.post(path, json={"model": "echo"})
    assert reply.status_code == 404
    assert reply.json()["error"]["code"] == "endpoint_not_served"
    assert said in reply.json()["error"]["message"]


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("/v1/chat/completion", "/v1/chat/completions"),
        ("/v1/chat/complations", "/v1/chat/completions"),
        ("/v1/embedding", "/v1/embeddings"),
        ("/V1/Models", "/v1/models"),
        ("/v1/v1/models", "/v1/models"),
    ],
)
def test_a_near_miss_is_told_what_was_probably_meant(wire: Live, path: str, meant: str) -> None:
    with wire.client() as client:
        reply = client.get(path)
    assert reply.status_code == 404
    assert f"Did you mean {meant}?" in reply.json()["error"]["message"]
