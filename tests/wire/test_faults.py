"""Every fault on every route has OpenAI's error shape; nothing is a 500 and nothing hangs."""

import json

import httpx
import pytest

from tests.live import Live

CHAT = "/v1/chat/completions"
JSON = {"content-type": "application/json"}


def error_of(reply: httpx.Response) -> dict[str, object]:
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["x-request-id"]
    body = reply.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    error: dict[str, object] = body["error"]
    return error


BODIES = {
    "nothing": (b"", 400),
    "no json": (b"{", 400),
    "no object": (b"[]", 400),
    "two values": (b"{}{}", 400),
    "null": (b"null", 400),
    "invalid utf-8": (b'{"model": "\xff\xfe"}', 400),
    "utf-16": ('{"model": "echo"}'.encode("utf-16"), 400),
    "deep nesting": (b'{"model": "echo", "messages": [], "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400),
    "deep tools": (
        b'{"model":"echo","messages":[],"tools":[{"a":' + b'{"a":' * 20_000 + b"1" + b"}" * 20_001 + b"]}",
        400,
    ),
    "huge number": (b'{"model": "echo", "messages": [], "seed": ' + b"9" * 5000 + b"}", 400),
    "too large": (b" " * (256 * 1024 + 1), 413),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_bad_body(wire: Live, name: str) -> None:
    body, status = BODIES[name]
    with wire.client() as client:
        for route in (CHAT, "/v1/embeddings", "/v1/retrieve"):
            reply = client.post(route, content=body, headers=JSON)
            assert reply.status_code == status, (route, reply.text)
            assert error_of(reply)["type"] == "invalid_request_error"


SAID = {"messages": [{"role": "user", "content": "Hi"}]}


@pytest.mark.parametrize(
    ("route", "field", "body"),
    [
        (CHAT, "seed", SAID),
        (CHAT, "max_tokens", SAID),
        ("/v1/completions", "seed", {"prompt": "Hi"}),
        ("/v1/responses", "seed", {"input": "Hi"}),
        ("/v1/responses", "max_output_tokens", {"input": "Hi"}),
        ("/completion", "seed", {"prompt": "Hi"}),
        ("/completion", "n_predict", {"prompt": "Hi"}),
        ("/infill", "n_probs", {"input_prefix": "Hi"}),
        ("/v1/fim/completions", "random_seed", {"prompt": "Hi"}),
        ("/v1/fim/completions", "max_tokens", {"prompt": "Hi"}),
        ("/v1/fim/completions", "max_completion_tokens", {"prompt": "Hi"}),
        ("/v1/retrieve", "max_tokens", {"query": "Hi"}),
    ],
)
def test_numbers_past_64_bits_are_refused_by_name(route: str, field: str, body: dict[str, object], wire: Live) -> None:
    with wire.client() as client:
        for number in (2**63, -(2**63) - 1, 10**30):
            model = {} if route == "/v1/retrieve" else {"model": "echo"}
            reply = client.post(route, json={field: number} | model | body)
            assert (reply.status_code, error_of(reply)["param"]) == (400, field)


def test_a_negative_seed_is_one(wire: Live) -> None:
    with wire.client() as client:
        for seed in (-1, -(2**63), 2**63 - 1):
            reply = client.post(CHAT, json={"model": "echo", "seed": seed} | SAID)
            assert reply.status_code == 200, reply.text


def test_a_body_of_unsaid_length_over_the_limit(wire: Live) -> None:
    with wire.client() as client:
        reply = client.post(CHAT, content=(b" " * 65536 for _ in range(8)), headers=JSON)
    assert reply.status_code == 413
    error_of(reply)


def test_unknown_routes_and_wrong_methods(wire: Live) -> None:
    with wire.client() as client:
        assert error_of(client.get("/v1/nope"))["code"] == "not_found"
        reply = client.get(CHAT)
        assert reply.status_code == 405
        assert error_of(reply)["code"] == "method_not_allowed"
        assert "POST" in reply.headers["allow"]
        assert client.get("/v1/models/nope").status_code == 404


def test_another_content_type_is_refused(wire: Live) -> None:
    with wire.client() as client:
        reply = client.post(CHAT, content=b"model=echo", headers={"content-type": "application/x-www-form-urlencoded"})
    assert reply.status_code == 415
    assert "Content-Type: application/json" in str(error_of(reply)["message"])


def test_a_request_keeps_the_id_its_client_gave(wire: Live) -> None:
    with wire.client() as client:
        assert client.get("/healthz", headers={"x-request-id": "abc-1"}).headers["x-request-id"] == "abc-1"
        assert client.get("/healthz", headers={"x-request-id": "not an id"}).headers["x-request-id"].startswith("req_")


def test_browsers_on_this_machine_may_call_and_others_may_not(wire: Live) -> None:
    ask = {"access-control-request-method": "POST", "access-control-request-headers": "authorization,x-stainless-os"}
    with wire.client() as client:
        own = client.options(CHAT, headers=ask | {"origin": "http://localhost:3000"})
        assert own.status_code in (200, 204)
        assert own.headers["access-control-allow-origin"] == "http://localhost:3000"
        other = client.options(CHAT, headers=ask | {"origin": "https://evil.example"})
        assert "access-control-allow-origin" not in other.headers


@pytest.mark.parametrize(
    ("key", "route", "status"),
    [
        (None, "/v1/models", 401),
        ("sk-wrong-key-1", "/v1/models", 401),
        ("sk-infer-12345", "/v1/models", 200),
        ("sk-retrieve-12345", "/v1/models", 403),
        ("sk-admin-12345", "/v1/models", 200),
        ("sk-infer-12345", "/metrics", 403),
        ("sk-admin-12345", "/metrics", 200),
        (None, "/healthz", 200),
        (None, "/readyz", 200),
    ],
)
def test_keys_open_what_their_scopes_say(keyed: Live, key: str | None, route: str, status: int) -> None:
    with keyed.client(key) as client:
        reply = client.get(route)
    assert reply.status_code == status
    if status >= 400:
        error_of(reply)


def test_a_key_is_never_logged(keyed: Live) -> None:
    with keyed.client("sk-infer-12345") as client:
        client.get("/v1/models")
        client.get("/v1/models", headers={"x-api-key": "sk-infer-12345", "authorization": ""})
    assert "sk-infer-12345" not in keyed.log.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ("text", 200),
        (["a", "b"], 200),
        ([101, 2000], 200),
        ([[2000], [2001, 2002]], 200),
        ("", 400),
        (["a", ""], 400),
        ([], 400),
        ([[]], 400),
        (["a", 1], 400),
        ([1.5], 400),
        ([True], 400),
        ([-1], 400),
        ([99999999], 400),
        ("word " * 600, 400),
        (None, 400),
        ({"a": 1}, 400),
    ],
)
def test_embedding_inputs(wire: Live, given: object, status: int) -> None:
    with wire.client() as client:
        reply = client.post("/v1/embeddings", json={"model": "embed", "input": given})
        assert reply.status_code == status, reply.text
        if status != 200:
            error_of(reply)


def test_embeddings_refuse_what_the_model_cannot(wire: Live) -> None:
    with wire.client() as client:
        short = client.post("/v1/embeddings", json={"model": "embed", "input": "a", "dimensions": 64})
        assert error_of(short)["param"] == "dimensions"
        chat = client.post("/v1/embeddings", json={"model": "echo", "input": "a"})
        assert error_of(chat)["param"] == "model"


def test_token_ids_embed_as_their_text_does(wire: Live) -> None:
    with wire.client() as client:
        one = client.post("/v1/embeddings", json={"model": "embed", "input": "hello world"}).json()
        two = client.post("/v1/embeddings", json={"model": "embed", "input": [7592, 2088]}).json()
    pairs = zip(one["data"][0]["embedding"], two["data"][0]["embedding"], strict=True)
    assert sum(a * b for a, b in pairs) > 0.9999
    assert one["usage"] == two["usage"]


def test_the_served_document_names_every_route(wire: Live) -> None:
    with wire.client() as client:
        document = json.loads(client.get("/openapi.json").content)
    assert {CHAT, "/v1/embeddings", "/v1/models", "/v1/retrieve", "/healthz", "/readyz", "/health"} <= set(
        document["paths"]
    )
    assert document["components"]["schemas"]["ChatRequest"]["required"] == ["model", "messages"]
