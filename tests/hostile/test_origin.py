"""Web pages that should not be here: foreign names, foreign origins, and pre-flights."""

import pytest

from tests.hostile.raw import CHAT, chat, exchange, get, head, post
from tests.live import Live

OWN_NAMES = [
    *(
        "localhost",
        "localhost:8080",
        "127.0.0.1",
        "127.0.0.1:8080",
        "[::1]:8080",
        "LOCALHOST",
        "hearth",
        "my-laptop:80",
    ),
    *("hearth.localhost", "my-laptop.local", "host.docker.internal:8080", "192.168.1.20:8080", "hearth.example.com"),
]
FOREIGN_NAMES = [
    "evil.example",
    "evil.example:8080",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "a.b",
    "evil.example.",
]


@pytest.mark.parametrize("host", OWN_NAMES)
def test_names_of_this_machine_are_served(target: Live, host: str) -> None:
    assert exchange(target, get("/v1/models", host=host)).status == 200


@pytest.mark.parametrize("host", FOREIGN_NAMES)
@pytest.mark.parametrize("path", ["/v1/models", "/healthz", "/nope"])
def test_a_name_made_to_point_here_is_not_served(target: Live, host: str, path: str) -> None:
    """DNS rebinding: a page of evil.example, whose name now says 127.0.0.1."""
    answer = exchange(target, get(path, host=host))
    assert answer.status == 421
    assert "server.hosts" in answer.error["message"]


FOREIGN_ORIGINS = [
    "https://evil.example",
    "http://evil.example:8080",
    "null",
    "http://localhost.evil.example",
    "https://127.0.0.1.a.b",
]
OWN_ORIGINS = [
    *("http://localhost:3000", "http://127.0.0.1:8080", "http://[::1]:5173", "https://chat.example.com"),
    *("http://hearth:8080", "vscode-webview://abc", "app://obsidian.md", "chrome-extension://abc"),
]


@pytest.mark.parametrize("origin", FOREIGN_ORIGINS)
def test_a_foreign_page_neither_computes_nor_reads(target: Live, origin: str) -> None:
    refused = exchange(target, post(chat(), f"Origin: {origin}"))
    assert refused.status == 403
    assert refused.error["code"] == "foreign_origin"
    asked = exchange(
        target, head("OPTIONS", CHAT, f"Origin: {origin}", "Access-Control-Request-Method: POST", "Content-Length: 0")
    )
    read = exchange(target, get("/v1/models", f"Origin: {origin}"))
    for answer in (refused, asked, read):
        assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("origin", OWN_ORIGINS)
def test_own_pages_may_ask(target: Live, origin: str) -> None:
    lines = ("Content-Type: application/json", f"Content-Length: {len(chat())}", f"Origin: {origin}")
    assert exchange(target, head("POST", CHAT, *lines, host="hearth:8080") + chat()).status == 200


def test_a_preflight_needs_no_key_and_allows_what_clients_send(target: Live) -> None:
    wanted = "authorization,content-type,x-stainless-os,x-stainless-retry-count"
    answer = exchange(
        target,
        head(
            "OPTIONS",
            CHAT,
            "Origin: http://localhost:3000",
            "Access-Control-Request-Method: POST",
            f"Access-Control-Request-Headers: {wanted}",
        ),
    )
    assert answer.status in (200, 204)
    assert answer.headers["access-control-allow-origin"] == "http://localhost:3000"
    assert (
        answer.headers["access-control-allow-headers"] != "*"
        or "access-control-allow-credentials" not in answer.headers
    )
